"""Objectives for labelled images."""

from torch import Tensor
from torch.nn import functional

from clipadapt.objectives.base import Objective, Output


class CrossEntropy(Objective):
    """Mean negative log-likelihood of the labels under the softmax of the logits."""

    def forward(self, output: Output, labels: Tensor) -> dict[str, Tensor]:
        """Compute one loss, `cross_entropy`."""
        return {"cross_entropy": functional.cross_entropy(output.logits.float(), labels)}
