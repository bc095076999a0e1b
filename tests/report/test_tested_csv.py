"""The CSV of all test predictions of a run."""

import csv
import io

from clipadapt.report import predictions

ONE = {"class_names": ["cat", "dog"], "labels": [1, -1], "zero_shot": [0, 0], "adapted": [1, 0]}


def test_a_row_for_every_image_of_every_test_set():
    ranked = [[(1, 0.75), (0, 0.25)], [(0, 0.5), (1, 0.5)]]
    tests = {"test": {**ONE, "ranked": ranked}, "other": {**ONE, "ranked": ranked}}
    names = {"test": ["a, b.png", "c.png"], "other": ["0", "1"]}
    rows = [*csv.DictReader(io.StringIO(predictions.tested_csv(tests, names)))]
    assert [(row["test"], row["image"]) for row in rows] == [
        ("test", "a, b.png"),
        ("test", "c.png"),
        ("other", "0"),
        ("other", "1"),
    ]
    first, second = (dict([*row.items()][2:]) for row in rows[:2])
    assert [*first.values()] == ["dog", "dog", "cat", "dog", "0.75", "cat", "0.25"]
    assert [*second.values()] == ["", "cat", "cat", "cat", "0.5", "dog", "0.5"]


def test_answers_that_are_no_classes():
    angles = {"class_names": [], "labels": [0.5], "zero_shot": [0.1], "adapted": [0.4], "ranked": []}
    assert predictions.tested_csv({"test": angles}, {"test": ["x.png"]}) == (
        "test,image,truth,answer,zero_shot\ntest,x.png,0.5,0.4,0.1\n"
    )
