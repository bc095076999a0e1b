"""Metrics of classification that torchmetrics lacks, or defines otherwise than scikit-learn where classes are absent.

Their arguments are probabilities `[B, C]` and class indices `[B]`; images with the target NO_LABEL don't count.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.classification import MulticlassConfusionMatrix

from clipadapt.tasks.base import NO_LABEL


class BalancedAccuracy(MulticlassConfusionMatrix):
    """Mean of the accuracies of the classes that have images, as scikit-learn's `balanced_accuracy_score`."""

    def compute(self) -> Tensor:
        """Return the mean; NaN without images."""
        confusion = super().compute()
        images = confusion.sum(dim=1)
        return (confusion.diagonal() / images)[images > 0].mean()


class MeanScore(Metric):
    """Mean over images of a score.

    Args:
        score: returns the score `[B]` of images, given probabilities `[B, C]` and class indices `[B]`.
    """

    total: Tensor
    images: Tensor

    def __init__(self, score: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.score = score
        self.add_state("total", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("images", torch.zeros((), dtype=torch.long), dist_reduce_fx="sum")

    def update(self, probabilities: Tensor, targets: Tensor) -> None:
        """Add a batch."""
        labelled = targets != NO_LABEL
        probabilities, targets = probabilities[labelled], targets[labelled]
        self.total += self.score(probabilities, targets).double().sum()
        self.images += len(targets)

    def compute(self) -> Tensor:
        """Return the mean; NaN without images."""
        return self.total / self.images


class AreaUnderCurve(Metric):
    """Mean over classes of the area under the ROC curve of the class against all others (scikit-learn's "ovr", macro).

    Classes without images, or with all of them, have no curve and don't count.
    """

    probabilities: list[Tensor]
    targets: list[Tensor]

    def __init__(self) -> None:
        super().__init__()
        self.add_state("probabilities", [], dist_reduce_fx="cat")
        self.add_state("targets", [], dist_reduce_fx="cat")

    def update(self, probabilities: Tensor, targets: Tensor) -> None:
        """Add a batch."""
        labelled = targets != NO_LABEL
        self.probabilities.append(probabilities[labelled])
        self.targets.append(targets[labelled])

    def compute(self) -> Tensor:
        """Return the mean; NaN if no class has a curve."""
        probabilities, targets = gathered(self.probabilities), gathered(self.targets)
        areas = [area(probabilities[:, index], targets == index) for index in targets.unique().tolist()]
        return torch.stack(areas).nanmean() if areas else torch.tensor(torch.nan)


def gathered(state: list[Tensor] | Tensor) -> Tensor:
    """Return a state as one tensor: torchmetrics joins it when it gathers processes, and leaves a list else."""
    return state if isinstance(state, Tensor) else torch.cat(state)


def area(scores: Tensor, positive: Tensor) -> Tensor:
    """Return the area under the ROC curve of scores `[N]`: the share of pairs in the right order, ties as half.

    It is the Mann-Whitney U statistic over its largest value (Hanley and McNeil, Radiology 143, 1982); NaN if all
    images or none are positive.
    """
    _, places, counts = scores.unique(return_inverse=True, return_counts=True)
    ranks = (counts.cumsum(0) - (counts.double() - 1) / 2)[places]  # that of ties is their mean
    inside = positive.sum()
    pairs = inside * (~positive).sum()
    return (ranks[positive].sum() - inside * (inside + 1) / 2) / pairs


def in_top(count: int) -> Callable[[Tensor, Tensor], Tensor]:
    """Return the score that is 1 where an image's class is among the `count` most probable, else 0.

    Of classes with equal probabilities the last one comes first, as in scikit-learn's `top_k_accuracy_score`.
    """

    def score(probabilities: Tensor, targets: Tensor) -> Tensor:
        own = probabilities.gather(1, targets[:, None])
        later = torch.arange(probabilities.shape[1], device=targets.device) > targets[:, None]
        before = (probabilities > own) | ((probabilities == own) & later)
        return (before.sum(dim=1) < count).float()

    return score


def negative_log_likelihood(probabilities: Tensor, targets: Tensor) -> Tensor:
    """Return minus the logarithm of the probability of each image's class, which is at least the smallest float."""
    own = probabilities.gather(1, targets[:, None])[:, 0]
    return -own.clamp(min=torch.finfo(own.dtype).tiny).log()


def brier_score(probabilities: Tensor, targets: Tensor) -> Tensor:
    """Return the squared distance of each image's probabilities to its class: 0 to 2 (Brier, 1950)."""
    own = probabilities.gather(1, targets[:, None])[:, 0]
    return (probabilities**2).sum(dim=1) - 2 * own + 1
