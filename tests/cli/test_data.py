"""`clipadapt data`: what there is, and whether every image can be read."""

import sys
from pathlib import Path

import pytest

from clipadapt import config
from clipadapt.cli import main
from clipadapt.data.labels import ambiguous_names
from clipadapt.report.data import images_per_class_text
from tests import prepared
from tests.broken import BROKEN, break_in, cut, noise


@pytest.fixture(autouse=True)
def evaluate_targets(tmp_path, monkeypatch):
    """Every command runs from a folder with nothing in it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])


@pytest.fixture
def pets(tmp_path):
    """Three cats and two dogs, and as many to test on."""
    for split in ("train", "test"):
        for name, count in (("cat", 3), ("dog", 2)):
            for number in range(count):
                noise(tmp_path / "pets" / split / name / f"{number}.jpg")
    return tmp_path / "pets"


def test_the_list_has_every_source(capsys):
    assert main(["data", "list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == [*config.options("data")]
    assert any(
        line.startswith("digits ") and " needs nothing  " in line and "Real handwriting" in line for line in lines
    )
    assert any(line.startswith("folder ") and " needs data.root=… " in line for line in lines)


def own(name, target, root):
    """A source of one's own below the folder `own`."""
    Path("own", "data").mkdir(parents=True, exist_ok=True)
    text = f"# Mine, {name}.\n_target_: clipadapt.data.{target}\nroot: {root}\ntemplates: null\n"
    Path("own", "data", f"{name}.yaml").write_text(text)


def listed(capsys):
    """What is listed with sources of one's own, without the spaces that line it up."""
    assert main(["--config-dir", "own", "data", "list"]) == 0
    return [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]


def test_the_list_has_sources_of_ones_own(tmp_path, pets, capsys):
    own("here", "sources.folder", pets)
    own("gone", "sources.folder", tmp_path / "nowhere")
    said = listed(capsys)
    assert f"here found in {pets} Mine, here." in said
    assert f"gone missing: there is no {tmp_path / 'nowhere'} Mine, gone." in said
    assert main(["data", "verify", "here", "-cd", "own"]) == 0
    assert main(["data", "verify", "gone", "-cd", "own"]) == 2
    assert "there is no image folder" in capsys.readouterr().err


def test_tables_and_shards_that_are_there_are_listed_so(tmp_path, capsys):
    for file in ("labels.csv", "a-0.tar", "a-1.tar", "[b].tar"):
        (tmp_path / file).touch()
    for name, file in {"table": "labels.csv", "notable": "label.csv"}.items():
        own(name, "tables.csv", tmp_path / file)
    patterns = {"stars": "a-*.tar", "braces": "a-{0..1}.tar", "nobraces": "a-{0..2}.tar", "nostars": "b-*.tar"}
    for name, pattern in {**patterns, "plain": "[b].tar"}.items():
        own(name, "shards.webdataset", f"'{tmp_path / pattern}'")
    said = listed(capsys)
    assert f"table found in {tmp_path / 'labels.csv'} Mine, table." in said
    assert f"notable missing: there is no {tmp_path / 'label.csv'} Mine, notable." in said
    assert f"stars found in {tmp_path / 'a-*.tar'} Mine, stars." in said
    assert f"braces found in {tmp_path / 'a-{0..1}.tar'} Mine, braces." in said
    assert f"plain found in {tmp_path / '[b].tar'} Mine, plain." in said
    assert f"nobraces missing: there is no {tmp_path / 'a-2.tar'} Mine, nobraces." in said
    assert f"nostars missing: there is no {tmp_path / 'b-*.tar'} Mine, nostars." in said


@pytest.mark.parametrize("chosen", [["folder"], ["data=folder"]])
def test_sound_data(pets, chosen, capsys):
    assert main(["data", "verify", *chosen, f"data.root={pets}"]) == 0
    said = capsys.readouterr().out
    assert "Data: pets, 2 classes" in said and "All 10 images can be read." in said
    assert said.count("2 (dog) to 3 (cat)") == 2


