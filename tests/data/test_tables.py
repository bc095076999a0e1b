"""Images listed in CSV and Parquet tables, as spreadsheets and scripts write them."""

import builtins
import os
import pickle

import pytest
from PIL import Image

from clipadapt.data.broken import check
from clipadapt.data.few_shot import make_task
from clipadapt.data.tables import csv
from clipadapt.errors import UserError


def photos(folder, *names):
    folder.mkdir(parents=True, exist_ok=True)
    for number, name in enumerate(names):
        Image.new("RGB", (4, 4), (10 * number, 0, 0)).save(folder / name)


@pytest.fixture
def table(tmp_path):
    """A function that writes a table beside eight images, and gives its path."""
    photos(tmp_path / "photos", *(f"{number}.png" for number in range(8)))

    def write(text, name="labels.csv", **options):
        (tmp_path / name).write_text(text, **options)
        return str(tmp_path / name)

    return write


ROWS = [f"photos/{number}.png,{'dog' if number % 2 else 'cat'}" for number in range(8)]
POOL = "\n".join(["path,label", *ROWS])
SPLITS = ["train", "Train", "train", "train", "val", "validation", "test", "TEST"]
SPLIT = "\n".join(["path,label,split", *(f"{row},{split}" for row, split in zip(ROWS, SPLITS, strict=True))])


def test_a_table_of_paths_and_labels(table):
    source = csv(table(POOL))
    assert (source.name, source.class_names, source.templates) == ("labels", ["cat", "dog"], ["a photo of a {}."])
    assert source.train.labels == [0, 1] * 4 and source.validation is None and source.tests == {}
    assert source.train.images[3].getpixel((0, 0)) == (30, 0, 0)
    task = make_task(source, shots=1, seed=1)
    check(task)
    assert len(task.tests["test"]) == 4


def test_a_column_of_splits(table):
    source = csv(table(SPLIT))
    assert (source.train.labels, source.validation.labels) == ([0, 1, 0, 1], [0, 1])
    assert source.tests["test"].labels == [0, 1]
    assert source.tests["test"].images[1].getpixel((0, 0)) == (70, 0, 0)


def test_another_column_of_splits(table):
    source = csv(table(SPLIT.replace("split", "fold")), split="fold")
    assert len(source.tests["test"]) == 2
    assert csv(table(SPLIT.replace("split", "fold"))).tests == {}


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_as_spreadsheets_write_it(table, delimiter, encoding):
    text = 'path,label\r\nphotos/0.png,"cat"\r\n\r\n photos/1.png , \u00e9l\u00e9phant \r\n'
    source = csv(table(text.replace(",", delimiter), encoding=encoding))
    assert source.class_names == ["cat", "\u00e9l\u00e9phant"] and len(source.train) == 2
    assert source.train.images[1].size == (4, 4)


def test_names_of_columns_folder_and_classes_are_free(table, tmp_path):
    text = "number,file,species\n1,0.png,1\n2,1.png,0\n3,2.png,1"
    source = csv(
        table(text),
        images=str(tmp_path / "photos"),
        path="file",
        label="species",
        class_names=["cat", "dog"],
        templates=["{}!"],
    )
    assert source.train.labels == [1, 0, 1] and source.templates == ["{}!"]
    assert source.train.images[0].size == (4, 4)


def test_absolute_paths(table, tmp_path):
    source = csv(table(f"path,label\n{tmp_path}/photos/0.png,a\n{tmp_path}/photos/1.png,b"), images="elsewhere")
    assert source.train.images[1].size == (4, 4)


def test_images_travel_between_processes_and_stand_for_their_files(table, tmp_path):
    images = pickle.loads(pickle.dumps(csv(table(POOL)).train.images))
    assert images.content(images.items[2]) == (tmp_path / "photos" / "2.png").read_bytes()


def test_a_file_that_is_missing_is_named_when_the_task_is_checked(table):
    source = csv(table(POOL + "\nphotos/gone.png,dog\nphotos/lost.png,cat"))
    with pytest.raises(UserError, match=r"(?s)no image file '.*no image file '") as caught:
        check(make_task(source, shots=1, seed=1))
    assert "gone.png" in str(caught.value) and "lost.png" in str(caught.value)


def test_columns_of_one_name_that_are_not_read(table):
    text = "path,note,note,label,species\nphotos/0.png,n,m,x,cat\nphotos/1.png,n,m,x,dog"
    assert csv(table(text), label="species").class_names == ["cat", "dog"]
    text = "id,id,path,label\n7,8,photos/0.png,cat\n9,9,photos/1.png,dog"
    assert csv(table(text)).train.images[1].size == (4, 4)


