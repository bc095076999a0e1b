import math

import pytest
import torch

from clipadapt.engine.evaluate import evaluate
from clipadapt.engine.measure import measure
from tests.engine.tasks import prepare, split, task

LABELS = torch.tensor([0, 0, 0, 1])
PROBABILITIES = torch.tensor([[0.7, 0.2, 0.1], [0.7, 0.2, 0.1], [0.2, 0.1, 0.7], [0.1, 0.7, 0.2]])


def measured(*batches):
    return evaluate(lambda x: x.log(), batches, 3, torch.device("cpu"))


def test_accuracy_per_class_and_confusion():
    found = measured((PROBABILITIES, LABELS))
    assert found.accuracy == 0.75
    assert found.per_class[:2] == pytest.approx([2 / 3, 1])
    assert math.isnan(found.per_class[2])
    assert found.confusion == [[2, 0, 1], [0, 1, 0], [0, 0, 0]]
    assert found.images == 4


def test_calibration_error():
    assert measured((PROBABILITIES, LABELS)).calibration_error == pytest.approx(0.05, abs=1e-6)
    sure = torch.eye(3)[[0, 0, 1, 1]] * 0.9999 + 1e-5
    assert measured((sure, LABELS)).calibration_error == pytest.approx(0.25, abs=1e-3)


def test_batches_do_not_matter():
    halves = measured((PROBABILITIES[:1], LABELS[:1]), (PROBABILITIES[1:], LABELS[1:]))
    whole = measured((PROBABILITIES, LABELS))
    assert (halves.accuracy, halves.confusion) == (whole.accuracy, whole.confusion)
    assert halves.calibration_error == pytest.approx(whole.calibration_error)


def test_measure_leaves_out_a_class_without_test_images(clip):
    tests = {"test": split([0, 0, 1]), "other": split([2] * 4, seed=2)}
    found = measure(prepare(clip, task(tests=tests)))
    assert list(found["per_class"]) == list(found["zero_shot_per_class"]) == ["circle", "square"]
    assert found["images"] == 3
    assert {name: values["images"] for name, values in found["tests"].items()} == {"test": 3, "other": 4}
    assert found["accuracy"] == found["tests"]["test"]["accuracy"]
