import csv
import io
import json
import math

import numpy as np
import pytest
from rich.console import Console

from clipadapt.report import predictions, summary, tables
from clipadapt.report.audit import Suspect, audit_csv
from clipadapt.report.csv_rows import guarded_cell
from clipadapt.report.mistakes import Mistake, Neighbour, mistakes_csv
from clipadapt.report.statistics import mean_interval

RESULT = {
    "figures": {
        "accuracy": {"title": "accuracy", "percent": True, "higher_is_better": True},
        "calibration_error": {"title": "calibration error", "percent": True, "higher_is_better": False},
    },
    "accuracy": 0.9,
    "zero_shot_accuracy": 0.7,
    "calibration_error": 0.03,
    "zero_shot_calibration_error": 0.05,
    "per_class": {"cat": 1.0, "dog": 0.8},
    "zero_shot_per_class": {"cat": 0.5, "dog": 0.9},
    "tests": {
        "test": {"accuracy": 0.9, "zero_shot_accuracy": 0.7},
        "sketch": {"accuracy": 0.6, "zero_shot_accuracy": 0.65},
    },
    "parameters": 2048,
    "share": 0.00026,
    "seconds": 75.0,
    "peak_memory_mb": 512.0,
    "processes": 2,
}


def text_of(table) -> str:
    console = Console(width=120, file=io.StringIO())
    console.print(table)
    return console.file.getvalue()


def test_the_result_shows_what_was_gained_and_what_it_took():
    text = text_of(tables.result_table(RESULT))
    for part in ("70.0 %", "90.0 %", "+20.0", "on sketch", "-5.0", "2,048", "0.026 %", "1 min 15 s", "512 MB"):
        assert part in text


def test_calibration_after_temperature_scaling_is_shown_or_why_it_is_not():
    scaled = {"calibrated": {"calibration_error": 0.012}, "known_scores": {"temperature": 1.2345}}
    assert "1.2 % (T = 1.23)" in text_of(tables.result_table(RESULT | scaled))
    assert "no validation" in text_of(tables.result_table(RESULT))


def test_an_evaluation_has_the_figures_of_a_result_without_costs():
    tests = {name: {**figures, "images": 3} for name, figures in RESULT["tests"].items()}
    text = text_of(tables.evaluation_table(RESULT | {"tests": tests, "covered": 0.875}))
    for part in ("Result on test: 3 images, sketch: 3 images", "on sketch", "calibration error", "3.0 %", "87.5 %"):
        assert part in text
    assert "no validation" not in text and "peak memory" not in text


def test_classes_are_listed_with_their_change():
    text = text_of(tables.per_class_table(RESULT))
    assert "+50.0" in text and "-10.0" in text


def test_of_many_classes_those_that_changed_most_are_listed():
    before = {f"class {i}": 0.5 for i in range(100)}
    after = {name: 0.5 + i / 1000 for i, name in enumerate(before)}
    text = text_of(tables.per_class_table({"per_class": after, "zero_shot_per_class": before}, limit=3))
    assert "class 99" in text and "class 96" not in text


def test_the_plan_names_cuts_and_what_is_kept():
    plan = {
        "image_cut": "features",
        "text_cut": "words",
        "kept": "features of 160 images, 0.1 MB",
        "every_step": "text tower from words; logits",
        "steps": 1000,
        "schedule_note": None,
        "trained": {"context": [16, 128]},
        "parameters": 2048,
        "share": 0.00026,
    }
    text = text_of(tables.plan_table(plan))
    assert "frozen throughout" in text and "frozen up to words" in text and "context [16, 128]" in text
    assert "1,000" in text
    assert "1,000 (quick)" in text_of(tables.plan_table({**plan, "schedule_note": "quick"}))


def test_the_interval_is_students():
    mean, half = mean_interval([0.1, 0.2, 0.3])
    assert mean == pytest.approx(0.2)
    assert half == pytest.approx(4.302653 * 0.1 / math.sqrt(3), rel=1e-6)
    assert mean_interval([0.4]) == (0.4, None)


