"""Caches of test images, by class."""

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
    """B test images as CLIP sees them; or one, without the first dimension.

    Attributes:
        feature: `[B, D]`, the mean of the surest views' unit features.
        logits: `[B, C]`, the mean of theirs.
        probability: `[B, C]`, the mean of theirs.
        entropy: of that, in nats, `[B]`.
    """

    feature: Tensor
    logits: Tensor
    probability: Tensor
    entropy: Tensor

    def __getitem__(self, image: int) -> "ViewSummary":
        """One of them."""
        return ViewSummary(self.feature[image], self.logits[image], self.probability[image], self.entropy[image])

    @property
    def uncertainty(self) -> Tensor:
        """The entropy in nats over log2 of the number of classes, as in the authors' code: at most ln 2, `[B]`."""
        return self.entropy / math.log2(self.logits.shape[-1])


class Cache:
    """The surest images of each class that CLIP takes them for; they speak for it.

    Args:
        capacity: images of each class, the surest first; 0 for none.
        alpha: weight of the cache.
        beta: how fast an image counts less the less it is like the one that is asked for.

    Attributes:
        entries: `entropy` (infinite where a place is free), `position` in the stream, `key` (the feature) and whatever
            `remember` adds, each `[C, capacity, ...]`; nothing before the first image.
    """

    def __init__(self, capacity: Capacity = 3, alpha: float = 2.0, beta: float = 5.0) -> None:
        self.capacity = capacity
        self.alpha, self.beta = alpha, beta
        self.entries: dict[str, Tensor] = {}

    def logits(self, summary: ViewSummary, position: int) -> Tensor:
        """What the cache says of one image, `[C]`; the image is taken in before."""
        if not self.capacity:
            return torch.zeros_like(summary.logits)
        self._put(summary, position)
        weights = self.alpha * torch.exp(-self.beta * (1 - self.entries["key"] @ summary.feature))
        return self.class_scores(weights * self.entries["entropy"].isfinite())

    def accepts(self, summary: ViewSummary) -> Tensor:
        """Whether one image may come in."""
        return torch.ones_like(summary.entropy, dtype=torch.bool)

    def remember(self, summary: ViewSummary) -> dict[str, Tensor]:
        """What is kept of one image besides its feature."""
        return {}

    def class_scores(self, weights: Tensor) -> Tensor:
        """Weights `[C, capacity]` of what is held to logits `[C]`."""
        return weights.sum(dim=-1)

    def load(self, entries: dict[str, Tensor]) -> None:
        """Take back what was held.

        Raises:
            UserError: it is another cache's.
        """
        if any(values.shape[1] != self.capacity for values in entries.values()):
            found = next(iter(entries.values())).shape[1]
            raise UserError(f"what was saved has a cache of {found} images a class, and this one has {self.capacity}")
        self.entries = entries

    def _put(self, summary: ViewSummary, position: int) -> None:
        """Take one image in, if it may, in the last place of its class, if it is surer than what is there."""
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
    """The surest of the images that CLIP is neither sure nor quite unsure of; they speak against what they may show.

    Args:
        capacity: images of each class, the surest first; 0 for none.
        alpha: weight of the cache.
        beta: how fast an image counts less the less it is like the one that is asked for.
        entropy_lower: an image comes in whose `ViewSummary.uncertainty` is above this
        entropy_upper: and below this.
        mask_lower: it speaks against the classes whose probability is above this
        mask_upper: and below this.
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
        """Whether one image may come in."""
        return between(summary.uncertainty, self.entropies)

    def remember(self, summary: ViewSummary) -> dict[str, Tensor]:
        """The classes that one image speaks against, `[C]`."""
        return {"mask": between(summary.probability, self.masks)}

    def class_scores(self, weights: Tensor) -> Tensor:
        """Weights `[C, capacity]` of what is held to logits `[C]`."""
        return weights.flatten() @ self.entries["mask"].flatten(0, 1).float()


def between(values: Tensor, bounds: tuple[float, float]) -> Tensor:
    """Whether values are above the one bound and below the other."""
    return (bounds[0] < values) & (values < bounds[1])
