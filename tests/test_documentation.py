"""What the documentation shows, run as it stands there."""

import io
import json
import re
import shlex
import shutil
import sys
from contextlib import redirect_stdout
from pathlib import Path

import pytest
import yaml

import clipadapt
from clipadapt import config, studies
from clipadapt.cli import main
from clipadapt.exports.formats import read_options
from tests import prepared
from tests.pages import DOCS, ROOT, check_command, commands, files

PAGE, DATA_PAGE, DEPLOY = DOCS / "adding_a_method.md", DOCS / "data.md", DOCS / "deploy.md"
PAGES = [ROOT / "README.md", *sorted(DOCS.glob("*.md"))]
TREE = re.compile(r"^[├└]── (\S+)/ +(\w+) +(.*)$", re.MULTILINE)
BLOCK = re.compile(r"`mine/(\S+)`:\n\n```(?:yaml|python)\n(.*?)```", re.DOTALL)
PYTHON = re.compile(r"```python\n(import clipadapt\n.*?)```", re.DOTALL)
LINK = re.compile(r"\]\((?!\w+:|#)([^)#\s]+)")
STUDY = re.compile(r"^(clipadapt (compare|choose)|python recipes/)")
OF_A_RUN = ("clipadapt predict ", "clipadapt show ", "clipadapt mistakes ", "clipadapt list", "clipadapt pack ")
EVALUATE, PUSH, EXPORT = "clipadapt evaluate ", "clipadapt push ", "clipadapt export "
SLOW_PAGES = ("api.md", "unequal_classes.md", "which_method.md")
SHOWN = {command: page.name for page in reversed(PAGES) for command in commands(page)}
"""Each command that the pages show, once, and a page that shows it."""
DATA = ["data=drawn", "data.train_per_class=3", "data.validation_per_class=1", "data.test_images=12", "shots=1"]
CPU = {"cpu": True, "workers": 0}


@pytest.mark.parametrize("page", [*PAGES, *sorted(DOCS.glob("methods/*.md"))], ids=lambda page: page.stem)
def test_the_links_of_the_page_lead_to_files(page):
    assert not [link for link in LINK.findall(page.read_text()) if not (page.parent / link).exists()]


