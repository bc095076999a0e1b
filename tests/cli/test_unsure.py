"""`clipadapt predict` with reject= and coverage=, and the same in Python."""

import csv
import json
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from PIL import Image

import clipadapt
from clipadapt.cli import main
from clipadapt.cli.predicting import check_options, read_options

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


def answered(run, capsys, *words):
    """The answers of `clipadapt predict` on a grey square and the run's own words, as JSON."""
    assert main(["predict", f"run={run[0]}", f"images={run[1]}", *words, "format=json"]) == 0
    return json.loads(capsys.readouterr().out)[0]


def test_the_most_probable_classes(run, capsys):
    directory, nothing = run
    found = answered(run, capsys, "top=3", "threshold=0.999999")
    probabilities = clipadapt.load(directory).predict_proba(nothing)[0]
    names = clipadapt.load(directory).class_names
    expected = [(names[k], float(probabilities[k])) for k in probabilities.argsort(descending=True)[:3]]
    assert [(one["class"], one["probability"]) for one in found["top"]] == expected
    assert found["class"] is None and found["probability"] == expected[0][1] and "probabilities" not in found


def test_a_threshold_of_ones_own_in_a_file(run, capsys, tmp_path):
    path = tmp_path / "answers.csv"
    words = ["predict", f"run={run[0]}", f"images={run[1]}", "threshold=0.999999", "unknown=other", f"output={path}"]
    assert main([*words, "top=99"]) == 0
    assert f"1 image: {path} has the answers" in capsys.readouterr().out
    (row,) = csv.DictReader(path.read_text().splitlines())
    assert row["class"] == "other" and "class_12" in row and "class_13" not in row and "p(star)" not in row
    assert float(row["probability"]) == float(row["probability_1"]) >= float(row["probability_2"])
    assert main(words) == 2 and "is there already: move it away" in capsys.readouterr().err
    assert [*tmp_path.iterdir()] == [path]


def test_a_threshold_in_python(run):
    predictor = clipadapt.load(run[0])
    best = float(predictor.predict_proba(run[1]).max())
    assert predictor.predict(run[1], threshold=best + 1e-4) == [None]
    assert predictor.predict(run[1], threshold=best - 1e-4) == predictor.predict(run[1]) != [None]
    assert predictor.for_classes(["cat", "dog"]).predict(run[1], threshold=0.999999) == [None]
    with pytest.raises(clipadapt.UserError, match="reject and threshold both say which answers are None"):
        predictor.predict(run[1], reject=0.2, threshold=0.5)
    with pytest.raises(clipadapt.UserError, match=r"^threshold=1\.5 does not fit: it must be a number above 0"):
        predictor.predict(run[1], threshold=1.5)


@pytest.mark.parametrize(
    "words, message",
    [
        (["top=0"], "top=0 does not fit: it must be a whole number (at least 1)"),
        (["threshold=80"], "threshold=80 does not fit: it must be a number above 0 and below 1"),
        (["threshold=0.5", "reject=0.2"], "reject= and threshold= both say which answers are none of the classes"),
        (["unknown=other"], "unknown= names the answers that reject= or threshold= take away"),
        (["output=answers"], "output=answers has no format by its name: end it in .csv or .json"),
        (["output=answers.csv", "format=json"], "is csv by its name, and format=json is another format"),
        (["output=answers.csv", "format=table"], "a table is for the terminal"),
        (["output=nowhere/answers.csv"], "output=nowhere/answers.csv can't be written: there is no folder nowhere"),
        (["output=.", "format=csv"], "output=. is there already"),
        (["thresholds=0.5"], "there is no key thresholds: did you mean 'threshold'?"),
    ],
)
def test_wishes_that_cannot_be_are_refused_before_any_work(capsys, tmp_path, monkeypatch, words, message):
    monkeypatch.chdir(tmp_path)
    assert main(["predict", f"run={tmp_path}", "images=no_such_image.png", *words]) == 2
    assert message in capsys.readouterr().err and not [*tmp_path.iterdir()]


def test_an_unknown_of_the_name_of_a_class(run, capsys):
    name = clipadapt.load(run[0]).class_names[0]
    assert main(["predict", f"run={run[0]}", f"images={run[1]}", "threshold=0.5", f"unknown={name}"]) == 2
    assert f"'{name}' is the name of a class of this run" in capsys.readouterr().err


def test_answers_without_classes_have_no_threshold(run):
    predictor = clipadapt.load(run[0])
    options = read_options({"threshold": "0.5"})
    with pytest.raises(clipadapt.UserError, match=r"^this run's answers are no classes with probabilities, which thre"):
        check_options(options, SimpleNamespace(kind=SimpleNamespace(probabilities=False)), ["threshold"])
    assert check_options(options, predictor, ["threshold"]) is None