def test_predictions_are_a_table_csv_or_json():
    probabilities = np.array([[0.25, 0.75], [0.875, 0.125]])
    paths, names = ["a.png", "b.png"], ["cat", "dog"]
    assert "75.0 %" in text_of(predictions.predictions_table(paths, names, probabilities))
    rows = list(csv.DictReader(io.StringIO(predictions.predictions_csv(paths, names, probabilities))))
    assert rows[0] == {"image": "a.png", "class": "dog", "probability": "0.75", "p(cat)": "0.25", "p(dog)": "0.75"}
    found = json.loads(predictions.predictions_json(paths, names, probabilities))
    assert found[1]["class"] == "cat" and found[1]["probabilities"] == {"cat": 0.875, "dog": 0.125}


def test_what_was_left_out_is_told():
    assert (
        tables.left_out_text({"support": ["a"], "test": ["b", "c"]}) == "support: 1 broken image\ntest: 2 broken images"
    )


def test_what_is_fitted_in_closed_form_is_told():
    plan = dict.fromkeys(("kept", "every_step"), "nothing") | {"image_cut": "features", "text_cut": "features"}
    plan |= {"steps": 0, "schedule_note": None, "trained": {}, "share": 0.001}
    assert "in closed form" in text_of(tables.plan_table({**plan, "parameters": 1290}))
    assert "in closed form" not in text_of(tables.plan_table({**plan, "parameters": 0}))


@pytest.mark.parametrize("likelihood, accuracy, told", [(0.6, 0.9, True), (0.52, 0.9, False), (0.6, 0.6, False)])
def test_worse_probabilities_are_told(likelihood, accuracy, told):
    figures = {"negative_log_likelihood": {"title": "NLL", "percent": False, "higher_is_better": False}}
    scores = {"negative_log_likelihood": likelihood, "zero_shot_negative_log_likelihood": 0.5, "accuracy": accuracy}
    found = {**RESULT, **scores, "figures": {**RESULT["figures"], **figures}}
    assert (summary.probabilities_note(found) is not None) is told
    assert summary.probabilities_note({**found, "tests": {}}) is None is summary.probabilities_note(RESULT)


def test_as_many_classes_as_asked_for():
    probabilities, names = np.array([[0.25, 0.75, 0.0], [0.875, 0.125, 0.0]]), ["cat", "dog", "cow"]
    table = predictions.predictions_table(["a", "b"], names, probabilities, choices=predictions.Choices(top=3))
    assert next(iter(table.columns[3].cells)).plain == "cat (25.0 %)\ncow (0.0 %)"
    table = predictions.predictions_table(["a", "b"], names, probabilities, choices=predictions.Choices(top=1))
    assert [column.header for column in table.columns] == ["image", "class", "probability"]
    choices = predictions.Choices(rejected=[True, False], unknown="other", top=2)
    rows = [*csv.DictReader(io.StringIO(predictions.predictions_csv(["a", "b"], names, probabilities, {}, choices)))]
    assert [*rows[0].values()] == ["a", "other", "0.75", "dog", "0.75", "cat", "0.25"]
    found = json.loads(predictions.predictions_json(["a", "b"], names, probabilities, {}, choices))
    assert found[0]["class"] == "other" and found[1]["top"][0] == {"class": "cat", "probability": 0.875}


def test_a_name_that_is_a_formula_is_text_in_every_csv():
    names, probabilities = ["=1+1", "-3"], np.array([[0.25, 0.75]])
    assert "\nx.png,-3,0.75,0.25,0.75\n" in predictions.predictions_csv(["x.png"], names, probabilities)
    assert "\n'@x.png,'=1+1,0.75" in predictions.predictions_csv(["@x.png"], names, 1 - probabilities)
    assert [*map(guarded_cell, ("-", "-inf", "+1", "+a", -1, None, "\tx"))] == [
        "-",
        "-inf",
        "+1",
        "'+a",
        -1,
        None,
        "'\tx",
    ]
    mistake = Mistake("test", 0, "a.png", "=1+1", "dog", 0.5, [Neighbour(0, "b.png", "=2", 0.5)])
    assert mistakes_csv([mistake]).splitlines()[1] == "test,a.png,'=1+1,dog,0.5,b.png,'=2,0.5"
    assert "'=1+1" in audit_csv([Suspect("train", 0, "a.png", "=1+1", "dog", 0.5)])
