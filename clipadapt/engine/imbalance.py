"""Learning from classes of unequal size: balanced batches, weights of classes, or adjusted logits."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

Choice = Literal["balanced_sampling", "class_weights", "logit_adjustment"]
NOTED = 2
"""Times as many images of one class as of another, from which the plan names the setting."""


@dataclass(frozen=True)
class Imbalance:
    """The treatment of classes of unequal size in a fit by gradient.

    Attributes:
        choice: "balanced_sampling" draws each epoch's images with replacement, every class as often as any other;
            "class_weights" weighs the cross entropy of an image by the inverse of its class's share, with mean 1;
            "logit_adjustment" adds tau times the logarithm of the classes' shares to the logits of the losses (Menon
            et al., ICLR 2021, arXiv:2007.07314, equation 10; with tau = 1 it is also called balanced softmax).
        labels: class indices of the support set.
        classes: number of classes.
        tau: factor on the logarithms of the shares.
    """

    choice: Choice
    labels: Sequence[int]
    classes: int
    tau: float = 1.0

    def sampling_weights(self) -> Tensor | None:
        """Return the weight `[N]` with which each image is drawn; None if every image is once in an epoch."""
        return 1 / self._counts()[torch.tensor(self.labels)] if self.choice == "balanced_sampling" else None

    def class_weights(self) -> Tensor | None:
        """Return the weight `[C]` of each class in the cross entropy; None if they are equal."""
        counts = self._counts()
        weights = len(self.labels) / ((counts > 0).sum() * counts.clamp(min=1))
        return weights if self.choice == "class_weights" else None

    def logit_shift(self) -> Tensor | None:
        """Return what is added to the logits `[C]` of the losses; None if they stay."""
        shares = self._counts() / len(self.labels)
        logs = self.tau * shares.clamp(min=torch.finfo(shares.dtype).tiny).log()
        return logs if self.choice == "logit_adjustment" else None

    def _counts(self) -> Tensor:
        return torch.bincount(torch.tensor(self.labels), minlength=self.classes).float()


def unequal(labels: Sequence[Any]) -> str | None:
    """Return a phrase on classes of unequal size, such as "3 to 16 images a class"; None if they are about equal."""
    counts = Counter(labels).values()
    if not counts or not isinstance(labels[0], int) or max(counts) < NOTED * min(counts):
        return None
    return f"{min(counts)} to {max(counts)} images a class"
