"""Tar shards as WebDataset writes them: indexed once, read by their place, whatever is wrong with them named."""

import io
import json
import os
import pickle
import tarfile

import pytest
from PIL import Image

from clipadapt.data import shard_index
from clipadapt.data.broken import check
from clipadapt.data.few_shot import make_task
from clipadapt.data.shards import expand_braces, find_shards, webdataset
from clipadapt.errors import UserError


def png(red):
    file = io.BytesIO()
    Image.new("RGB", (4, 4), (red, 0, 0)).save(file, "PNG")
    return file.getvalue()


def pack(path, entries):
    """Write entries, given as name and content, as a tar file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for name, content in entries:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def samples(first, count=4, kind="cls"):
    """Images with labels that alternate between two classes."""
    for number in range(first, first + count):
        label = number % 2
        said = {
            "cls": str(label),
            "txt": f"{['cat', 'dog'][label]}\n",
            "json": json.dumps({"label": label, "id": number}),
        }
        yield f"{number:04d}.png", png(number)
        yield f"{number:04d}.{kind}", said[kind].encode()


@pytest.fixture
def read(tmp_path):
    """A function that reads shards below a folder of the test's, with indices kept beside them."""

    def webdataset_here(root="*.tar", **options):
        parts = {key: str(tmp_path / options.pop(key)) for key in ("validation", "test") if key in options}
        return webdataset(str(tmp_path / root), **parts, cache_dir=str(tmp_path / "kept"), **options)

    return webdataset_here


CLASSES = {"class_names": ["cat", "dog"]}


@pytest.mark.parametrize("kind", ["cls", "txt", "json"])
def test_shards_with_labels_of_each_kind(tmp_path, read, kind):
    for number in range(3):
        pack(tmp_path / f"{number:03d}.tar", samples(4 * number, kind=kind))
    source = read("{000..002}.tar", **({} if kind == "txt" else CLASSES))
    assert source.class_names == ["cat", "dog"] and source.train.labels == [0, 1] * 6
    assert [image.getpixel((0, 0))[0] for image in source.train.images] == [*range(12)]
    assert source.validation is None and source.tests == {} and source.templates == ["a photo of a {}."]
    task = make_task(source, shots=2, seed=1)
    check(task)
    assert [image.getpixel((0, 0))[0] for image in task.support.images] == task.support_indices


def test_splits(tmp_path, read):
    for split, first in (("train", 0), ("val", 4), ("test", 8)):
        pack(tmp_path / f"{split}-0.tar", samples(first))
    source = read("train-*.tar", validation="val-{0..0}.tar", test="test-0.tar", templates=["{}!"], **CLASSES)
    assert [len(part) for part in (source.train, source.validation, source.tests["test"])] == [4, 4, 4]
    assert source.tests["test"].images[3].getpixel((0, 0)) == (11, 0, 0) and source.templates == ["{}!"]


def test_images_travel_between_processes_and_stand_for_their_files(tmp_path, read):
    pack(tmp_path / "0.tar", samples(0, 200))
    images = read(**CLASSES).train.select([5]).images
    assert len(pickle.dumps(images)) < 1000
    again = pickle.loads(pickle.dumps(images))
    assert again.content(again.items[0]) == png(5)


def test_names_up_to_their_first_dot_and_other_entries(tmp_path, read):
    pack(
        tmp_path / "0.tar",
        [
            ("a/1.seg.png", b"a mask"),
            ("a/1.PNG", png(1)),
            ("a/1.cls", b"1"),
            ("a/1.txt", b"a caption"),
            ("b/1.cls", b"0\n"),
            ("b/1.png", png(2)),
            ("notes.md", b""),
        ],
    )
    source = read(**CLASSES)
    assert source.train.labels == [1, 0] and source.train.images[0].getpixel((0, 0)) == (1, 0, 0)


def test_a_value_of_json_entries(tmp_path, read):
    said = [{"meta": 1, "species": "owl"}, {"species": "cat"}]
    entries = [
        (f"{i}.{kind}", content)
        for i in (0, 1)
        for kind, content in (("png", png(i)), ("json", json.dumps(said[i]).encode()))
    ]
    pack(tmp_path / "0.tar", entries)
    assert read(field="species").class_names == ["cat", "owl"]
    with pytest.raises(
        UserError,
        match=r'no labels beside them: a sample 0\.png needs .* \.json \(with "label"; data\.field=… names another',
    ):
        read()


def test_captions_beside_labels_are_no_classes(tmp_path, read):
    pack(tmp_path / "0.tar", [*samples(0, kind="json"), *((f"{i:04d}.txt", f"caption {i}".encode()) for i in range(4))])
    assert read(**CLASSES).train.labels == [0, 1, 0, 1]
    assert read(field="other").class_names == [f"caption {i}" for i in range(4)]


