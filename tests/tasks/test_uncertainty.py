"""Images that are none of the classes, and sets of classes: what their thresholds promise is kept."""

import itertools
import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from scipy.optimize import minimize_scalar
from torchmetrics.classification import MulticlassCalibrationError

from clipadapt.errors import UserError
from clipadapt.tasks.uncertainty import KnownScores, concept_matching, fewest_scores, fit_temperature, threshold


def draw(count, seed, spread=2.0):
    """Probabilities of images of random classes, and the classes."""
    random = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, 5, (count,), generator=random)
    logits = torch.randn(count, 5, generator=random)
    logits[torch.arange(count), labels] += spread
    return logits.softmax(dim=-1), labels


def known(count, seed):
    probabilities, labels = draw(count, seed)
    truth = probabilities[torch.arange(count), labels].tolist()
    return KnownScores(truth, concept_matching(probabilities, 1.0).tolist(), 1.0)


@pytest.mark.parametrize("coverage", [0.8, 0.9])
def test_sets_hold_the_right_class_as_often_as_asked(coverage):
    """Over 20 seeds, within the binomial interval of the mean (the promise holds on average over validation splits)."""
    shares = []
    for seed in range(20):
        probabilities, labels = draw(500, 100 + seed)
        held = known(99, seed).include(probabilities, coverage)
        shares.append(held[torch.arange(500), labels].float().mean().item())
    # Given the split, the coverage is a Beta variable; its deviation and the test images' add up.
    deviation = np.sqrt(coverage * (1 - coverage) * (1 / 101 + 1 / 500) / 20)
    assert abs(np.mean(shares) - coverage) < 3 * deviation + 1 / 100


def test_rejected_are_few_of_the_known_and_more_of_others():
    rejected, others = [], []
    for seed in range(20):
        scores = known(99, seed)
        rejected.append(scores.reject(draw(500, 100 + seed)[0], 0.1).float().mean().item())
        others.append(scores.reject(draw(500, 200 + seed, spread=0.0)[0], 0.1).float().mean().item())
    assert abs(np.mean(rejected) - 0.1) < 0.03 and np.mean(others) > 0.2


def test_concept_matching_is_the_softmax_of_similarities():
    similarities = torch.tensor([[0.31, 0.22, 0.18]], dtype=torch.float64)
    found = concept_matching((100 * similarities).softmax(dim=-1), 100.0)
    torch.testing.assert_close(found, similarities.softmax(dim=-1).amax(dim=-1))


def test_thresholds_are_order_statistics():
    scores = [0.9, 0.1, 0.5, 0.7, 0.3, 0.2, 0.8, 0.6, 0.4]
    assert threshold(scores, 0.1, "reject=0.1") == 0.1
    assert threshold(scores, 0.35, "reject=0.35") == 0.3


def test_too_few_images_for_a_share():
    with pytest.raises(UserError, match=r"^reject=0\.05 needs at least 19 validation images, and this run has 9: give"):
        threshold([0.5] * 9, 0.05, "reject=0.05")
    for share in (0, 1, -0.1, 7):
        with pytest.raises(UserError, match="must be a number above 0 and below 1"):
            threshold([0.5] * 9, share, f"reject={share}")


def test_sets_are_in_order_of_probability():
    scores = KnownScores([0.3] * 9, [0.5] * 9, 1.0)
    assert scores.sets(torch.tensor([[0.3, 0.6, 0.1], [0.2, 0.2, 0.2]]), 0.9, ["a", "b", "c"]) == [["b", "a"], []]


@pytest.mark.parametrize("stretch", [0.3, 1.0, 4.0])
def test_the_temperature_is_that_of_a_plain_minimisation(stretch):
    probabilities, labels = draw(400, 3)
    stretched = (probabilities.double().log() * stretch).softmax(dim=-1)

    def loss(logarithm):
        scaled = (stretched.log() / np.exp(logarithm)).log_softmax(dim=-1)
        return float(torch.nn.functional.nll_loss(scaled, labels))

    expected = np.exp(minimize_scalar(loss, bracket=(-2, 2), tol=1e-12).x)
    assert fit_temperature(stretched, labels) == pytest.approx(expected, rel=1e-6)


def test_a_temperature_changes_no_answer_and_repairs_confidence():
    probabilities, labels = draw(2000, 4)
    sharp = (probabilities.log() * 5).softmax(dim=-1)
    scores = KnownScores([0.5], [0.5], 1.0, temperature=fit_temperature(sharp[:1000], labels[:1000]))
    scaled = scores.calibrate(sharp)
    assert scaled.argmax(dim=-1).equal(sharp.argmax(dim=-1)) and scaled.dtype == sharp.dtype
    before, after = (
        float(MulticlassCalibrationError(5, n_bins=15)(one[1000:], labels[1000:])) for one in (sharp, scaled)
    )
    assert after < before / 3


def test_images_without_a_temperature():
    right = torch.tensor([[0.9, 0.1], [0.2, 0.8]])
    assert fit_temperature(right, torch.tensor([0, 1])) is None  # 0 would be best
    assert fit_temperature(right, torch.tensor([1, 0])) is None  # infinite
    with pytest.raises(UserError, match="calibrate=true needs a temperature, and the run has none: all of its"):
        KnownScores([0.5], [0.5], 1.0).calibrate(right)


@pytest.mark.parametrize("coverage, count", [("0.8", 4), ("0.9", 9), ("0.99", 99), ("0.999", 999), ("0.9999", 9999)])
def test_the_fewest_images_are_those_of_split_conformal_prediction(coverage, count):
    """The least n with ceil((n + 1) coverage) <= n, in exact fractions."""
    exact = Fraction(coverage)
    assert count == next(n for n in itertools.count(1) if math.ceil((n + 1) * exact) <= n)
    share = 1 - float(coverage)
    assert fewest_scores(share) == count
    assert threshold([0.5] * count, share, "coverage") == 0.5
    with pytest.raises(UserError, match=f"needs at least {count} validation images"):
        threshold([0.5] * (count - 1), share, "coverage")
