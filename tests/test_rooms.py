"""Which rooms of the package import which others, read from the source of every file.

A room is a folder of clipadapt/ or a module beside the folders. Imports inside functions count like any other: one that
is late for speed is no less an import. Only those under `if TYPE_CHECKING:` are left out, as they never run.
"""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "clipadapt"
FILES = sorted(PACKAGE.rglob("*.py"))

MAY_IMPORT = {
    "errors": "",
    "stopping": "",
    "paths": "errors",
    "files": "errors",
    "plain_yaml": "errors",
    "checksums": "errors",
    "console": "stopping errors",
    "notices": "console",
    "interfaces": "",
    "graphs": "",
    "class_tables": "interfaces errors",
    "postponed": "",
    "notebook": "",
    "threads": "",
    "backbone": "notebook postponed paths errors",
    "adaptations": "graphs backbone class_tables interfaces files errors",
    "objectives": "backbone class_tables interfaces files errors",
    "model": "adaptations backbone",
    "data": "notebook postponed notices files plain_yaml paths errors",
    "tasks": "model data objectives adaptations backbone interfaces errors",
    "features": "tasks model data adaptations backbone interfaces errors",
    "engine": "test_time features tasks model data adaptations objectives backbone interfaces files paths stopping "
    "errors",
    "test_time": "graphs tasks model adaptations objectives backbone interfaces errors",
    "report": "data files paths errors",
    "config": "files plain_yaml paths errors",
    "explain": "tasks model adaptations backbone errors",
    "runs": "explain config report engine test_time features tasks data model objectives adaptations backbone "
    "interfaces notebook console files paths plain_yaml checksums stopping threads errors",
    "studies": "runs config report features tasks model data backbone checksums console files paths threads errors",
    "exports": "runs tasks model data adaptations backbone files paths threads errors",
    "serving": "runs data threads paths errors",
    "demo": "explain runs report data files paths errors",
    "api": "exports tasks studies runs config report features data backbone paths errors",
    "sklearn": "api runs config engine features tasks model data adaptations backbone plain_yaml threads errors",
    "cli": "api exports demo serving studies runs config report data console files paths stopping threads errors",
    "__init__": "api errors",
    "__main__": "cli",
}
"""Room to the rooms that its files may import beside itself. All may read `clipadapt.__version__`."""

BASES = {
    ("model", "adaptations"): "clipadapt.adaptations.base",
    ("tasks", "adaptations"): "clipadapt.adaptations.base",
    ("features", "adaptations"): "clipadapt.adaptations.base",
    ("engine", "adaptations"): "clipadapt.adaptations.base",
    ("engine", "objectives"): "clipadapt.objectives.base",
    ("test_time", "adaptations"): "clipadapt.adaptations.base",
    ("explain", "adaptations"): "clipadapt.adaptations.base",
    ("test_time", "objectives"): "clipadapt.objectives.base",
    ("runs", "adaptations"): ("clipadapt.adaptations.base", "clipadapt.adaptations.composed"),
    ("runs", "objectives"): "clipadapt.objectives.base",
    ("sklearn", "adaptations"): "clipadapt.adaptations.base",
}
"""The modules of a room that another may import: they know no concrete adaptation or objective."""

LIBRARIES = {
    "open_clip": {"backbone/open_clip.py", "exports/open_clip_checkpoint.py"},
    "peft": {"adaptations/peft.py", "exports/peft_adapter.py"},
    "onnx": {"exports"},
    "onnxruntime": {"exports"},
    "transformers": {"exports"},
    "accelerate": {"engine"},
    "hydra": {"config", "cli"},
    "omegaconf": {"config", "cli"},
    "fastapi": {"serving"},
    "starlette": {"serving"},
    "uvicorn": {"serving"},
    "gradio": {"demo"},
}
"""Library to the rooms or files that import it."""

TOWERS = {
    "towers",
    "attention",
    "rows",
    "packing",
    "prompts",
    "tokenizer",
    "text",
    "text_tower",
    "network",
    "checkpoint_files",
}
"""Modules of the backbone that know torch, each other, and errors: no library of backbones, nothing else of ours."""


def walk(tree: ast.AST) -> Iterator[ast.AST]:
    """Yield the nodes of a file but those under `if TYPE_CHECKING:`."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            continue
        yield node
        yield from walk(node)


def list_imports(source: str) -> set[str]:
    """Return the dotted names of all modules that a source imports, and of the names that it takes from them."""
    found = set()
    for node in walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def find_room(path: Path) -> str:
    """Return the room that a file is in."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