@pytest.fixture
def mine(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", [*sys.path])
    files(PAGE, tmp_path)
    yield tmp_path / "mine"
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
def data(mine, tmp_path, monkeypatch):
    """The files that pages show, below a folder of all data sets, with the images and the backbone that they name."""
    files(DATA_PAGE, tmp_path)
    for table in (tmp_path / "my_pets/labels.csv", tmp_path / "birds/split.json"):
        for image in re.findall(r"[a-z]+/\d\.jpg", table.read_text()):
            prepared.picture(table.parent / ("images" if table.suffix == ".json" else "") / image)
    for folder in ("my_pets", "my_images"):
        for name in ("train/cat", "train/dog", "test/cat", "test/dog"):
            prepared.picture(tmp_path / folder / name / "1.jpg")
    for file in ("mlp_pair.py", "backbone/mlp_pair.yaml"):
        (mine / file).parent.mkdir(exist_ok=True)
        (mine / file).write_text((ROOT / "tests/own_backbone" / file).read_text())
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CLIPADAPT_DATA", str(tmp_path))
    yield tmp_path
    sys.modules.pop("mlp_pair", None)


@pytest.mark.parametrize(
    "command",
    [one for one in SHOWN if not one.startswith((*OF_A_RUN, EVALUATE, PUSH, EXPORT)) and not STUDY.match(one)],
)
def test_the_commands_of_the_pages_are_composed(command, data):
    check_command(command)


@pytest.mark.slow
@pytest.mark.parametrize("command", [one for one in SHOWN if STUDY.match(one) and SHOWN[one] != DATA_PAGE.name])
def test_the_studies_of_the_pages_are_composed(command, data):
    check_command(command)


@pytest.mark.parametrize("command", [one for one in SHOWN if STUDY.match(one) and SHOWN[one] == DATA_PAGE.name])
def test_the_studies_of_the_page_about_data_are_composed(command, data):
    check_command(command)


@pytest.fixture(scope="module")
def deployed(tmp_path_factory):
    """A folder with a finished run on two classes, RUN, its copy below outputs/, and photos that are new to it."""
    folder = tmp_path_factory.mktemp("deployed")
    numbers = {"train": [1], "val": [1, 2, 3, 4], "test": [1]}
    places = [
        f"{split}/{name}/{number}.jpg" for split in numbers for name in ("cat", "dog") for number in numbers[split]
    ]
    images = [f"my_images/{place}" for place in places]
    for image in [*images, "other_images/cat/1.jpg", "other_images/dog/1.jpg", "new_photos/1.jpg", "new_photos/2.jpg"]:
        prepared.picture(folder / image)
    task = clipadapt.load_task("folder", root=str(folder / "my_images"), shots=4)
    clipadapt.finetune(clipadapt.load_backbone("tiny"), task, "zero_shot", **CPU).save(folder / "RUN")
    shutil.copytree(folder / "RUN", folder / "outputs" / "RUN")
    return folder


@pytest.mark.parametrize("command", [command for command in SHOWN if command.startswith(EXPORT)])
def test_exports_of_the_pages_have_known_options(command):
    given = dict(word.split("=", 1) for word in shlex.split(command)[2:])
    assert given.pop("run") and given.pop("out")
    read_options(given.pop("format"), given)


@pytest.mark.parametrize("command", [command for command in SHOWN if command.startswith(OF_A_RUN)])
def test_a_finished_run_is_shown_and_predicts_as_on_the_pages(command, deployed, monkeypatch, capsys):
    monkeypatch.chdir(deployed)
    words = shlex.split(command.partition(" > ")[0])[1:]
    assert main([re.sub("^run=.*", "run=RUN", word) for word in words]) == 0
    form = next((word.removeprefix("format=") for word in words if word.startswith("format=")), "table")
    printed = capsys.readouterr().out
    shown = dict(re.findall(r"```(csv|json)\n(.*?)```", DEPLOY.read_text(), re.DOTALL))
    assert printed
    if form == "csv":
        assert printed.splitlines()[0] == shown["csv"].splitlines()[0]
    elif form == "json":
        ours, theirs = json.loads(printed)[0], json.loads(shown["json"])[0]
        assert [*ours] == [*theirs] and [*ours["probabilities"]] == [*theirs["probabilities"]]


@pytest.mark.parametrize("command", [command for command in SHOWN if command.startswith(PUSH)])
def test_what_is_pushed_on_the_pages_is_a_run(command, deployed, monkeypatch):
    pushed = []
    monkeypatch.chdir(deployed)
    monkeypatch.setattr("clipadapt.Predictor.push_to_hub", lambda found, *name, **options: pushed.append(name) or "")
    assert main([re.sub("^run=.*", "run=RUN", word) for word in shlex.split(command)[1:]]) == 0
    assert pushed == [("me/my_model",)]


@pytest.mark.parametrize("command", [command for command in SHOWN if command.startswith(EVALUATE)])
def test_the_evaluations_of_the_pages_are_called(command, data, monkeypatch):
    called = []
    monkeypatch.setattr("clipadapt.runs.finished.evaluate_finished", lambda run, **others: called.append(run))
    words = shlex.split(command)[1:]
    (data / "RUN").mkdir()
    assert main([re.sub("^run=.*", "run=RUN", word) for word in words]) == 0
    assert called == [Path("RUN")]


@pytest.mark.parametrize(
    "page",
    [DEPLOY, *(pytest.param(DOCS / name, marks=pytest.mark.slow) for name in SLOW_PAGES)],
    ids=lambda page: page.stem,
)
def test_the_python_of_the_pages_runs(page, deployed, monkeypatch):
    monkeypatch.chdir(deployed)
    (source,) = PYTHON.findall(page.read_text())
    with redirect_stdout(io.StringIO()) as printed:
        exec(source, {})
    assert printed.getvalue()


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
