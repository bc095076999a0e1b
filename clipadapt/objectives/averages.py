"""Averages of the learned tensors over epochs."""

import math
from typing import Annotated

from annotated_types import Gt

from clipadapt.objectives.base import WeightAverage


class GaussianAverage(WeightAverage):
    """PromptSRC's Gaussian-weighted average over epochs (Khattak et al., ICCV 2023, arXiv:2307.06948, section 3.3).

    Args:
        mean: mean of the Gaussian: the epoch, counted from 1, with the largest weight.
        deviation: standard deviation of the Gaussian, in epochs.
    """

    def __init__(self, mean: float, deviation: Annotated[float, Gt(0)]) -> None:
        self.mean = mean
        self.deviation = deviation

    def weights(self, epochs: int) -> list[float]:
        """Return the weights of the epochs, which sum to one; `epochs` is their number."""
        logs = [-((epoch - self.mean) ** 2) / (2 * self.deviation**2) for epoch in range(1, epochs + 1)]
        found = [math.exp(value - max(logs)) for value in logs]
        return [value / sum(found) for value in found]
