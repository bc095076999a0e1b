"""Objectives for labelled images."""

import torch
from torch import Tensor
from torch.nn import functional

from clipadapt.objectives.base import Objective, Output


class CrossEntropy(Objective):
    """Mean negative log-likelihood of the labels under the softmax of the logits."""

    def forward(self, output: Output, labels: Tensor) -> dict[str, Tensor]:
        """Compute one loss, `cross_entropy`."""
        return {"cross_entropy": cross_entropy(output.logits, labels, output.class_weights)}


class DecoupledCrossEntropy(Objective):
    """DePT: cross entropies of two heads, each by its weight in the logits (Zhang et al., CVPR 2024, arXiv:2309.07439).

    The second head, a classifier, gets twice as many samples: the image features, and the class embedding of each
    image's label, which stands for the class's text. Its cross entropy is the mean over both.
    """

    needs_text_logits = True

    def forward(self, output: Output, labels: Tensor) -> dict[str, Tensor]:
        """Compute two losses, `cross_entropy` of the first head and `classifier` of the second."""
        texts = output.text_logits()
        assert texts is not None and output.heads is not None
        (share, first), (rest, second) = output.heads()
        each = torch.arange(len(labels), device=labels.device)
        own = texts.expand(len(labels), *texts.shape[-2:])[each, labels]
        rows, repeated = torch.cat([own, second]), labels.repeat(2)
        return {
            "cross_entropy": share * cross_entropy(first, labels, output.class_weights),
            "classifier": rest * cross_entropy(rows, repeated, output.class_weights),
        }


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