def test_what_file_managers_put_beside_files_is_left_out(tmp_path, read):
    hidden = [("__MACOSX/a/._1.png", b"x"), ("a/._1.png", b"x"), ("a/.cache/2.png", b"x"), ("__MACOSX/3.png", b"x")]
    pack(tmp_path / "0.tar", [("./a/1.png", png(1)), ("./a/1.cls", b"1"), *hidden])
    assert [image.name for image in read(**CLASSES).train.images.items] == ["./a/1.png"]


def test_an_index_is_made_once(tmp_path, read, monkeypatch):
    pack(tmp_path / "0.tar", samples(0))
    first = read(**CLASSES)
    monkeypatch.setattr(shard_index, "build_index", lambda *given: pytest.fail("it was indexed again"))
    assert read(**CLASSES) == first


def test_a_shard_that_changed_is_indexed_again(tmp_path, read):
    pack(tmp_path / "0.tar", samples(0))
    read(**CLASSES)
    pack(tmp_path / "0.tar", samples(7, 6))
    assert [image.getpixel((0, 0))[0] for image in read(**CLASSES).train.images] == [*range(7, 13)]
    same_size = os.stat(tmp_path / "0.tar")
    pack(tmp_path / "0.tar", samples(20, 6))
    os.utime(tmp_path / "0.tar", ns=(same_size.st_atime_ns, same_size.st_mtime_ns + 1))
    assert read(**CLASSES).train.images[0].getpixel((0, 0)) == (20, 0, 0)


def test_an_index_that_is_damaged_or_cannot_be_kept_is_made_again(tmp_path, read):
    pack(tmp_path / "0.tar", samples(0))
    first = read(**CLASSES)
    (kept,) = (tmp_path / "kept").iterdir()
    kept.write_text(kept.read_text()[:50])
    assert read(**CLASSES) == first
    (tmp_path / "file").write_text("")
    assert webdataset(str(tmp_path / "*.tar"), cache_dir=str(tmp_path / "file" / "below"), **CLASSES) == first


def test_patterns(tmp_path):
    assert expand_braces("x") == ["x"]
    assert expand_braces("{08..11}.tar") == ["08.tar", "09.tar", "10.tar", "11.tar"]
    assert expand_braces("{a,b}/{0..1}") == ["a/0", "a/1", "b/0", "b/1"]
    for number in (1, 2, 10):
        pack(tmp_path / f"{number}.tar", samples(0))
    assert [path.name for path in find_shards(str(tmp_path))] == ["1.tar", "2.tar", "10.tar"]
    assert [path.name for path in find_shards(str(tmp_path / "1*.tar"))] == ["1.tar", "10.tar"]


@pytest.mark.parametrize("root", ["", "test-*.tar", "{train,test}-0.tar"])
def test_a_shard_of_two_splits(tmp_path, read, root):
    for split, first in (("train", 0), ("test", 4)):
        pack(tmp_path / f"{split}-0.tar", samples(first))
    (tmp_path / "kept").mkdir()
    with pytest.raises(UserError, match=r"the shard '.*/test-0\.tar' of '.*' is taken for train and for test: give"):
        read(root, test="kept/../test-0.tar", **CLASSES)


@pytest.mark.parametrize("root", ["{1..3}.tar", "x*.tar", "nowhere/0.tar", "empty"])
def test_shards_that_are_missing(tmp_path, read, root):
    (tmp_path / "empty").mkdir()
    pack(tmp_path / "1.tar", samples(0))
    with pytest.raises(UserError, match=r"shards of '.*' are missing: .*\.tar"):
        read(root)


def test_compressed_shards_are_named(tmp_path, read):
    for name in ("b.tgz", "a.tar.gz", "c.txt"):
        (tmp_path / "packed" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "packed" / name).write_text("")
    said = r"missing: .*/packed/\*\.tar; compressed shards can't be read, unpack a\.tar\.gz, b\.tgz$"
    with pytest.raises(UserError, match=said):
        read("packed")


PAIR = [("0.png", png(0)), ("0.cls", b"0"), ("1.png", png(1))]


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ([("0.cls", b"0")], r"0\.tar' has no images \(read are bmp, "),
        ([("0.png", png(0)), ("1.png", png(1))], r"no labels beside them: a sample 0\.png needs an entry \.cls"),
        (PAIR, r"some images have a label \.cls, and these have none: .*0\.tar/1\.png$"),
        ([*PAIR, ("1.txt", b"dog")], r"some images have a label \.cls, and these have none: .*1\.png"),
        ([*PAIR, ("1.cls", b" ")], r"these have none: .*1\.png"),
        ([*PAIR, ("1.cls", b"2")], r"has labels that data\.class_names lacks: 2"),
        ([*PAIR, ("1.cls", b"\xff")], r"the label '.*0\.tar/1\.cls' can't be read: "),
        ([*PAIR, ("1.json", b"{")], r"the label '.*0\.tar/1\.json' can't be read: "),
        ([*PAIR, ("1.jpg", b"")], r"has two images of one name: 1\.png and 1\.jpg"),
    ],
)
def test_shards_that_are_no_task(tmp_path, read, entries, message):
    pack(tmp_path / "0.tar", entries)
    with pytest.raises(UserError, match=message):
        read(**CLASSES)