@pytest.mark.parametrize("name", ["path", "label", "split"])
def test_columns_of_one_name_that_are_read(table, name):
    text = f"path,label,split, {name} \nphotos/0.png,cat,train,x\nphotos/1.png,dog,train,y"
    with pytest.raises(UserError, match=rf"labels\.csv' has 2 columns called '{name}': name them apart"):
        csv(table(text))


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        (POOL, {"label": "lable"}, r"has no column 'lable': did you mean 'label'\? \(known: label, path\)"),
        ("file,label\n", {}, r"has no column 'path': known are file, label; say which it is with data\.path=…$"),
        (POOL, {"split": "fold"}, "has no column 'fold'"),
        (
            POOL,
            {"label": "lable", "split": "fold"},
            r"no column 'lable': did .*, and none called 'fold': .* with data\.label=… and data\.split=…$",
        ),
        ("path,label\n", {}, "has no rows below its header"),
        ("path,label\na.png,cat\nb.png,\nc.png\nd.png,dog", {}, r"labels\.csv' has no label in row 3, 4\n"),
        ("path,label\n,cat\nb.png,dog", {}, "has no path in row 2"),
        ("path,label\na.png,\n,dog\nc.png,\n", {}, r"has no path in row 3, and no label in row 2, 4\n"),
        (SPLIT + "\nphotos/1.png,cat,", {}, "has no split in row 10"),
        (SPLIT.replace(",val\n", ",tset\n"), {}, r"has the split 'tset' in row 6: did you mean 'test'"),
        ("path,label,split\na.png,cat,val\nb.png,dog,val", {}, "has no rows of the split train, nor of the split test"),
        ("", {}, "is empty: its first line must name its columns"),
        ("\n , \n\n", {}, "is empty: its first line must name its columns"),
        ("path,label\na.png,0\nb.png,1", {}, r"labels\.csv' are numbers"),
        (SPLIT + "\nphotos/9.png,owl,test", {}, "has labels that its training images lack: owl"),
        (SPLIT + "\nphotos/1.png,dog,test", {}, r"the image '.*/1\.png' of '.*' is taken for train and for test: give"),
        (POOL, {"class_names": ["cat", "owl"]}, r"has labels that data\.class_names lacks: dog"),
    ],
)
def test_tables_that_are_no_task(table, text, options, message):
    with pytest.raises(UserError, match=message):
        csv(table(text), **options)


def test_many_empty_cells_are_counted(table):
    with pytest.raises(UserError, match="row 2, 3, 4, 5, 6 and 3 more"):
        csv(table("path,label\n" + "a.png,\n" * 8))


def test_a_table_that_is_missing_or_unreadable(table, tmp_path):
    with pytest.raises(UserError, match=r"there is no table '.*nothing\.csv'"):
        csv(str(tmp_path / "nothing.csv"))
    with pytest.raises(UserError, match=r"labels\.csv' isn't in UTF-8 \(.*\): save it as CSV in UTF-8$"):
        csv(table("path,label\na.png,\u00e9", encoding="latin-1"))
    for folder in (tmp_path, tmp_path / "a.parquet"):
        folder.mkdir(exist_ok=True)
        with pytest.raises(UserError, match=rf"'{folder}' is a folder: name a table, or .* data=folder$"):
            csv(str(folder))


