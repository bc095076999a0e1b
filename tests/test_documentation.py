"""What the documentation shows, run as it stands there."""

import re
import shlex
import sys
from pathlib import Path

import pytest
import yaml

from clipadapt import config, studies
from clipadapt.cli import data as data_command
from clipadapt.cli import main
from tests import prepared

DOCS = Path(__file__).parent.parent / "docs"
PAGE, DATA_PAGE = DOCS / "adding_a_method.md", DOCS / "data.md"
FILE = re.compile(r"`((?:mine|my_pets|birds)/\S+)`:\n\n```\w+\n(.*?)```", re.DOTALL)
COMMAND = re.compile(r"^    ((?:clipadapt|python recipes/).*?)(?:  +.*)?$", re.MULTILINE)
TREE = re.compile(r"^[├└]── (\S+)/ +(\w+) +(.*)$", re.MULTILINE)
BLOCK = re.compile(r"`mine/(\S+)`:\n\n```(?:yaml|python)\n(.*?)```", re.DOTALL)
DATA = ["data=drawn", "data.train_per_class=3", "data.validation_per_class=1", "data.test_images=12", "shots=1"]


@pytest.fixture
def mine(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", [*sys.path])
    folder = tmp_path / "mine"
    for name, text in BLOCK.findall(PAGE.read_text()):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    yield folder
    sys.modules.pop("rotation", None)


@pytest.mark.parametrize("method", ["steady_context", "rotation"])
def test_the_methods_of_the_page_run(method, mine, tmp_path):
    words = ["--config-dir", str(mine), f"method={method}", *DATA, "engine.workers=0", "engine.cpu=true"]
    assert main([*words, f"output={tmp_path / 'outputs'}"]) == 0
    assert len([*tmp_path.rglob("result.json")]) == 1


def test_the_worked_example_is_short():
    texts = dict(BLOCK.findall(PAGE.read_text()))
    lines = texts["rotation.py"] + texts["method/rotation.yaml"]
    assert len(lines.splitlines()) < 60


@pytest.fixture
def data(tmp_path, monkeypatch):
    """The files that the page about data shows, below a folder of all data sets, and the images that they name."""
    for name, text in FILE.findall(DATA_PAGE.read_text()):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text.replace("/datasets", str(tmp_path)))
        for image in re.findall(r"[a-z]+/\d\.jpg", text):
            prepared.picture(tmp_path / Path(name).parts[0] / ("images" if "birds" in name else "") / image)
    for split in ("train", "test"):
        for name in ("cat", "dog"):
            prepared.picture(tmp_path / "my_pets" / split / name / "1.jpg")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setenv("CLIPADAPT_DATA", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize("command", COMMAND.findall(DATA_PAGE.read_text()))
def test_the_commands_of_the_page_about_data_are_composed(command, data):
    program, *words = shlex.split(command)
    folder = "mine" if "--config-dir" in words else None
    words = [word for word in words if word not in ("--config-dir", "mine")]
    if program == "python":
        recipe, *words = words
        assert studies.study(Path(recipe).stem, words, folder).runs
    elif words[0] == "compare":
        axes, overrides = config.read_lists(words[1:], folder)
        assert studies.comparison(axes, overrides, folder).runs
    elif words[0] == "data":
        assert words[1] == "list" or data_command.composed(words[2:], folder, words[1])
    else:
        assert config.compose(words, folder)["data"]


@pytest.mark.parametrize(
    ("words", "images"), [(["csv", "data.root=my_pets/labels.csv"], 4), (["pets"], 4), (["birds"], 4)]
)
def test_the_data_of_the_page_are_read(words, images, data, capsys):
    assert main(["--config-dir", "mine", "data", "verify", *words]) == 0
    assert f"All {images} images can be read." in capsys.readouterr().out


def test_data_with_a_name_are_a_recipes_target(data):
    study = studies.study("cross_dataset", ["data=[drawn]", "targets=[pets,birds]"], "mine")
    assert [target.name for target in study.targets] == ["pets", "birds"]


def test_the_tree_of_data_sets_is_that_of_their_settings():
    shown = {name: (folder, rest) for folder, name, rest in TREE.findall(DATA_PAGE.read_text())}
    nodes = {name: yaml.safe_load(path.read_text()) for name, path in config.options("data").items()}
    at_home = {name: node for name, node in nodes.items() if "home" in node}
    assert {*shown} == {*at_home}
    for name, node in at_home.items():
        folder, rest = shown[name]
        paths = [Path(node[key]) for key in ("images", "split") if key in node]
        assert {path.parts[0] for path in paths} == {folder}
        assert all(path.parts[1] in rest for path in paths if len(path.parts) > 1)
