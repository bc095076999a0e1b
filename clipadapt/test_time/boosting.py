"""A positive cache that confident views of an image enter for that image alone."""

from typing import Annotated

import torch
from annotated_types import Ge
from torch import Tensor

from clipadapt.tasks.classification import Classifier
from clipadapt.test_time.caches import Cache, NegativeCache
from clipadapt.test_time.stream import Caches, Share
from clipadapt.test_time.views import Count, ViewSummary, summarise_views

Looked = tuple[ViewSummary, ViewSummary]


class BoostedCaches(Caches):
    """BoostAdapter: an image's own views beside earlier images (Zhang et al., NeurIPS 2024, arXiv:2410.15430).

    The caches are TDA's. For each image, its most confident views enter a copy of the positive cache, each with its own
    feature, predicted class and entropy; the copy has more places, and is discarded with the image.

    Args:
        positive: cache of confident images.
        negative: cache of less confident images.
        views: number of views of each image: the centre crop, then random crops.
        images: number of images that are encoded together; they enter the caches one after another.
        selection: share of the views that are used.
        delta: number of further places per class of the copy.
        original_view: whether the image itself is its first view, not the average of its confident views.
    """

    def __init__(
        self,
        positive: Cache,
        negative: NegativeCache,
        views: Count = 64,
        images: Count = 8,
        selection: Share = 0.1,
        delta: Annotated[int, Ge(0)] = 1,
        original_view: bool = False,
    ) -> None:
        super().__init__(positive, negative, views, images, selection)
        self.delta, self.original_view = delta, original_view

    def look(self, classifier: Classifier, x: Tensor, text: Tensor | None = None) -> list[Looked]:  # type: ignore[override]
        """Return the summary of each image, and those of its most confident views."""
        views = summarise_views(classifier, x, text)
        kept = views.confident(self.selection)
        whole = views[:, 0] if self.original_view else kept.averaged()
        return [(whole[image], kept[image]) for image in range(len(x))]

    def step(self, classifier: Classifier, looked: Looked, text: Tensor | None) -> dict[str, Tensor]:  # type: ignore[override]
        """Add one image to the caches and its views to a copy of the positive one, and compute its logits."""
        image, kept = looked
        found = {**vars(image), "clip": image.logits, "uncertainty": image.uncertainty}
        found |= {"positive": torch.zeros_like(image.logits), "negative": self.negative.logits(image, self.count)}
        if self.positive.capacity:
            self.positive.put(image, self.count)
            boosted = self.positive.boosted(kept, self.count, self.delta)
            found |= {"positive": boosted.read(image), "counts": boosted.filled.sum(dim=-1)}
        return found | {"logits": image.logits + found["positive"] - found["negative"]}