def test_parquet(table, tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    columns = {
        "path": [row.split(",")[0] for row in ROWS],
        "label": [number % 2 for number in range(8)],
        "split": SPLITS,
        "thumbnail": [b"\xff\xfe"] * 8,
    }
    parquet.write_table(pyarrow.table(columns), tmp_path / "labels.parquet")
    source, listed = csv(str(tmp_path / "labels.parquet"), class_names=["cat", "dog"]), csv(table(SPLIT))
    assert source == listed
    with pytest.raises(UserError, match=r"has no column 'lable': did you mean 'label'\? .*thumbnail"):
        csv(str(tmp_path / "labels.parquet"), label="lable")
    parquet.write_table(pyarrow.table({"path": ["a", "b"], "label": ["x", None]}), tmp_path / "empty.parquet")
    with pytest.raises(UserError, match="has no label in row 3"):
        csv(str(tmp_path / "empty.parquet"))
    twice = pyarrow.Table.from_arrays([["a", "b"], ["x", "y"], ["x", "y"]], ["path", "label", "label"])
    parquet.write_table(twice, tmp_path / "twice.parquet")
    with pytest.raises(UserError, match=r"twice\.parquet' has 2 columns called 'label': name them apart"):
        csv(str(tmp_path / "twice.parquet"))
    notes = pyarrow.Table.from_arrays([["n"], ["m"], ["a"], ["x"]], ["note", "note", "path", "label"])
    parquet.write_table(notes, tmp_path / "notes.parquet")
    assert csv(str(tmp_path / "notes.parquet")).class_names == ["x"]  # of which one column has the labels
    with pytest.raises(UserError, match=r"broken\.parquet' can't be read"):
        csv(table("no table", "broken.parquet"))


def test_parquet_without_its_library(table, monkeypatch):
    real = builtins.__import__

    def without(name, *rest):
        if name.startswith("pyarrow"):
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(UserError, match=r"needs pyarrow: pip install 'clipadapt\[parquet\]'"):
        csv(table("", "labels.parquet"))


def test_a_table_of_test_images_only(table):
    found = csv(table("path,label,split\na.png,cat,test\nb.png,dog,test"))
    assert found.class_names == ["cat", "dog"] and not len(found.train) and found.tests["test"].labels == [0, 1]


def test_a_table_that_is_no_file(tmp_path):
    os.mkfifo(tmp_path / "t.csv")
    with pytest.raises(UserError, match=r"t\.csv' can't be read: it is a pipe, and no file"):
        csv(str(tmp_path / "t.csv"))


def test_columns_in_any_case(table, tmp_path):
    lower = csv(table(SPLIT))
    assert csv(table(SPLIT.replace("path,label,split", "PATH,Label, Split "))) == lower
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    columns = {"Path": [row.split(",")[0] for row in ROWS], "LABEL": ["cat", "dog"] * 4, "Split": SPLITS}
    parquet.write_table(pyarrow.table(columns), tmp_path / "labels.parquet")
    assert csv(str(tmp_path / "labels.parquet")) == lower


def test_a_column_of_splits_that_is_not_read_is_told(table):
    with pytest.warns(UserWarning, match=r"the column 'fold' of '.*' holds splits, and isn't read: data\.split=fold"):
        csv(table(SPLIT.replace("split", "fold")))


def test_numbers_as_tables_with_empty_cells_write_them(table):
    text = POOL.replace("cat", "0.0").replace("dog", "1.0")
    assert csv(table(text), class_names=["cat", "dog"]).train.labels == [0, 1] * 4
    with pytest.raises(UserError, match=r"labels\.csv' are numbers"):
        csv(table(text))
    assert csv(table(text), class_names=["0.0", "1.0"]).train.labels == [0, 1] * 4


def test_a_file_listed_twice_is_told_with_its_rows(table):
    with pytest.raises(UserError, match=r"lists twice 0\.png \(row 2, 10\), 2\.png \(row 4, 11\)$"):
        csv(table("\n".join([POOL, "photos/../photos/0.png,cat", ROWS[2]])))
    with pytest.raises(UserError, match=r"gives several labels to 0\.png \(cat in row 2, dog in row 10\)$"):
        csv(table(POOL + "\nphotos/0.png,dog"))


@pytest.mark.parametrize(
    "labels",
    [
        ("cat;dog", "dog;owl"),
        ('"cat,dog"', '"dog,owl"'),
        ("['cat' 'x' | 'dog']", "dog|x"),
        ("['cat']", "['dog']"),
        ("cat/dog", "cat", "dog"),
        ("cat+dog", "cat", "dog"),
        ("0 1", "0", "1"),
    ],
)
def test_several_classes_in_one_label(table, labels):
    rows = [f"photos/{number}.png,{labels[number % len(labels)]}" for number in range(8)]
    with pytest.raises(
        UserError, match=r"several classes in one label, such as .* \(multi-label\) aren't a kind of task"
    ):
        csv(table("\n".join(["path,label", *rows])))


def test_names_with_commas_are_names(table):
    names = ['"tench, Tinca tinca"', '"hook, claw"']
    text = "\n".join(["path,label", *(f"photos/{number}.png,{names[number % 2]}" for number in range(8))])
    assert csv(table(text)).class_names == ["hook, claw", "tench, Tinca tinca"]


@pytest.mark.parametrize("label", ["wine red", "red/green", "C++"])
def test_words_beside_one_of_them_are_names(table, label):
    text = "\n".join(["path,label", *(f"photos/{number}.png,{['red', label][number % 2]}" for number in range(8))])
    assert {*csv(table(text)).class_names} == {"red", label}


def test_paths_of_windows(table, tmp_path):
    assert csv(table(POOL.replace("/", "\\"))) == csv(table(POOL))
    (tmp_path / "photos" / "0.png").rename(tmp_path / "photos\\0.png")
    assert csv(table(POOL.replace("/", "\\"))).train.images.items[0].endswith("photos\\0.png")


def test_one_name_in_two_forms_of_unicode(table, tmp_path):
    composed, decomposed = "caf\u00e9", "cafe\u0301"
    photos(tmp_path / decomposed, "0.png", "1.png")
    text = f"path,label\n{composed}/0.png,{composed}\n{composed}/1.png,{decomposed}\nphotos/0.png,tea"
    source = csv(table(text, encoding="utf-8"), class_names=["tea", decomposed])
    assert source.class_names == ["tea", composed] and source.train.labels == [1, 1, 0]
    assert source.train.images[1].size == (4, 4)


def test_all_faults_of_a_table_are_told_at_once(table):
    rows = [*ROWS, "photos/1.png,", "photos/gone.png,cat", "photos/2.png,dog"]
    splits = [*SPLITS, "trian", "train", "train"]
    text = "\n".join(["path,label,split", *(f"{row},{split}" for row, split in zip(rows, splits, strict=True))])
    with pytest.raises(UserError) as caught:
        csv(table(text))
    for part in ("no label in row 10", "'trian' in row 10", "gone.png (row 11)", "labels to 2.png (cat in row 4, dog"):
        assert part in str(caught.value)
