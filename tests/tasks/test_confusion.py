"""Figures by class and intervals agree with scikit-learn's on random cases, also where classes are absent."""

import numpy as np
import pytest
from sklearn import metrics as sklearn_metrics

from clipadapt.tasks import Classification
from clipadapt.tasks.confusion import class_figures, intervals


def draw(seed, classes=6, images=60):
    random = np.random.default_rng(seed)
    present = random.choice(classes, size=classes - 2, replace=False)
    truth, answer = random.choice(present, size=images), random.integers(0, classes - 1, size=images)
    return truth, np.where(random.random(images) < 0.6, truth, answer)


def matrix(truth, answer, classes=6):
    return sklearn_metrics.confusion_matrix(truth, answer, labels=range(classes))


@pytest.mark.parametrize("seed", range(10))
def test_figures_by_class(seed):
    truth, answer = draw(seed)
    expected = sklearn_metrics.precision_recall_fscore_support(truth, answer, labels=range(6), zero_division=0)
    found = class_figures(matrix(truth, answer), [*"abcdef"])
    assert [*found] == ["abcdef"[k] for k in range(6) if k in truth]
    for k, name in enumerate("abcdef"):
        if name in found:
            assert [*found[name].values()] == pytest.approx([part[k] for part in expected])


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in (1, 2))])
def test_intervals_are_those_of_resampled_images(seed):
    truth, answer = draw(seed, images=150)
    stream = np.random.default_rng(1)
    rows = []
    for _ in range(400):
        some = stream.integers(0, len(truth), size=len(truth))
        rows.append(
            (
                sklearn_metrics.accuracy_score(truth[some], answer[some]),
                sklearn_metrics.recall_score(truth[some], answer[some], labels=np.unique(truth[some]), average="macro"),
                sklearn_metrics.f1_score(truth[some], answer[some], average="macro"),
            )
        )
    expected = np.percentile(rows, [2.5, 97.5], axis=0).T
    found = intervals(matrix(truth, answer))
    assert [*found] == ["accuracy", "balanced_accuracy", "macro_f1"]
    np.testing.assert_allclose(np.array([*found.values()]), expected, atol=0.03)


def test_intervals_of_sure_and_of_single_answers():
    sure = intervals(np.diag([5, 5]))
    assert [*sure] == ["accuracy"] and sure["accuracy"] == pytest.approx([0.7225, 1], abs=1e-4)  # Wilson's of 10 of 10
    assert intervals(np.array([[0, 1], [0, 0]]))["accuracy"] == pytest.approx([0, 0.7935], abs=1e-4)


def test_an_interval_holds_the_true_accuracy_about_as_often_as_it_says():
    held = 0
    for seed in range(200):
        right = np.random.default_rng(seed).binomial(200, 0.8)
        low, high = intervals(np.array([[right, 200 - right], [0, 0]]), seed)["accuracy"]
        held += low <= 0.8 <= high
    assert 180 <= held <= 198


def test_balanced_accuracy_leads_where_classes_are_unequal():
    kind = Classification()
    assert kind.leading_figure([0, 0, 1, -1, -1, -1]) == "accuracy" == kind.leading_figure([])
    assert kind.leading_figure([0, 0, 0, 1]) == "balanced_accuracy"
