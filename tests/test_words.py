"""Coined words that the field's own have replaced stay away: from every name that the package defines, and from conf/.

Names are read from the syntax tree, not from text: classes, functions, parameters, variables, attributes that are set,
and imports. Ordinary words that were once a coined name (`measure`, `known`, `held`) aren't in the lists.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parent.parent
PACKAGE, CONF = ROOT / "clipadapt", ROOT / "conf"

WORDS = {
    "features": "Keeping Place Feed Fed Kept Mapped Fresh Flow Watch unwatched advance Shelf Views Viewing onlookers "
    "Taught Onlooker eyes Named",
    "fit": "BentGradients most_rows beside_the_optimiser reported accumulate recompute MENDABLE",
    "tasks": "KnownTask TaskLike Learned Samples spaced handwritten told_apart stand_in tested_whole images_now mix",
    "adaptations": "solve solved left_to_fit own_prefix per_image Padding Prototypes BlendedProbe CoupledTokens",
    "test time": "AtTestTime Seen speak admits surest tensors_for",
    "runs": "carry_out looked_at _anew elsewhere GIVEN remark ingredients as_seen",
    "studies": "Outcome Cell Gains said_of Shared AXES FURTHER Progress",
    "settings": "located misfits spelled OF_THE_TASK CALLED WITHOUT_EFFECT IN_THE_NAME",
    "console and data": "say complain guarded Pictures Doubtful alike",
}
"""Area of the package to the names that were replaced there; none may come back anywhere."""

LEGITIMATE = {
    "handwritten": "objectives/consistency.py",  # features of the hand-written prompts, as the papers call them
    "mix": "adaptations/features.py adaptations/heads.py",  # mixes adapted features with frozen ones, by a ratio
    "Progress": "notices.py report/progress.py",  # rich's class
}
"""Word to the files that may have it, each with the reason."""

STEMS = {"feeds", "keeping", "teaching", "known", "further", "words", "low_rank", "predictors", "classifier", "measure"}
"""Names that modules and folders had."""

KEYS = {"accumulate", "recompute", "reported", "surest", "own_prefix", "per_image"}
"""Keys that settings had."""

SOURCES = {path.relative_to(PACKAGE).as_posix(): path.read_text() for path in sorted(PACKAGE.rglob("*.py"))}
YAMLS = sorted(CONF.rglob("*.yaml"))


def defined_names(source: str) -> set[str]:
    """Return every name that a source defines or imports."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            found.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            found.add(node.id)
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            found.add(node.attr)
        elif isinstance(node, ast.arg):
            found.add(node.arg)
        elif isinstance(node, ast.alias):
            found |= {*node.name.split("."), node.asname or ""}
    return found


NAMES = {file: defined_names(source) for file, source in SOURCES.items()}


def keys(node: object) -> Iterator[str]:
    """Yield every key of a YAML's tables."""
    if isinstance(node, list):
        for item in node:
            yield from keys(item)
    if isinstance(node, dict):
        for key, value in node.items():
            yield str(key)
            yield from keys(value)


@pytest.mark.parametrize("area", WORDS)
def test_no_replaced_word_names_anything(area):
    words = {*WORDS[area].split()}
    left = {(word, file) for file, names in NAMES.items() for word in words & names}
    assert not {(word, file) for word, file in left if file not in LEGITIMATE.get(word, "").split()}


def test_checks_are_called_checks():
    """What raises unless all is well is a `check_…`; it was a `refuse_…`."""
    assert not {(name, file) for file, names in NAMES.items() for name in names if name.startswith("refuse_")}


def test_functions_are_called_by_a_verb_or_a_noun_alone():
    """A name that ends in `_of` leaves out what it does: `kind_of` became `task_kind`."""
    assert not {(name, file) for file, names in NAMES.items() for name in names if name.endswith("_of")}


@pytest.mark.parametrize("word", LEGITIMATE)
def test_every_exception_is_still_needed(word):
    assert word in {name for names in WORDS.values() for name in names.split()}
    assert all(word in NAMES[file] for file in LEGITIMATE[word].split())


def test_modules_and_settings_have_their_new_names():
    stems = {part for file in SOURCES for part in Path(file).with_suffix("").parts}
    assert not stems & STEMS
    assert not {(key, path.name) for path in YAMLS for key in keys(yaml.safe_load(path.read_text())) if key in KEYS}


@pytest.mark.parametrize(
    "source",
    [
        "class Shelf: pass",
        "def f(Shelf): pass",
        "def f(*, Shelf=1): pass",
        "self.Shelf = 1",
        "from m import Shelf",
        "import Shelf.a as b",
        "for Shelf in x: pass",
        "Shelf: int = 1",
        "with a as Shelf: pass",
    ],
)
def test_names_are_read_wherever_they_are_defined(source):
    assert "Shelf" in defined_names(source)
    assert "Shelf" not in defined_names("f(Shelf).Shelf == 'Shelf'  # Shelf")
