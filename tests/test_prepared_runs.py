"""Runs on data sets in CoOp's layout, some of which are for testing only: what learns from images says it has none."""

import json

import pytest

import clipadapt
from clipadapt.cli import main
from tests import prepared

SETTINGS = ["shots=1", "engine.workers=0", "engine.cpu=true", "task.views=0"]
ADVERSARIAL = ("imagenet-adversarial/imagenet-a", ["n01443537", "n03773504", "n04008634"])


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """ImageNet and ImageNet-A in miniature."""
    home = tmp_path / "home"
    prepared.imagenet(home)
    prepared.variant(home, *ADVERSARIAL)
    monkeypatch.setenv("CLIPADAPT_DATA", str(home))
    return home


def run(output, *words):
    """Run a command line; the run directory it leaves."""
    assert main([*SETTINGS, f"output={output}", *words]) == 0
    (found,) = output.rglob("result.json")
    return found.parent


@pytest.mark.parametrize(
    "method", ["zero_shot", *(pytest.param(name, marks=pytest.mark.slow) for name in ("tpt", "tda"))]
)
def test_a_method_that_learns_nothing_runs_on_a_test_set_alone(tmp_path, method):
    few = ["method.test_time.views=2"] if method != "zero_shot" else []
    directory = run(tmp_path / "runs", "data=imagenet_a", f"method={method}", "+schedule=quick", *few)
    assert directory.parts[-4:-1] == ("imagenet_a", "tiny", method)
    result = json.loads((directory / "result.json").read_text())
    assert result["images"] == 6 and {*result["per_class"]} == {"goldfish", "missile (1)", "missile (2)"}
    assert (directory / "pictures" / "per_class.png").is_file()
    again = clipadapt.evaluate(directory)
    assert again["accuracy"] == result["accuracy"]


@pytest.mark.parametrize(
    "method", ["coop", "upl", *(pytest.param(name, marks=pytest.mark.slow) for name in ("linear_probe", "tip_adapter"))]
)
def test_a_method_that_learns_says_that_there_is_nothing_to_learn_from(tmp_path, method, capsys):
    assert main([*SETTINGS, f"output={tmp_path / 'runs'}", "data=imagenet_a", f"method={method}"]) == 2
    assert (
        "'imagenet_a' has no images to learn from, only some to test on: take method=zero_shot, or learn on other data "
        "and evaluate that run with clipadapt evaluate run=DIR data=imagenet_a"
    ) in " ".join(capsys.readouterr().err.split())
    assert not [*tmp_path.rglob("result.json")]


@pytest.mark.slow
def test_what_was_learned_on_imagenet_is_measured_on_a_variant(tmp_path, capsys):
    directory = run(tmp_path / "runs", "data=imagenet", "engine.epochs=1")
    assert json.loads((directory / "result.json").read_text())["images"] == 8
    assert main(["evaluate", f"run={directory}", "data=imagenet_a"]) == 0
    assert "6" in capsys.readouterr().out
    metrics = clipadapt.evaluate(directory, "imagenet_a")
    assert metrics["images"] == 6 and len(metrics["per_class"]) == 3


def test_a_run_from_another_machine_finds_the_data_sets_here(tmp_path, home, monkeypatch):
    directory = run(tmp_path / "runs", "data=imagenet_a", "method=zero_shot")
    monkeypatch.setenv("CLIPADAPT_DATA", str(home.rename(tmp_path / "moved")))
    assert clipadapt.evaluate(directory)["images"] == 6


def test_probabilities_of_classes_of_one_name_are_told_apart(tmp_path, home, capsys):
    directory = run(tmp_path / "runs", "data=imagenet", "method=zero_shot")
    capsys.readouterr()
    image = home / ADVERSARIAL[0] / "n01443537" / "0.jpg"
    assert main(["predict", f"run={directory}", f"images={image}", "format=json"]) == 0
    (answer,) = json.loads(capsys.readouterr().out)
    assert {*answer["probabilities"]} == {"tench", "goldfish", "missile (2)", "missile (3)"}
