"""Paths, names and words that no system call or terminal takes: one sentence, whoever they are given to."""

import os
import subprocess
import sys

import pytest
from PIL import Image
from rich.console import Console

import clipadapt
from clipadapt import config
from clipadapt.cli import main
from clipadapt.config.directory import file_name
from clipadapt.data.sources import folder
from clipadapt.errors import UserError
from clipadapt.paths import checked_path, irregular, shorten, why_unusable

LONG, DEEP, NUL, NOBODY = "x" * 10_000, "/".join(["y" * 200] * 60), "a\0b", "~nobody-of-this-name/x"
UNUSABLE = {"long": LONG, "deep": DEEP, "nul": NUL, "nobody": NOBODY}
SAID = {
    "long": "a name in it has 10,000 bytes",
    "deep": "it has 12,059 bytes",
    "nul": r"\0",
    "nobody": "there is no user",
}
HYDRAS = ("data.", "output", "backbone.", "engine.")
"""Words that Hydra's grammar reads."""
ROUTES = {
    "output": ["data=digits", "output={}"],
    "folder": ["data=folder", "data.root={}"],
    "table": ["data=csv", "data.root={}"],
    "shards": ["data=webdataset", "data.root={}"],
    "home": ["data=dtd", "data.home={}"],
    "hub": ["data=huggingface", "data.name={}"],
    "fetched": ["data=torchvision", "data.name=DTD", "data.cache_dir={}"],
    "weights": ["backbone.pretrained={}"],
    "cache": ["engine.cache={}"],
    "own folder": ["--config-dir", "{}"],
    "methods": ["methods", "--config-dir", "{}"],
    "list": ["data", "list", "--config-dir", "{}"],
    "verify": ["data", "verify", "folder", "data.root={}"],
    "prepare": ["data", "prepare", "dtd", "data.home={}"],
    "run": ["evaluate", "run={}"],
    "predicting run": ["predict", "run={}", "images=."],
    "other data": ["evaluate", "run=.", "data=folder", "data.root={}"],
    "images": ["predict", "run=.", "images={}"],
    "compare": ["compare", "methods=zero_shot", "output={}"],
}


@pytest.mark.parametrize("kind", UNUSABLE)
@pytest.mark.parametrize("route", [*ROUTES][::3])
def test_a_path_that_none_can_be_is_told(route, kind, capsys):
    check(route, kind, capsys)


@pytest.mark.fuzz
@pytest.mark.parametrize("kind", UNUSABLE)
@pytest.mark.parametrize("route", ROUTES)
def test_a_path_that_none_can_be_is_told_everywhere(route, kind, capsys):
    check(route, kind, capsys)


def check(route, kind, capsys):
    path = UNUSABLE[kind]
    quoted = [word.replace("={}", f"='{path}'") if word.startswith(HYDRAS) else word for word in ROUTES[route]]
    assert main([word.replace("{}", path) for word in quoted]) == 2
    said = capsys.readouterr().err
    assert said.startswith("clipadapt: ") and said.count("\n") == 1 and len(said) < 400
    assert SAID[kind] in said and "\0" not in said


@pytest.mark.parametrize("kind", UNUSABLE)
def test_in_python_too(kind):
    for call in (
        lambda path: clipadapt.load(path),
        lambda path: clipadapt.evaluate(path),
        lambda path: clipadapt.load_task("folder", root=path),
        lambda path: clipadapt.load_task("digits", config_dir=path),
        lambda path: clipadapt.load_backbone("tiny", pretrained=path),
    ):
        with pytest.raises(UserError) as told:
            call(UNUSABLE[kind])
        assert SAID[kind] in str(told.value) and len(str(told.value)) < 400


def test_a_value_that_is_no_path():
    for value in (5, None, ["x"]):
        with pytest.raises(UserError, match="must be a path, and it is of the type"):
            clipadapt.load(value)


@pytest.mark.parametrize("path", ["a", "/a/b.png", "~", "~/a", "ä" * 127, "{" + "a," * 500 + "b}", "", ".", "a\nb"])
def test_paths_that_can_be(path):
    assert why_unusable(path) is None
    checked_path(path, "it")


def test_a_name_that_is_long_is_shown_short():
    assert shorten("a" * 80) == "a" * 80
    assert shorten("a" * 81) == "a" * 40 + "… (81 characters)"
    assert shorten("a\0\udcff\x1b[0m") == "a\\x00\\udcff\\x1b[0m"


def test_a_directorys_name_is_cut_where_no_file_could_have_it():
    assert file_name("a" * 255) == "a" * 255
    long = file_name("ä" * 200 + "b")
    assert len(long.encode()) < 255 and long != file_name("ä" * 200 + "c")


def test_what_is_no_file(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to("/dev/zero")
    found = {name: irregular(tmp_path / name) for name in ("pipe", "file", "link", "nowhere", ".")}
    assert found == {"pipe": "a pipe", "file": None, "link": "a device", "nowhere": None, ".": "a folder"}


def images_in(root, names):
    for label, name in enumerate(names):
        place = os.path.join(os.fsencode(root), os.fsencode(name))
        os.makedirs(place)
        for number in range(3):
            Image.new("RGB", (8, 8), (number, 9 * label, 0)).save(os.fsdecode(place) + f"/{number}.png")
    return str(root)


def test_class_folders_whose_names_are_not_utf8(tmp_path):
    root = images_in(tmp_path, [b"caf\xe9", b"tea"])
    with pytest.raises(UserError, match=r"the folder 'caf\\udce9' in .* has a name that isn't UTF-8: rename it"):
        folder(root)
    done = subprocess.run(
        [sys.executable, "-m", "clipadapt", "data", "verify", "folder", f"data.root={root}"], capture_output=True
    )
    assert done.returncode == 2 and b"isn't UTF-8" in done.stderr and b"Traceback" not in done.stderr


def test_paths_that_are_not_utf8_are_told(tmp_path, capsys):
    root = os.fsdecode(os.fsencode(images_in(tmp_path / "x", ["a", "b"])) + b"\xff")
    assert main(["data", "verify", "folder", f"data.root={root}"]) == 2
    assert "isn't UTF-8" in capsys.readouterr().err


MARKUP = ["[x]", "[bold]b", ":smile:", "[link=x]y", "[[]"]


def test_names_that_look_like_markup(tmp_path, capsys):
    root = images_in(tmp_path / "[/data]", MARKUP)
    output = tmp_path / "[/x]"
    words = ["data=folder", f"data.root='{root}'", "shots=1", "method=zero_shot", "engine.workers=0", "engine.cpu=true"]
    for _ in range(2):  # the second time, the finished run is shown
        assert main([*words, f"output='{output}'"]) == 0
        said = capsys.readouterr().out
        assert ":smile:" in said and "[/x]" in said.replace("\n", "")
    (run,) = output.rglob("result.json")
    assert main(["data", "verify", "folder", f"data.root='{root}'"]) == 0
    assert "data]" in capsys.readouterr().out
    clipadapt.evaluate(run.parent, console=Console(quiet=True))
    assert main(["predict", f"run={run.parent}", f"images={root}"]) == 0
    assert "[/data" in capsys.readouterr().out.replace("\n", "")


@pytest.mark.parametrize("text", [NUL, "a \udcff {}."])
def test_texts_that_no_file_of_settings_can_hold(text):
    with pytest.raises(UserError, match=r"data\.templates can't be used: "):
        config.compose((), None, {"data": "digits", "data.templates": [f"{text} {{}}"]})
