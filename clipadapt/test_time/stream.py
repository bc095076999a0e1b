"""A test-time method that adapts along a stream of test images."""

from collections.abc import Mapping
from typing import Annotated

import torch
from annotated_types import Interval
from torch import Tensor
from torch.nn import functional

from clipadapt.tasks.classification import Classifier
from clipadapt.test_time.base import TestTimeMethod
from clipadapt.test_time.caches import Cache, NegativeCache, ViewSummary
from clipadapt.test_time.views import (
    Count,
    averaged,
    entropy,
    gather_views,
    most_confident,
    one_feature,
    output_of_views,
)


class Caches(TestTimeMethod):
    """TDA: two caches along a stream of test images (Karmanov et al., CVPR 2024, arXiv:2403.18293, section 3.2).

    Each image enters the caches before its logits are computed. The logits of the positive cache are added to CLIP's,
    those of the negative cache are subtracted. Only the int(V * selection) most confident of V views are used, at least
    one.

    Args:
        positive: cache of confident images.
        negative: cache of less confident images.
        views: number of views of each image: the centre crop, then random crops.
        images: number of images that are encoded together; they enter the caches one after another.
        selection: share of the views that are used.
    """

    stream = True

    def __init__(
        self,
        positive: Cache,
        negative: NegativeCache,
        views: Count = 1,
        images: Count = 8,
        selection: Annotated[float, Interval(gt=0, le=1)] = 0.1,
    ) -> None:
        super().__init__(views, images)
        self.caches = {"positive": positive, "negative": negative}
        self.selection = selection
        self.count = 0

    def reset(self) -> None:
        """Empty the caches, to start a new stream."""
        self.count = 0
        for cache in self.caches.values():
            cache.entries = {}

    def state_dict(self) -> dict[str, Tensor]:
        """Return the entries of both caches and the number of images in the stream, by name."""
        entries = {f"{which}.{name}": x for which, cache in self.caches.items() for name, x in cache.entries.items()}
        return {name: x.clone() for name, x in entries.items()} | {"count": torch.tensor(self.count)}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Load a state that `state_dict` returned, to continue its stream.

        Raises:
            UserError: the state's caches have another capacity.
        """
        for which, cache in self.caches.items():
            own = {name.partition(".")[2]: x.clone() for name, x in state.items() if name.startswith(f"{which}.")}
            cache.load(own)
        self.count = int(state["count"])

    def logits(self, classifier: Classifier, x: Tensor, text: Tensor | None = None) -> Tensor:
        """Compute logits `[B, C]` of activations `[B, V, ...]` at the image cut, one image after another.

        Raises:
            UserError: the adaptation uses the features of all tokens.
        """
        summary = self.look(classifier, x, text)
        with torch.autocast(x.device.type, enabled=False):
            return torch.stack([self._next(summary[image]) for image in range(len(x))])

    def look(self, classifier: Classifier, x: Tensor, text: Tensor | None = None) -> ViewSummary:
        """Summarise the most confident views of B images; arguments and errors are those of `logits`."""
        one_feature(classifier)
        output = output_of_views(classifier, x, text)
        features = functional.normalize(output.image.float(), dim=-1).unflatten(0, x.shape[:2])
        logits = output.logits.unflatten(0, x.shape[:2])
        chosen = most_confident(logits, self.selection)
        logits = gather_views(logits, chosen)
        mean = averaged(logits)
        return ViewSummary(
            gather_views(features, chosen).mean(dim=1), logits.mean(dim=1), mean.softmax(dim=-1), entropy(mean)
        )

    def _next(self, summary: ViewSummary) -> Tensor:
        said = {which: cache.logits(summary, self.count) for which, cache in self.caches.items()}
        self.count += 1
        return summary.logits + said["positive"] - said["negative"]
