"""The figures of classification, compared with scikit-learn's on random cases, with absent classes and ties."""

import math
import warnings

import numpy as np
import pytest
import torch
from sklearn import metrics as sklearn_metrics

from clipadapt.tasks.classification import Classification

COUNT, BATCH = 60, 25


class HeadOf:
    """A head that has class names alone."""

    def __init__(self, classes):
        self.class_names = [f"class {index}" for index in range(classes)]


def random_case(seed):
    """Make probabilities with ties, and labels that lack some classes."""
    random = np.random.default_rng(seed)
    classes = int(random.integers(2, 12))
    scores = random.integers(1, 6, (COUNT, classes)) if seed % 2 else random.random((COUNT, classes)) + 0.01
    present = random.choice(classes, size=int(random.integers(2, classes + 1)), replace=False)
    return (scores / scores.sum(axis=1, keepdims=True)).astype(np.float32), random.choice(present, COUNT)


def figures(probabilities, targets):
    """Compute all figures with a title, in batches, with an image without label among them."""
    kind, head = Classification(), HeadOf(probabilities.shape[1])
    found = {name: one.metric for name, one in kind.metrics(head).items() if one.title}
    for metric in found.values():
        metric.update(*kind.uncounted(head, torch.device("cpu")))
        for start in range(0, len(targets), BATCH):
            part = slice(start, start + BATCH)
            metric.update(torch.from_numpy(probabilities[part]), torch.from_numpy(targets[part]))
    return {name: metric.compute().item() for name, metric in found.items()}


def one_against_others(probabilities, targets):
    """Return the mean of scikit-learn's areas of the classes that have a curve."""
    areas = [
        sklearn_metrics.roc_auc_score(targets == index, probabilities[:, index])
        for index in range(probabilities.shape[1])
        if 0 < (targets == index).sum() < len(targets)
    ]
    return np.mean(areas)


@pytest.mark.parametrize("seed", range(40))
def test_they_are_those_of_scikit_learn(seed):
    probabilities, targets = random_case(seed)
    labels, predicted = np.arange(probabilities.shape[1]), probabilities.argmax(axis=1)
    expected = {
        "accuracy": sklearn_metrics.accuracy_score(targets, predicted),
        "macro_f1": sklearn_metrics.f1_score(targets, predicted, average="macro"),
        "auroc": one_against_others(probabilities, targets),
        "negative_log_likelihood": sklearn_metrics.log_loss(targets, probabilities.astype(float), labels=labels),
        "brier_score": sklearn_metrics.brier_score_loss(targets, probabilities, labels=labels, scale_by_half=False),
    }
    with warnings.catch_warnings(action="ignore"):  # that predicted classes are absent
        expected["balanced_accuracy"] = sklearn_metrics.balanced_accuracy_score(targets, predicted)
    if len(labels) > 5:
        expected["top5_accuracy"] = sklearn_metrics.top_k_accuracy_score(targets, probabilities, k=5, labels=labels)
    found = figures(probabilities, targets)
    assert {*found} == {*expected, "calibration_error"}
    assert {name: found[name] for name in expected} == pytest.approx(expected, abs=1e-5)


def test_one_class_alone_has_no_curve():
    found = figures(np.full((4, 3), 1 / 3, np.float32), np.zeros(4, np.int64))
    assert math.isnan(found["auroc"])
    assert (found["accuracy"], found["balanced_accuracy"]) == (1, 1)


def test_a_probability_of_zero_is_a_finite_loss():
    found = figures(np.array([[1, 0]] * 4, np.float32), np.array([1, 1, 0, 0]))
    assert found["negative_log_likelihood"] == pytest.approx(43.7, abs=0.1)