def test_every_problem_is_told(pets, capsys):
    broken = [*break_in(pets / "test" / "cat"), pets / "train" / "dog" / "1.jpg"]
    cut(broken[-1])
    noise(pets / "train" / "sea_lion" / "0.jpg")
    noise(pets / "train" / "Sea lion" / "0.jpg")
    assert main(["data", "verify", "folder", f"data.root={pets}"]) == 2
    said = capsys.readouterr()
    lines = said.out.splitlines()
    assert len([line for line in lines if "can't be read" in line or "no image file" in line]) == len(broken)
    assert all(any(f"'{path}'" in line for line in lines) for path in broken)
    assert any("the classes 'Sea lion', 'sea_lion' are the same words to CLIP" in line for line in lines)
    assert "All" not in said.out
    assert said.err == f"clipadapt: 'pets' has to be mended: {len(broken) + 1} problems are listed above\n"
    assert f" {len(BROKEN)} │" in said.out


def test_what_a_header_does_not_tell_is_found(pets, capsys):
    path = pets / "test" / "dog" / "0.jpg"
    content = bytearray(path.read_bytes())
    content[100:400] = bytes(300)
    path.write_bytes(content)
    assert main(["data", "verify", "folder", f"data.root={pets}"]) == 2
    assert f"'{path}' can't be read" in capsys.readouterr().out


@pytest.mark.parametrize("words", [["digits"], ["drawn", "data.test_images=12", "data.train_per_class=1"]])
def test_sources_without_files(words, capsys):
    assert main(["data", "verify", *words]) == 0
    assert "images can be read." in capsys.readouterr().out


def test_images_without_labels(pets, capsys):
    assert main(["data", "verify", "unlabelled", f"data.root={pets}", "data.class_names=[cat,dog]"]) == 0
    assert "not labelled" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "say what to do: clipadapt data list, "),
        (["lst"], "there is no command 'data lst': did you mean 'list'?"),
        (["folder"], "there is no command 'data folder': to run on these data write data=folder"),
        (["list", "digits"], "'digits' has no meaning here"),
        (["list", "-m"], "--multirun has no meaning here"),
        (["verify"], "say which data: clipadapt data verify folder data.root=my_images"),
        (["verify", "data.root=x"], "say which data"),
        (["prepare"], "say which data: clipadapt data prepare folder"),
        (["prepare", "digits"], "there is nothing to fetch: these images come with the package"),
        (
            ["prepare", "folder", "data.root=x"],
            "there is nothing to fetch: these images are your own, missing: there is no",
        ),
        (
            ["prepare", "imagenet"],
            "imagenet can't be fetched from here: get it from https://image-net.org, and prepare",
        ),
        (["prepare", "imagenet_c"], "get it from https://zenodo.org/records/2235448, and prepare it"),
        (["verify", "foldr", "data.root=x"], "there is no data 'foldr': did you mean 'folder'?"),
        (["verify", "folder"], "data.root has no value yet"),
        (["verify", "folder", "data.root=nowhere"], "there is no image folder '"),
        (["verify", "folder", "root=x"], "root=x has no meaning here: settings of data are written data.key=value"),
        (
            ["verify", "digits", "data.skip_broken=2"],
            "there is no key data.skip_broken: it is called task.skip_broken now",
        ),
    ],
)
def test_mistakes_are_told(words, said, capsys):
    assert main(["data", *words]) == 2
    errors = capsys.readouterr().err
    assert errors.startswith("clipadapt: ") and said in errors


def test_the_command_is_not_the_setting(capsys):
    assert main(["--cfg", "job", "data=drawn", "-p", "data"]) == 0
    assert "clipadapt.data.sources.drawn" in capsys.readouterr().out


def test_help(capsys):
    assert main(["data", "--help"]) == 0
    said = capsys.readouterr().out
    assert "clipadapt data verify folder data.root=my_images" in said and "unlabelled" in said


def test_names_that_are_the_same_words():
    names = ["sea_lion", "Sea  lion", "sealion", "cat", "CAT", "dog", "missile", "missile"]
    assert [text.partition(" are ")[0] for text in ambiguous_names(names)] == [
        "the classes 'sea_lion', 'Sea  lion'",
        "the classes 'cat', 'CAT'",
    ]


