"""How sure an answer is: images of none of the classes, sets of classes that hold the right one, and calibration."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from clipadapt.errors import UserError

TINY = 1e-9
"""Room for rounding: 0.1 * 10 shall be 1."""
HALVINGS = 50
"""Of an interval around a temperature, after which it is exact to rounding."""


@dataclass(frozen=True)
class KnownScores:
    """Scores of images of the known classes that a method didn't learn from: its validation split.

    The k-th smallest of N such scores is above the score of a further image like them with a probability of at most
    k / (N + 1) (split conformal prediction; Vovk et al., Algorithmic Learning in a Random World, 2005, section 4.2).

    Attributes:
        truth: the probability of each image's own class.
        matching: each image's maximum concept matching.
        scale: the factor between similarities and logits.
        unseen: names of classes without such an image, for which nothing is promised.
        temperature: of `calibrate`; None where the images have none (see `fit_temperature`).
    """

    truth: Sequence[float]
    matching: Sequence[float]
    scale: float
    unseen: Sequence[str] = ()
    temperature: float | None = None

    def check(self, shares: Mapping[str, float], calibrate: bool = False) -> None:
        """Check that there are enough scores for the shares of `reject` and `coverage`, and a temperature if asked for.

        Raises:
            UserError: there are too few scores, or there is no temperature.
        """
        for key, share in shares.items():
            threshold(self.truth, share if key == "reject" else 1 - share, f"{key}={share}")
        if calibrate and self.temperature is None:
            raise UserError(
                "calibrate=true needs a temperature, and the run has none: all of its validation images are answered "
                "rightly, or no better than by chance, or it was computed before there were temperatures (rerun=true)"
            )

    def reject(self, probabilities: Tensor, share: float) -> Tensor:
        """Return which images `[B]` are none of the classes, given probabilities `[B, C]`.

        Args:
            probabilities: of the images.
            share: of images of the known classes that may be rejected, such as 0.05.

        Raises:
            UserError: there are too few scores for this share.
        """
        return concept_matching(probabilities, self.scale) < threshold(self.matching, share, f"reject={share}")

    def include(self, probabilities: Tensor, coverage: float) -> Tensor:
        """Return the sets of classes `[B, C]` that hold an image's class with a probability of `coverage`.

        They are the classes above one threshold (Sadinle et al., JASA 2019, arXiv:1609.00451, section 2); a set can be
        empty, and the image is then unlike those of all classes.

        Args:
            probabilities: of the images, `[B, C]`.
            coverage: such as 0.9.

        Raises:
            UserError: there are too few scores for this coverage.
        """
        least = 1 - coverage if isinstance(coverage, float) else coverage  # which `threshold` refuses
        return probabilities >= threshold(self.truth, least, f"coverage={coverage}")

    def calibrate(self, probabilities: Tensor) -> Tensor:
        """Return probabilities `[B, C]` after temperature scaling; the most probable class stays.

        Raises:
            UserError: the images have no temperature.
        """
        self.check({}, calibrate=True)
        assert self.temperature is not None
        return scale_by_temperature(probabilities, self.temperature)

    def sets(self, probabilities: Tensor, coverage: float, names: Sequence[str]) -> list[list[str]]:
        """Return the sets of `include` as class names, the most probable first."""
        held = self.include(probabilities, coverage)
        order = probabilities.argsort(dim=-1, descending=True, stable=True).tolist()
        return [[names[k] for k in row if inside[k]] for row, inside in zip(order, held.tolist(), strict=True)]


def fewest_scores(share: float) -> int:
    """Return how many scores a threshold for a share takes at least."""
    return math.ceil((1 - TINY) / share) - 1


def threshold(scores: Sequence[float], share: float, asked: str) -> float:
    """Return the score below which a further image falls with a probability of at most `share`.

    Args:
        scores: of N images.
        share: above 0 and below 1.
        asked: the setting, for the message.

    Raises:
        UserError: the share is out of range, or there are fewer than 1 / share - 1 scores.
    """
    check_fraction(share, asked)
    rank = math.floor(share * (len(scores) + 1) + TINY)
    if not rank:
        raise UserError(
            f"{asked} needs at least {fewest_scores(share)} validation images, and this run has "
            f"{len(scores)}: give it a folder val/ or more shots, or ask for less"
        )
    return sorted(scores)[rank - 1]


def check_fraction(value: object, asked: str) -> None:
    """Check that a value is a number between 0 and 1; `asked` is the setting, for the message.

    Raises:
        UserError: it isn't.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1:
        raise UserError(f"{asked} does not fit: it must be a number above 0 and below 1")


def concept_matching(probabilities: Tensor, scale: float) -> Tensor:
    """Return the maximum concept matching `[B]`: the largest softmax of similarities, which aren't scaled.

    Ming et al., NeurIPS 2022 (arXiv:2211.13445), equation 2, with a temperature of 1. Logarithms of probabilities are
    logits up to a constant, and logits are similarities times `scale`.

    Args:
        probabilities: `[B, C]`.
        scale: the factor between similarities and logits.
    """
    logits = probabilities.double().clamp(min=torch.finfo(torch.float64).tiny).log()
    return (logits / scale).softmax(dim=-1).amax(dim=-1)


def fit_temperature(probabilities: Tensor, targets: Tensor) -> float | None:
    """Return the temperature that minimises the negative log likelihood (Guo et al., ICML 2017, section 4.2).

    The likelihood is concave in the inverse temperature. It has no maximum if all images are answered rightly (a
    temperature of 0 would be best), nor if logits of the right classes are no larger than others on average (an
    infinite one would be); then None is returned.

    Args:
        probabilities: of N images, `[N, C]`.
        targets: their classes `[N]`.
    """
    logits = log_probabilities(probabilities)
    own = logits.gather(1, targets[:, None])[:, 0].mean()

    def slope(inverse: float) -> float:
        return float(((logits * inverse).softmax(dim=-1) * logits).sum(dim=-1).mean() - own)

    if slope(0.0) >= 0 or logits.amax(dim=-1).mean() <= own:
        return None
    low = high = 1.0
    while slope(low) > 0:
        low /= 2
    while slope(high) < 0:
        high *= 2
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if slope(middle) < 0 else (low, middle)
    return 2 / (low + high)


def scale_by_temperature(probabilities: Tensor, temperature: float) -> Tensor:
    """Return the softmax of logits over a temperature, given the probabilities `[B, C]` of the logits."""
    scaled: Tensor = (log_probabilities(probabilities) / temperature).softmax(dim=-1).to(probabilities.dtype)
    return scaled


def log_probabilities(probabilities: Tensor) -> Tensor:
    """Return logarithms of probabilities in double precision, as of `negative_log_likelihood` at least the smallest."""
    return probabilities.clamp(min=torch.finfo(probabilities.dtype).tiny).double().log()
