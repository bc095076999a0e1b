"""Finished runs measured on other data and on corrupted images, once."""

import io
import json

import pytest
from PIL import Image
from rich.console import Console

import clipadapt
from clipadapt import api, config, finished
from clipadapt.cli import main
from clipadapt.config import Target
from clipadapt.data.corruptions import corrupted
from clipadapt.finished import FinishedRun
from tests.test_api import FEW_DRAWINGS

QUICK = [*FEW_DRAWINGS, "engine.max_steps=2", "engine.workers=0", "engine.cpu=true", "shots=2"]
QUIET = Console(quiet=True)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run on drawn shapes."""
    output = tmp_path_factory.mktemp("finished")
    assert main(["data=drawn", *QUICK, f"output={output}"]) == 0
    (result,) = output.rglob("result.json")
    return result.parent


def test_other_data(run):
    data = config.compose(["data=glyphs", "data.test_images=40"])["data"]
    found = FinishedRun(run).elsewhere([Target("glyphs", data=data)], QUIET)
    assert found == {"glyphs": api.evaluate_run(run, data, QUIET)["tests"]["test"]}


def test_corrupted_images(run):
    (target,) = config.study("corruptions", ["corruptions=[contrast]", "severities=[5]"]).targets
    done = FinishedRun(run)
    (figures,) = done.elsewhere([target], QUIET).values()
    task = done.task(None, QUIET)
    darker = corrupted(task.tests["test"], "contrast", 5)
    expected = done.measure(finished.replace(task, tests={"darker": darker}), QUIET)["tests"]["darker"]
    assert figures == expected
    assert figures["zero_shot_accuracy"] < json.loads((run / "result.json").read_text())["zero_shot_accuracy"]


def test_measured_once(run, monkeypatch):
    (target,) = config.study("corruptions", ["corruptions=[pixelate]", "severities=[1]"]).targets
    first = FinishedRun(run).elsewhere([target], QUIET)
    monkeypatch.setattr(finished, "learned_classifier", None)
    assert FinishedRun(run).elsewhere([target], QUIET) == first


def test_a_study_has_every_test_set_in_its_table(tmp_path, capsys):
    words = ["methods=[zero_shot]", "data=[drawn]", "seed=[1]", "targets=[digits]", *QUICK[:-1], f"output={tmp_path}"]
    study = config.study("corruptions", [*words, "corruptions=[contrast]", "severities=[1,5]"])
    console = Console(width=200, file=io.StringIO())
    from clipadapt.grid import run as run_study

    (row,) = run_study(study, console)
    assert {"test", "digits", "contrast/1", "contrast/5"} <= {*row["scores"]}
    text = console.file.getvalue()
    assert "contrast" in text and "contrast/5" not in text
    lines = (study.directory / "results.csv").read_text().splitlines()
    assert len(lines) == 1 + len(row["scores"])
    assert sum("contrast/" in line for line in lines) == 2


def test_other_data_without_a_test_set_are_measured_whole(run, tmp_path):
    names = clipadapt.load_task("drawn", shots=1).class_names[:3]
    for name in names:
        (tmp_path / name).mkdir()
        for number in range(3):
            Image.new("RGB", (32, 32), (80 * number, 90, 120)).save(tmp_path / name / f"{number}.png")
    data = config.compose(["data=folder", f"data.root={tmp_path}"])["data"]
    assert api.evaluate_run(run, data, QUIET)["images"] == 9