def test_how_many_images_a_class_has():
    assert images_per_class_text([0, 1, 1, 2], ["a", "b", "c"]) == "1 (a and 1 more) to 2 (b)"
    assert images_per_class_text([0, 1], ["a", "b"]) == "1 each"
    assert images_per_class_text([0], ["a", "b"]) == "0 (b) to 1 (a)"
    assert images_per_class_text([], ["a", "b"]) == "0 each"
    assert (
        images_per_class_text([0] * 10 + [1] + [2] * 5, ["missile", "missile", "cat"])
        == "1 (missile (1)) to 10 (missile (0))"
    )


def test_prepared_data_sets_are_fetched_to_their_home(tmp_path, monkeypatch, capsys):
    asked = []
    monkeypatch.setattr(
        "clipadapt.data.mirror.fetch", lambda *given: asked.append(given) or tmp_path / "oxford_flowers"
    )
    assert main(["data", "prepare", "flowers102", f"data.home={tmp_path}"]) == 0
    assert asked == [(["oxford_flowers/jpg", "oxford_flowers/split_zhou_OxfordFlowers.json"], tmp_path)]
    said = " ".join(capsys.readouterr().out.split())
    assert f"Unpacked in {tmp_path / 'oxford_flowers'}" in said and "clipadapt data verify flowers102" in said


def verified(capsys, *words):
    """The exit code of `data verify`, the lines below its table, and what it says on stderr."""
    code, said = main(["data", "verify", *words]), capsys.readouterr()
    return code, said.out.partition("┘\n")[2].splitlines() or said.out.splitlines()[-3:], said.err


@pytest.fixture
def home(tmp_path, monkeypatch):
    """ImageNet in miniature, all four classes of whose classnames.txt are there."""
    prepared.imagenet(tmp_path / "home")
    monkeypatch.setenv("CLIPADAPT_DATA", str(tmp_path / "home"))
    return tmp_path / "home"


def test_imagenet_with_all_its_classes(home, capsys):
    code, lines, _ = verified(capsys, "imagenet")
    assert code == 0 and lines[-1] == "All 44 images can be read."


def test_classes_that_imagenet_lacks(home, capsys):
    (home / "imagenet" / "classnames.txt").unlink()
    code, lines, errors = verified(capsys, "imagenet")
    shown = "goldfish"  # is there, so that it isn't listed
    assert code == 2 and "2 problems are listed above" in errors and "note" not in errors
    some = "great white shark (n01484850), tiger shark (n01491361), hammerhead shark (n01494475), "
    for split in ("train", "test"):
        (line,) = [line for line in lines if line.startswith(f"no images in '{split}' of 996 classes: {some}")]
        assert line.endswith(" and 991 more") and shown not in line
    (home / "imagenet" / "images" / "val" / "n01443537").rename(home / "elsewhere")
    prepared.write_classnames(home / "imagenet")
    code, lines, errors = verified(capsys, "imagenet")
    assert code == 2 and "no images in 'test' of goldfish (n01443537)" in lines and "one problem is" in errors


def test_classes_that_a_variant_of_imagenet_lacks(home, capsys):
    for images, folders in (
        ("imagenetv2/imagenetv2-matched-frequency-format-val", ["0", "3"]),
        ("imagenet-adversarial/imagenet-a", ["n01443537", "n03773504"]),
    ):
        prepared.variant(home, images, folders)
        prepared.write_classnames((home / images).parent)
    code, lines, _ = verified(capsys, "imagenet_v2")
    assert code == 2 and "no images in 'test' of goldfish (n01443537), missile (n03773504)" in lines
    assert verified(capsys, "imagenet_a")[0] == 0  # has 200 of ImageNet's classes by design


def test_an_empty_class_folder_hides_no_broken_file(pets, capsys):
    (pets / "train" / "owl").mkdir()
    cut(pets / "train" / "dog" / "1.jpg")
    assert main(["data", "verify", "folder", f"data.root={pets}"]) == 2
    said = capsys.readouterr().err
    assert "2 things need mending" in said and "have no images: owl" in said and "1.jpg' can't be read" in said
