"""Averages of what was learned over epochs."""

import math
from typing import Annotated

from annotated_types import Gt

from clipadapt.objectives.base import WeightAverage


class GaussianAverage(WeightAverage):
    """PromptSRC's: epochs weighted by a Gaussian of their number (Khattak et al., ICCV 2023, arXiv:2307.06948, 3.3).

    Args:
        mean: the epoch, counted from 1, that weighs most.
        deviation: in epochs.
    """

    def __init__(self, mean: float, deviation: Annotated[float, Gt(0)]) -> None:
        self.mean = mean
        self.deviation = deviation

    def weights(self, epochs: int) -> list[float]:
        """Weight of each of so many epochs; they sum to one."""
        logs = [-((epoch - self.mean) ** 2) / (2 * self.deviation**2) for epoch in range(1, epochs + 1)]
        found = [math.exp(value - max(logs)) for value in logs]
        return [value / sum(found) for value in found]