def test_numbers_without_class_names(tmp_path, read):
    pack(tmp_path / "0.tar", samples(0))
    with pytest.raises(UserError, match=r"0\.tar' are numbers: say what they stand for"):
        read("0.tar")


def test_files_that_are_no_whole_tar(tmp_path, read):
    (tmp_path / "0.tar").write_text("no archive" * 100)
    with pytest.raises(UserError, match=r"0\.tar' is no whole, uncompressed tar file"):
        read()
    with tarfile.open(tmp_path / "0.tar", "w:gz") as archive:
        archive.add(__file__, "0.png")
    with pytest.raises(UserError, match=r"0\.tar' is no whole, uncompressed tar file"):
        read()


@pytest.mark.parametrize("kept", [600, 1600, 2048, 2100])
def test_a_shard_that_was_cut_off(tmp_path, read, kept):
    path = pack(tmp_path / "0.tar", samples(0))
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(
        UserError, match=r"0\.tar(' is no whole|' is cut off: write|/\d+\.cls' can't be read: the shard is cut)"
    ):
        read(**CLASSES)


def test_images_that_are_damaged_are_named_with_their_shard(tmp_path, read):
    entries = dict(samples(0))
    entries["0002.png"] = entries["0002.png"][:40]
    entries["0003.png"] = b"no image"
    path = pack(tmp_path / "0.tar", entries.items())
    pack(tmp_path / "test" / "0.tar", entries.items())
    with pytest.raises(UserError, match=r"(?s)0\.tar/0002\.png' can't be read: .*0\.tar/0003\.png' can't be read: "):
        check(make_task(read(**CLASSES, test="test"), shots=2, seed=1))
    images = read(**CLASSES).train.images
    path.write_bytes(path.read_bytes()[:700])
    with pytest.raises(UserError, match=r"0001\.png' can't be read: the shard is cut off"):
        images[1]
    path.unlink()
    with pytest.raises(UserError, match=r"0001\.png' can't be read: .*No such file"):
        images[1]


@pytest.mark.parametrize(
    ("pattern", "said"),
    [
        ("x{1..99999999999}", "stands for 99,999,999,999 shards, and 1 to 100,000 are possible"),
        ("x{5..4}", "stands for 0 shards"),
        ("{a,b}" * 40, "stand for more than 100,000 shards"),
        ("{" * 500 + "}" * 500, "stand for more than 100,000 shards"),
    ],
)
def test_braces_that_stand_for_too_many_shards(pattern, said):
    with pytest.raises(UserError, match=said):
        find_shards(pattern)


def test_names_with_dots(tmp_path, read):
    entries = [("a/IMG.v2.png", png(1)), ("a/IMG.v2.cls", b"0"), ("./b.c.1.png", png(2)), ("./b.cls", b"1")]
    pack(tmp_path / "0.tar", entries)
    source = read(**CLASSES)
    assert source.train.labels == [0, 1] and len(read(**CLASSES).train) == 2


def test_unknown_entries_are_counted_whenever_shards_are_read(tmp_path, read):
    extra = [("0000.mask.png", png(9)), ("x/1.heic", b""), ("0001.npy", b""), ("._0000.png", b""), ("LICENSE", b"")]
    pack(tmp_path / "0.tar", [*samples(0), *extra])
    for _ in range(2):
        with pytest.warns(UserWarning, match="not read in '.*tar': 1 .*pip install pillow-heif") as caught:
            assert len(read(**CLASSES).train) == 4
        for part in ("1 .mask.png", "1 .heic", "1 .npy", "1 hidden file", "1 without an ending"):
            assert part in str(caught[0].message)


def test_shards_in_one_folder_that_are_called_by_their_splits(tmp_path, read):
    for name, first in (("train-000", 0), ("train-001", 4), ("test-000", 8)):
        pack(tmp_path / "shards" / f"{name}.tar", samples(first))
    with pytest.warns(UserWarning, match=r"for splits by their names: test test-000\.tar …, train train-000\.tar …"):
        source = read("shards", **CLASSES)
    assert (len(source.train), len(source.tests["test"])) == (8, 4)
