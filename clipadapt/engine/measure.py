"""The figures of a run: zero-shot against adapted, on its test sets."""

import math
from collections.abc import Sequence
from typing import Any

from clipadapt.classifier import Classifier
from clipadapt.data.tasks import told_apart
from clipadapt.engine.evaluate import Evaluation
from clipadapt.engine.run import Run

Pair = tuple[Classifier, Classifier]


def measure(run: Run) -> dict[str, Any]:
    """Zero-shot against adapted on the task's test sets; the first one's figures stand for the run.

    Returns:
        `accuracy` and `calibration_error`, each with its `zero_shot_` counterpart, and the number of `images`; `tests`,
        the same by test set; of the first one, accuracies `per_class` and `zero_shot_per_class`, the `confusion`, and
        `predictions`: its `labels` and what is predicted, `zero_shot` and `adapted`, image by image.
        Without a test set, `tests` alone, which is empty.
    """
    if not run.task.tests:
        return {"tests": {}}
    pair = run.zero_shot(), run.classifier
    measured = {}
    for name, split in run.task.tests.items():
        pair = for_classes(pair, split.class_names or run.task.class_names)
        measured[name] = run.compare(*pair, split)
    tests = {name: figures(before, after) for name, (before, after) in measured.items()}
    first, (before, after) = next(iter(measured.items()))
    return tests[first] | {
        "tests": tests,
        "per_class": by_class(run.task.class_names, after),
        "zero_shot_per_class": by_class(run.task.class_names, before),
        "confusion": after.confusion,
        "predictions": {
            "labels": run.task.tests[first].labels,
            "zero_shot": before.predicted,
            "adapted": after.predicted,
        },
    }


def for_classes(pair: Pair, class_names: list[str]) -> Pair:
    """Zero-shot and adapted for a test set's classes; the same ones where these are theirs."""
    before, after = pair
    same = before.class_names == class_names
    return pair if same else (before.for_classes(class_names), after.for_classes(class_names))


def figures(before: Evaluation, after: Evaluation) -> dict[str, float]:
    """The figures of one test set."""
    return {
        "accuracy": after.accuracy,
        "zero_shot_accuracy": before.accuracy,
        "calibration_error": after.calibration_error,
        "zero_shot_calibration_error": before.calibration_error,
        "images": after.images,
    }


def by_class(names: Sequence[str], evaluation: Evaluation) -> dict[str, float]:
    """Accuracy of each class that has test images."""
    pairs = zip(told_apart(names), evaluation.per_class, strict=True)
    return {name: accuracy for name, accuracy in pairs if not math.isnan(accuracy)}
