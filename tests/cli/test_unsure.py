"""`clipadapt predict` with reject= and coverage=, and the same in Python."""

import json
from dataclasses import replace

import pytest
import torch
from PIL import Image

import clipadapt
from clipadapt.cli import main

WORDS = ["data=drawn", "data.train_per_class=6", "data.validation_per_class=2", "data.test_images=24", "shots=2"]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    place = tmp_path_factory.mktemp("unsure")
    rest = ["method=zero_shot", "engine.workers=0", "engine.cpu=true", "engine.cache=null", f"output={place}"]
    assert main([*WORDS, *rest]) == 0
    (result,) = place.rglob("result.json")
    Image.new("RGB", (32, 32), "grey").save(place / "nothing.png")
    return result.parent, place / "nothing.png"


def test_a_grey_square_is_none_of_the_shapes(run, capsys):
    directory, nothing = run
    words = ["predict", f"run={directory}", f"images={nothing}", "reject=0.2", "coverage=0.9", "format=json"]
    assert main(words) == 0
    (found,) = json.loads(capsys.readouterr().out)
    assert found["class"] is None and isinstance(found["set"], list) and len(found["probabilities"]) == 12
    assert main([*words[:-1], "format=csv"]) == 0
    header, row = capsys.readouterr().out.splitlines()
    assert header.endswith("),set") and row.split(",")[1] == "none of these"
    assert main(words[:-1]) == 0
    said = capsys.readouterr().out
    assert "none of" in said and "one of" in said


def test_in_python(run):
    directory, nothing = run
    predictor = clipadapt.load(directory)
    assert predictor.predict(nothing, reject=0.2) == [None] and predictor.predict(nothing) != [None]
    assert [type(some) for some in predictor.predict_set(nothing, coverage=0.8)] == [list]
    similarities = predictor.similarity(nothing)
    assert similarities.shape == (1, 12) and similarities.abs().max() <= 1
    scale = predictor.model.clip.scale
    assert (similarities * scale).softmax(dim=-1).allclose(predictor.predict_proba(nothing), atol=1e-5)
    logits = predictor.decision(nothing)
    torch.testing.assert_close(logits, similarities * scale)
    torch.testing.assert_close(logits.softmax(dim=-1), predictor.predict_proba(nothing))
    with pytest.raises(clipadapt.UserError, match="these are other classes than the run's"):
        predictor.for_classes(["cat", "dog"]).predict(nothing, reject=0.2)


def test_a_class_without_validation_images_is_told(run):
    predictor = clipadapt.load(run[0])
    assert predictor.known.unseen == []
    predictor.known = replace(predictor.known, unseen=["star", "heart"])
    with pytest.warns(UserWarning, match="no validation image is of star, heart, for which nothing is promised"):
        predictor.predict(run[1], reject=0.2)


@pytest.mark.parametrize("share", ["a", True, 0, 1])
def test_shares_that_are_no_numbers(run, share):
    predictor = clipadapt.load(run[0])
    with pytest.raises(clipadapt.UserError, match="must be a number above 0 and below 1"):
        predictor.predict_set(run[1], coverage=share)
    with pytest.raises(clipadapt.UserError, match="must be a number above 0 and below 1"):
        predictor.predict(run[1], reject=share)


def test_it_is_checked_on_the_test_images(run):
    metrics = json.loads((run[0] / "result.json").read_text())
    assert len(metrics["known_scores"]["truth"]) == 24 and 0 <= metrics["covered"] <= 1


def test_probabilities_are_scaled_by_the_temperature(run, capsys):
    directory, nothing = run
    metrics = json.loads((directory / "result.json").read_text())
    temperature = metrics["known_scores"]["temperature"]
    assert {*metrics["calibrated"]} == {"negative_log_likelihood", "brier_score", "calibration_error"}
    predictor = clipadapt.load(directory)
    plain, scaled = (predictor.predict_proba(nothing, calibrate=one) for one in (False, True))
    torch.testing.assert_close(scaled, (plain.log() / temperature).softmax(dim=-1))
    assert main(["predict", f"run={directory}", f"images={nothing}", "calibrate=true", "format=json"]) == 0
    (found,) = json.loads(capsys.readouterr().out)
    assert [*found["probabilities"].values()] == pytest.approx(scaled[0].tolist())
    assert main(["show", f"run={directory}"]) == 0
    shown = capsys.readouterr().out
    assert "after temperature scaling" in shown and f"(T = {temperature:.3g})" in shown


def test_a_run_without_a_temperature(run):
    predictor = clipadapt.load(run[0])
    predictor.known = replace(predictor.known, temperature=None)
    with pytest.raises(clipadapt.UserError, match=r"^calibrate=true needs a temperature, and the run has none"):
        predictor.predict_proba(run[1], calibrate=True)


@pytest.mark.parametrize(
    "word, message",
    [
        ("reject=0.01", "reject=0.01 needs at least 99 validation images, and this run has 24"),
        ("coverage=0.99", "coverage=0.99 needs at least 99 validation images"),
        ("reject=most", "reject=most does not fit: it must be a number above 0 and below 1"),
        ("coverage=1", "coverage=1 does not fit"),
        ("calibrate=often", "calibrate=often does not fit: it must be true or false"),
    ],
)
def test_shares_that_cannot_be(run, capsys, word, message):
    assert main(["predict", f"run={run[0]}", f"images={run[1]}", word]) == 2
    assert message in capsys.readouterr().err