IMPORTS = {path: list_imports(path.read_text()) for path in FILES}


def list_own_imports(room: str) -> set[str]:
    """Return what the files of a room import from other rooms of the package."""
    names = {name for path in FILES if find_room(path) == room for name in IMPORTS[path]}
    own = {name for name in names if name.startswith("clipadapt.") and name != "clipadapt.__version__"}
    return {name for name in own if name.split(".")[1] != room}


def test_the_table_has_every_room():
    folders = {path.name for path in PACKAGE.iterdir() if any(path.rglob("*.py"))}
    assert {*MAY_IMPORT} == folders | {path.stem for path in PACKAGE.glob("*.py")}
    assert {room for rooms in MAY_IMPORT.values() for room in rooms.split()} <= {*MAY_IMPORT}


def test_imports_go_one_way():
    below: set[str] = set()
    waiting = {room: {*rooms.split()} for room, rooms in MAY_IMPORT.items()}
    while free := [room for room, rooms in waiting.items() if rooms <= below]:
        below |= {*free}
        waiting = {room: rooms for room, rooms in waiting.items() if room not in below}
    assert not waiting, "rooms that may import each other"


@pytest.mark.parametrize("room", MAY_IMPORT)
def test_rooms_import_what_the_table_says(room):
    imported = {name.split(".")[1] for name in list_own_imports(room)}
    assert imported <= {*MAY_IMPORT[room].split()}


@pytest.mark.parametrize("room, other", BASES)
def test_only_the_base_of_adaptations_and_objectives_is_imported(room, other):
    imported = {name for name in list_own_imports(room) if name.split(".")[1] == other}
    assert imported and all(name.startswith(BASES[room, other]) for name in imported)


@pytest.mark.parametrize("library", LIBRARIES)
def test_libraries_are_imported_by_their_rooms_only(library):
    importers = {path for path, names in IMPORTS.items() if any(name.split(".")[0] == library for name in names)}
    places = {(path.relative_to(PACKAGE).as_posix(), find_room(path)) for path in importers}
    assert places and all({*place} & LIBRARIES[library] for place in places)


def test_towers_import_no_other_module_of_ours():
    backbone = PACKAGE / "backbone"
    assert {path.stem for path in backbone.glob("*.py")} == TOWERS | {"dual_encoder", "open_clip", "__init__"}
    allowed = ("clipadapt.errors.", *(f"clipadapt.backbone.{name}." for name in TOWERS))
    for name in TOWERS:
        own = [found for found in IMPORTS[backbone / f"{name}.py"] if found.startswith("clipadapt")]
        assert all(found.startswith(allowed) for found in own), name


def test_nobody_imports_recipes_tests_or_benchmarks():
    roots = {name.split(".")[0] for names in IMPORTS.values() for name in names}
    assert not roots & {"recipes", "tests", "benchmarks", "conf"}


@pytest.mark.parametrize("module", ["config", "studies", "studies.grid", "studies.protocols", "cli", "cli.data"])
def test_settings_are_checked_without_torch(module):
    code = f"import sys, clipadapt.{module}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


@pytest.mark.parametrize("source", ["from clipadapt import data", "def late():\n    import clipadapt.data.tasks"])
def test_imports_are_read_wherever_they_stand(source):
    (name,) = list_imports(source)
    assert name.startswith("clipadapt.data")
    assert not list_imports(f"if TYPE_CHECKING:\n    {source.splitlines()[-1].strip()}")


def test_the_engine_knows_of_test_time_methods_by_one_interface():
    known = {name for name in list_own_imports("engine") if name.startswith("clipadapt.test_time")}
    assert all(name.startswith("clipadapt.test_time.base") for name in known)
    defined = [path.name for path in FILES if "\nclass TestTimeMethod" in path.read_text()]
    assert defined == ["base.py"]


@pytest.mark.parametrize(
    ("idiom", "place"),
    [
        ('clip.preprocess["size"]', "nowhere"),
        ("any(True for", "adaptations/base.py"),
        ('".webp"', "files.py"),
        ("Classifier(clip, Adaptation(", "tasks/classification.py"),
    ],
)
def test_what_is_asked_often_is_written_once(idiom, place):
    found = {path.relative_to(PACKAGE).as_posix() for path in FILES if idiom in path.read_text()}
    assert found <= {place}


def test_data_tells_the_user_through_notices_only():
    names = {name for path in FILES if find_room(path) == "data" for name in IMPORTS[path]}
    others = ("warnings.", "rich.", "clipadapt.console.")
    assert not [name for name in names if f"{name}.".startswith(others)]
