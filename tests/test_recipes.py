"""The recipes: each runs as it stands, shows its table, keeps its page, and reads what is kept when it is run again."""

import csv
import runpy
import sys
from pathlib import Path

import pytest

from tests.test_api import FEW_DRAWINGS

RECIPES = Path(__file__).parent.parent / "recipes"
SMALL = {
    "few_shot": ["methods=[tip_adapter]", "shots=[1,2]", "seed=[1]"],
    "base_to_new": ["methods=[zero_shot]", "data=[digits]", "seed=[1]"],
    "cross_dataset": ["methods=[zero_shot]", "seed=[1]", "targets=[digits]", *FEW_DRAWINGS],
    "domain_shift": ["methods=[tip_adapter]", "seed=[1]", *FEW_DRAWINGS],
    "test_time": ["methods=[zero]", "corruptions=[contrast]", *FEW_DRAWINGS],
    "corruptions": ["methods=[tip_adapter]", "corruptions=[contrast]", "severities=[5]"],
}
RUNS_AND_TEST_SETS = {
    "few_shot": (4 * 5 * 3, {"test"}),
    "base_to_new": (3 * 3 * 3, {"base", "new"}),
    "cross_dataset": (3 * 3, {"test", "glyphs", "pairs", "digits"}),
    "domain_shift": (3 * 3, {"test", "sketch", "textured", "noisy", "pixelated", "inverted"}),
    "test_time": (6, {"test", "sketch", "gaussian_noise/3", "contrast/3"}),
    "corruptions": (3, {"test", "gaussian_noise/1", "jpeg_compression/5"}),
}


@pytest.fixture
def program(monkeypatch, tmp_path):
    """Calls a recipe as the command line does; gives the folder that it fills."""

    def run(name, *words):
        monkeypatch.setattr(sys, "argv", [f"{name}.py", *words, f"output={tmp_path}"])
        with pytest.raises(SystemExit) as ended:
            runpy.run_path(str(RECIPES / f"{name}.py"), run_name="__main__")
        assert not ended.value.code
        (table,) = tmp_path.glob(f"{name}/**/comparison.md")
        return table.parent

    return run


def rows_of(folder):
    with (folder / "results.csv").open(newline="") as file:
        return [*csv.DictReader(file)]


QUICK = ("few_shot", "test_time")
"""Recipes of the default run; a slow test has the others."""


@pytest.mark.parametrize(
    "name", [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in SMALL]
)
def test_a_recipe_runs(name, program):
    folder = program(name, *SMALL[name], "engine.workers=0")
    assert rows_of(folder) and "<table" in (folder / "report.html").read_text()


@pytest.mark.slow
@pytest.mark.parametrize("name", RUNS_AND_TEST_SETS)
def test_a_recipe_as_it_stands(name, program, capsys):
    folder = program(name)
    found, (runs, test_sets) = rows_of(folder), RUNS_AND_TEST_SETS[name]
    assert len({row["run"] for row in found}) == runs
    assert test_sets <= {row["test_set"] for row in found}
    capsys.readouterr()
    assert program(name) == folder and rows_of(folder) == found
    said = capsys.readouterr().out
    assert said.count("finished before") == runs


def test_there_is_a_recipe_for_each_of_these():
    assert {*SMALL} == {*RUNS_AND_TEST_SETS} == {path.stem for path in RECIPES.glob("*.py")} - {"pretrain_tiny"}
