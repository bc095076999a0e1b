"""When an answer isn't sure: images of none of the classes, and sets of classes that hold the right one."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from clipadapt.errors import UserError

TINY = 1e-9
"""Room for rounding: 0.1 * 10 shall be 1."""


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
    """

    truth: Sequence[float]
    matching: Sequence[float]
    scale: float
    unseen: Sequence[str] = ()

    def check(self, shares: Mapping[str, float]) -> None:
        """Check that there are enough scores for the shares of `reject` and `coverage`; raises UserError."""
        for key, share in shares.items():
            threshold(self.truth, share if key == "reject" else 1 - share, f"{key}={share}")

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

    def sets(self, probabilities: Tensor, coverage: float, names: Sequence[str]) -> list[list[str]]:
        """Return the sets of `include` as class names, the most probable first."""
        held = self.include(probabilities, coverage)
        order = probabilities.argsort(dim=-1, descending=True, stable=True).tolist()
        return [[names[k] for k in row if inside[k]] for row, inside in zip(order, held.tolist(), strict=True)]


def fewest_scores(share: float) -> int:
    """Return how many scores a threshold for a share takes at least."""
    return math.ceil(1 / share - TINY) - 1


def threshold(scores: Sequence[float], share: float, asked: str) -> float:
    """Return the score below which a further image falls with a probability of at most `share`.

    Args:
        scores: of N images.
        share: above 0 and below 1.
        asked: the setting, for the message.

    Raises:
        UserError: the share is out of range, or there are fewer than 1 / share - 1 scores.
    """
    if isinstance(share, bool) or not isinstance(share, int | float) or not 0 < share < 1:
        raise UserError(f"{asked} does not fit: it must be a number above 0 and below 1")
    rank = math.floor(share * (len(scores) + 1) + TINY)
    if not rank:
        raise UserError(
            f"{asked} needs at least {fewest_scores(share)} validation images, and this run has "
            f"{len(scores)}: give it a folder val/ or more shots, or ask for less"
        )
    return sorted(scores)[rank - 1]


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
