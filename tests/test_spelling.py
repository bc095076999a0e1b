"""Paths and names of the command line are taken as they are written, whatever characters the shell passes on."""

import pytest
from PIL import Image

from clipadapt import config
from clipadapt.config.spelling import take_as_written
from clipadapt.data.sources import folder
from clipadapt.errors import UserError


@pytest.mark.parametrize(
    "path",
    ["/x/Müller", "/x/My Photos (2024)", "/x/a=b", "/x/it's mine", "/x/[1]", "/x/a{b}", "/x/ä#b;c", '/x/a"b', "/x/猫"],
)
def test_paths_that_the_grammar_does_not_read(path):
    assert take_as_written(f"data.root={path}") != f"data.root={path}"
    assert config.compose(["data=folder", f"data.root={path}"])["data"]["root"] == path


@pytest.mark.parametrize("name", ["a,b", "${seed}", "[1,2]", "a b", "null"])
def test_paths_that_are_there_are_no_lists_and_no_references(tmp_path, name):
    (tmp_path / name).mkdir()
    assert config.compose(["data=folder", f"data.root={tmp_path}/{name}"])["data"]["root"] == f"{tmp_path}/{name}"


@pytest.mark.parametrize(
    "word",
    [
        "data.root=/x/y",
        "data.root='a b'",
        "shots=1,2",
        "data.root=a,b",
        "data.templates=[a b,c d]",
        "data.root=[1",
        "~data",
    ],
)
def test_what_the_grammar_reads_stays(word):
    assert take_as_written(word) == word


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("data.class_names=[猫,犬]", ["猫", "犬"]),
        ("data.class_names=[it's,b c, d]", ["it's", "b c", "d"]),
        ('data.class_names=["a, b",ü]', ["a, b", "ü"]),
        ("data.templates=[ein Foto von {}.,Größe {}]", ["ein Foto von {}.", "Größe {}"]),
    ],
)
def test_lists_of_names(word, expected):
    found = config.compose(["data=csv", "data.root=a", word])["data"]
    assert found[word.partition("=")[0].removeprefix("data.")] == expected


def test_words_for_class_folders(tmp_path):
    for name in ("SKU-4711", "001.Red_circle", "owl"):
        (tmp_path / name).mkdir()
        Image.new("RGB", (4, 4)).save(tmp_path / name / "0.png")
    word = "data.class_names={SKU-4711: cordless drill, '001.Red_circle': ein Kreis für Kinder}"
    found = config.compose(["data=folder", f"data.root={tmp_path}", word])
    source = config.build_source(found)
    assert source.class_names == ["001.Red_circle", "owl", "SKU-4711"] and source.train.labels == [0, 1, 2]
    assert source.words == {"001.Red_circle": ["ein Kreis für Kinder"], "SKU-4711": ["cordless drill"]}
    with pytest.raises(UserError, match=r"no class folder 'SKU-4712' for data\.class_names: did you mean 'SKU-4711'"):
        folder(str(tmp_path), class_names={"SKU-4712": "drill"})
