"""Objectives for labelled images."""

from torch import Tensor
from torch.nn import functional

from clipadapt.objectives.base import Objective, Output


class CrossEntropy(Objective):
    """Mean negative log-likelihood of the labels under the softmax of the logits."""

    def forward(self, output: Output, labels: Tensor) -> dict[str, Tensor]:
        """Compute one loss, `cross_entropy`."""
        return {"cross_entropy": cross_entropy(output.logits, labels, output.class_weights)}


def cross_entropy(logits: Tensor, labels: Tensor, class_weights: Tensor | None) -> Tensor:
    """Compute the mean over images of the negative log-likelihood of the label, times its class's weight.

    It is a plain mean, not one over the sum of the weights, so that a batch may be split.

    Args:
        logits: `[B, C]`.
        labels: class indices, `[B]`.
        class_weights: `[C]`; None for equal weights.
    """
    if class_weights is None:
        return functional.cross_entropy(logits.float(), labels)
    return (functional.cross_entropy(logits.float(), labels, reduction="none") * class_weights[labels]).mean()
