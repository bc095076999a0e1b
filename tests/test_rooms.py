"""Who may know whom: the imports of every file, read from its source."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
FILES = sorted((ROOT / "clipadapt").rglob("*.py"))


def imports(path: Path) -> set[str]:
    """Dotted names of all that a file imports, wherever in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {node.module or "", *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


def importers(package: str) -> set[str]:
    """Files that import a package or anything below it."""
    return {
        path.relative_to(ROOT / "clipadapt").as_posix()
        for path in FILES
        if any(name == package or name.startswith(f"{package}.") for name in imports(path))
    }


def ours(room: str) -> set[str]:
    """What of ours the files of a room import."""
    paths = [path for path in FILES if path.relative_to(ROOT / "clipadapt").as_posix().startswith(room)]
    assert paths, room
    return {name for path in paths for name in imports(path) if name.split(".")[0] == "clipadapt"}


def test_there_are_files():
    assert len(FILES) > 40


def test_open_clip_is_known_to_one_file():
    assert importers("open_clip") == {"backbone/clip.py"}


def test_hydra_is_known_to_the_configuration_alone():
    assert {path.split("/")[0] for path in importers("hydra") | importers("omegaconf")} == {"config"}


def test_accelerate_is_known_to_the_engine_alone():
    assert {path.split("/")[0] for path in importers("accelerate")} == {"engine"}


def test_peft_is_known_to_one_file_at_most():
    assert importers("peft") <= {"adaptations/lora.py"}


@pytest.mark.parametrize(
    "file", ["towers", "attention", "rows", "packing", "prompts", "tokenizer", "text", "text_tower"]
)
def test_towers_know_nothing_of_ours(file):
    allowed = (
        "clipadapt.errors",
        *(f"clipadapt.backbone.{name}" for name in ("attention", "rows", "packing", "towers", "text_tower")),
    )
    assert all(name.startswith(allowed) for name in ours(f"backbone/{file}.py") - {"clipadapt.backbone"})


@pytest.mark.parametrize(
    "room, strangers",
    [
        (
            "backbone",
            ("adaptations", "objectives", "predictors", "classifier", "data", "engine", "report", "config", "api"),
        ),
        ("adaptations", ("objectives", "predictors", "classifier", "data", "engine", "report", "config", "api")),
        ("objectives", ("adaptations", "predictors", "data", "engine", "report", "config", "api")),
        ("data", ("backbone", "adaptations", "objectives", "predictors", "classifier", "engine", "config", "api")),
        ("engine", ("predictors", "report", "config", "api", "cli")),
        ("predictors", ("engine", "report", "config", "api", "cli")),
        ("report", ("backbone", "adaptations", "objectives", "engine", "config", "api", "cli")),
        ("config", ("backbone", "adaptations", "objectives", "data", "engine", "report", "api", "cli")),
    ],
)
def test_rooms_keep_apart(room, strangers):
    known = {name.split(".")[1] for name in ours(f"{room}/") if "." in name}
    assert not known & set(strangers)


def test_the_engine_knows_no_concrete_adaptation_or_objective():
    known = {name for name in ours("engine/") if name.startswith(("clipadapt.adaptations", "clipadapt.objectives"))}
    assert all(name.startswith(("clipadapt.adaptations.base", "clipadapt.objectives.base")) for name in known)


def test_one_interface_is_what_adapts_at_test_time_to_the_engine():
    known = {name for name in ours("engine/") if name.startswith("clipadapt.test_time")}
    assert all(name.startswith("clipadapt.test_time.base") for name in known)
    defined = [path.name for path in FILES if "\nclass TestTimeMethod" in path.read_text()]
    assert defined == ["base.py"]


@pytest.mark.parametrize(
    ("idiom", "place"),
    [
        ('clip.preprocess["size"]', "nowhere"),
        ("any(True for", "adaptations/base.py"),
        ('".webp"', "files.py"),
        ("Classifier(clip, Adaptation(", "model.py"),
    ],
)
def test_what_is_asked_often_is_written_once(idiom, place):
    found = {path.relative_to(ROOT / "clipadapt").as_posix() for path in FILES if idiom in path.read_text()}
    assert found <= {place}


def test_the_package_knows_neither_recipes_nor_tests():
    assert not importers("recipes") | importers("tests")
