"""Runs on data that leave nothing to test on: what learns nothing is tested on all, the rest learns and predicts."""

import pytest
from PIL import Image

import clipadapt
from clipadapt.cli import main

COLOURS = ("red", "blue")


@pytest.fixture
def folder(tmp_path):
    for colour in COLOURS:
        (tmp_path / "images" / colour).mkdir(parents=True)
        for index in range(3):
            Image.new("RGB", (40, 40 + index), colour).save(tmp_path / "images" / colour / f"{index}.png")
    return tmp_path / "images"


def run(folder, tmp_path, *words):
    task = ["data=folder", f"data.root={folder}", "task.views=0", "engine.workers=0", "engine.cpu=true"]
    assert main([*task, *words, "engine.cache=null", f"output={tmp_path / 'runs'}"]) == 0
    (found,) = (tmp_path / "runs").rglob("result.json")
    return found.parent


@pytest.mark.parametrize("shots", ["16", "all"])
def test_zero_shot_is_tested_on_every_image(folder, tmp_path, shots):
    directory = run(folder, tmp_path, "method=zero_shot", f"shots={shots}")
    metrics = clipadapt.evaluate(directory)
    assert metrics["images"] == 6
    lines = (directory / "predictions.csv").read_text().splitlines()
    assert [line.split(",")[2] for line in lines[1:]] == ["blue"] * 3 + ["red"] * 3


def test_what_learns_has_no_figures_and_predicts(folder, tmp_path, capsys):
    directory = run(folder, tmp_path, "method=linear_probe", "shots=all")
    assert "There is no test set: accuracy can't be measured." in capsys.readouterr().out
    assert clipadapt.load(directory).predict(sorted(folder.rglob("*.png"))) == ["blue"] * 3 + ["red"] * 3
    with pytest.raises(clipadapt.UserError, match="has no test set to measure on"):
        clipadapt.evaluate(directory)


def test_a_cache_of_support_features_is_learned_from_them(folder, tmp_path):
    directory = run(folder, tmp_path, "method=tip_adapter", "shots=all", "method.adaptation.search=false")
    with pytest.raises(clipadapt.UserError, match="has no test set to measure on"):
        clipadapt.evaluate(directory)


def test_in_python(folder):
    backbone, task = clipadapt.load_backbone(), clipadapt.load_task("folder", root=folder, shots=8)
    assert not task.tests
    found = clipadapt.finetune(backbone, task, "zero_shot", cpu=True, workers=0, cache=None)
    assert found.metrics["images"] == 6


def test_a_figure_that_was_not_measured_says_why(folder):
    backbone, task = clipadapt.load_backbone(), clipadapt.load_task("folder", root=folder, shots="all")
    found = clipadapt.finetune(backbone, task, "linear_probe", cpu=True, workers=0, cache=None)
    with pytest.raises(clipadapt.UserError, match=r"^there is no 'accuracy': the run had no test images") as caught:
        found.metrics["accuracy"]
    assert isinstance(caught.value, KeyError)
    assert "accuracy" not in found.metrics and found.metrics.get("accuracy") is None
    assert (
        repr(found) == "<Result of linear_probe on images with tiny: no test images>" and "none" in found._repr_html_()
    )
    assert found.predict(sorted(folder.rglob("*.png"))) == ["blue"] * 3 + ["red"] * 3
