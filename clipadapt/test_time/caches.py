"""Caches of test image features, by predicted class, that add to the logits."""

from typing import Annotated

import torch
from annotated_types import Interval
from torch import Tensor
from torch.nn import functional

from clipadapt.test_time.entries import Capacity, Entries
from clipadapt.test_time.views import ViewSummary

Share = Annotated[float, Interval(ge=0, le=1)]


class Cache(Entries):
    """A positive cache: the most confident images of each predicted class, which raise the logits of that class.

    Args:
        capacity: maximum number of images per class, in order of increasing entropy; 0 for no cache.
        alpha: weight of the cache's logits.
        beta: sharpness: the weight of an entry decays exponentially with beta times its cosine distance.
    """

    def __init__(self, capacity: Capacity = 3, alpha: float = 2.0, beta: float = 5.0) -> None:
        super().__init__(capacity)
        self.alpha, self.beta = alpha, beta

    def logits(self, summary: ViewSummary, position: int) -> Tensor:
        """Add one image to the cache, then compute the cache's logits `[C]` for that image.

        Args:
            summary: summary of the image.
            position: number of images before this one in the stream.
        """
        if not self.capacity:
            return torch.zeros_like(summary.logits)
        self.put(summary, position)
        return self.read(summary)

    def read(self, summary: ViewSummary) -> Tensor:
        """Compute the cache's logits `[C]` for one image, with the entries as they are."""
        return self.class_scores(self.affinity(self.entries["key"] @ summary.feature) * self.filled)

    def affinity(self, cosines: Tensor) -> Tensor:
        """Return the weights `[...]` of entries with these cosines to an image."""
        return self.alpha * torch.exp(-self.beta * (1 - cosines))

    def class_scores(self, weights: Tensor) -> Tensor:
        """Compute logits `[C]` from weights `[C, capacity]` of the entries."""
        return weights.sum(dim=-1)

    def boosted(self, views: ViewSummary, position: int, extra: int) -> "Cache":
        """Return a copy of the cache with more places, which single views of an image have entered.

        Args:
            views: the views, `[K]`.
            position: number of images before this one in the stream.
            extra: number of further places per class.
        """
        copy = Cache(self.capacity + extra, self.alpha, self.beta)
        copy.entries = {
            name: functional.pad(x, [0, 0] * (x.dim() - 2) + [0, extra]) for name, x in self.entries.items()
        }
        for name, free in (("entropy", torch.inf), ("position", -1)):
            copy.entries[name][:, self.capacity :] = free
        for view in range(len(views.entropy)):
            copy.put(views[view], position)
        return copy


class NegativeCache(Cache):
    """A negative cache: images of medium uncertainty, whose logits count against their possible classes.

    Args:
        capacity: maximum number of images per class, in order of increasing entropy; 0 for no cache.
        alpha: weight of the cache's logits.
        beta: sharpness: the weight of an entry decays exponentially with beta times its cosine distance.
        entropy_lower: lower bound (excluded) of `ViewSummary.uncertainty` of accepted images.
        entropy_upper: upper bound (excluded) of `ViewSummary.uncertainty` of accepted images.
        mask_lower: lower bound (excluded) of the probability of classes that an entry counts against.
        mask_upper: upper bound (excluded) of the probability of classes that an entry counts against.
    """

    def __init__(
        self,
        capacity: Capacity = 2,
        alpha: float = 0.117,
        beta: float = 1.0,
        entropy_lower: Share = 0.2,
        entropy_upper: Share = 0.5,
        mask_lower: Share = 0.03,
        mask_upper: Share = 1.0,
    ) -> None:
        super().__init__(capacity, alpha, beta)
        self.entropies = entropy_lower, entropy_upper
        self.masks = mask_lower, mask_upper

    def accepts(self, summary: ViewSummary) -> Tensor:
        """Return whether one image's uncertainty is within the bounds for the cache."""
        return between(summary.uncertainty, self.entropies)

    def remember(self, summary: ViewSummary) -> dict[str, Tensor]:
        """Return the mask `[C]` of classes that one image counts against."""
        return {"mask": between(summary.probability, self.masks)}

    def class_scores(self, weights: Tensor) -> Tensor:
        """Compute logits `[C]` from weights `[C, capacity]` of the entries."""
        return weights.flatten() @ self.entries["mask"].flatten(0, 1).float()


class RecentNegativeCache(NegativeCache):
    """A negative cache of the latest accepted images of each class, oldest first; arguments of `NegativeCache`."""

    def place(self, entropies: Tensor) -> int:
        """Return a free place, or else that of the oldest image."""
        return 0 if entropies[-1].isfinite() else -1

    def displaces(self, summary: ViewSummary, other: Tensor) -> Tensor:
        """Return true: the oldest image always makes room."""
        return torch.ones_like(other, dtype=torch.bool)

    def order(self, label: int) -> Tensor:
        """Return the order of a class's places by position in the stream, free ones last."""
        positions = self.entries["position"][label].float()
        return positions.where(positions >= 0, torch.inf).sort(stable=True).indices


def between(values: Tensor, bounds: tuple[float, float]) -> Tensor:
    """Return whether values lie strictly between two bounds, elementwise."""
    return (bounds[0] < values) & (values < bounds[1])
