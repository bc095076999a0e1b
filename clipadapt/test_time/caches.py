"""Caches of test image features, by predicted class."""

import math
from dataclasses import dataclass
from typing import Annotated

import torch
from annotated_types import Ge, Interval
from torch import Tensor

from clipadapt.errors import UserError

Capacity = Annotated[int, Ge(0)]
Share = Annotated[float, Interval(ge=0, le=1)]


@dataclass(frozen=True)
class ViewSummary:
    """Features and predictions of B test images, averaged over each image's most confident views.

    For a single image, the first dimension is missing.

    Attributes:
        feature: mean of the views' unit features, `[B, D]`.
        logits: mean of the views' logits, `[B, C]`.
        probability: mean of the views' probabilities, `[B, C]`.
        entropy: entropy of `probability` in nats, `[B]`.
    """

    feature: Tensor
    logits: Tensor
    probability: Tensor
    entropy: Tensor

    def __getitem__(self, image: int) -> "ViewSummary":
        """Return the summary of one image."""
        return ViewSummary(self.feature[image], self.logits[image], self.probability[image], self.entropy[image])

    @property
    def uncertainty(self) -> Tensor:
        """The entropy in nats over log2 of the number of classes, as in the authors' code: at most ln 2, `[B]`."""
        return self.entropy / math.log2(self.logits.shape[-1])


class Cache:
    """A positive cache: the most confident images of each predicted class, which raise the logits of that class.

    Args:
        capacity: maximum number of images per class, in order of increasing entropy; 0 for no cache.
        alpha: weight of the cache's logits.
        beta: sharpness: the weight of an entry decays exponentially with beta times its cosine distance.

    Attributes:
        entries: `entropy` (infinite for free places), `position` in the stream, `key` (the image feature) and the
            tensors that `remember` adds, each `[C, capacity, ...]`; empty before the first image.
    """

    def __init__(self, capacity: Capacity = 3, alpha: float = 2.0, beta: float = 5.0) -> None:
        self.capacity = capacity
        self.alpha, self.beta = alpha, beta
        self.entries: dict[str, Tensor] = {}

    def logits(self, summary: ViewSummary, position: int) -> Tensor:
        """Add one image to the cache, then compute the cache's logits `[C]` for that image.

        Args:
            summary: summary of the image.
            position: number of images before this one in the stream.
        """
        if not self.capacity:
            return torch.zeros_like(summary.logits)
        self._put(summary, position)
        weights = self.alpha * torch.exp(-self.beta * (1 - self.entries["key"] @ summary.feature))
        return self.class_scores(weights * self.entries["entropy"].isfinite())

    def accepts(self, summary: ViewSummary) -> Tensor:
        """Return whether one image may enter the cache; always unless overridden."""
        return torch.ones_like(summary.entropy, dtype=torch.bool)

    def remember(self, summary: ViewSummary) -> dict[str, Tensor]:
        """Return the tensors to store with one image's feature, by name; none unless overridden."""
        return {}

    def class_scores(self, weights: Tensor) -> Tensor:
        """Compute logits `[C]` from weights `[C, capacity]` of the entries."""
        return weights.sum(dim=-1)

    def load(self, entries: dict[str, Tensor]) -> None:
        """Load saved entries.

        Raises:
            UserError: the entries come from a cache of another capacity.
        """
        if any(values.shape[1] != self.capacity for values in entries.values()):
            found = next(iter(entries.values())).shape[1]
            raise UserError(f"what was saved has a cache of {found} images a class, and this one has {self.capacity}")
        self.entries = entries

    def _put(self, summary: ViewSummary, position: int) -> None:
        """Replace the last entry of the image's predicted class, if the image is accepted and has lower entropy.

        Afterwards, the entries of the class are sorted by entropy again.
        """
        image = {"entropy": summary.entropy, "position": summary.logits.new_tensor(position, dtype=torch.long)}
        image |= {"key": summary.feature, **self.remember(summary)}
        if not self.entries:
            self.entries = {name: self._free(value, len(summary.logits)) for name, value in image.items()}
            self.entries["entropy"].fill_(torch.inf)
            self.entries["position"].fill_(-1)
        label = int(summary.logits.argmax())
        enters = self.accepts(summary) & (summary.entropy < self.entries["entropy"][label, -1])
        for name, values in self.entries.items():
            values[label, -1] = torch.where(enters, image[name], values[label, -1])
        order = self.entries["entropy"][label].sort(stable=True).indices
        for values in self.entries.values():
            values[label] = values[label, order]

    def _free(self, value: Tensor, classes: int) -> Tensor:
        return value.new_zeros(classes, self.capacity, *value.shape)


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


def between(values: Tensor, bounds: tuple[float, float]) -> Tensor:
    """Return whether values lie strictly between two bounds, elementwise."""
    return (bounds[0] < values) & (values < bounds[1])
