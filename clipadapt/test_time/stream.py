"""Test-time methods that adapt along a stream of test images."""

from collections.abc import Mapping
from typing import Annotated, Any

import torch
from annotated_types import Interval
from torch import Tensor

from clipadapt.adaptations.base import Adaptation
from clipadapt.tasks.classification import Classifier
from clipadapt.test_time.base import TestTimeMethod
from clipadapt.test_time.caches import Cache, NegativeCache
from clipadapt.test_time.entries import Entries
from clipadapt.test_time.views import Count, ViewSummary, one_feature, shared_embeddings, summarise_views

Share = Annotated[float, Interval(gt=0, le=1)]


class Stream(TestTimeMethod):
    """A method that adapts to test images one after another: an image changes the logits of later images.

    Args:
        views: number of views of each image: the centre crop, then random crops.
        images: number of images that are encoded together; they are adapted to one after another.

    Attributes:
        caches: images that are kept, by name of the cache.
        tensors: tensors that images change, by name; empty before the first image.
        count: number of images in the stream so far.
        length: number of images that the stream will have; None if that is unknown.
    """

    adapts_to = "stream"
    moves_text = False
    """Whether the method starts from class embeddings that all images share."""

    def __init__(self, views: int, images: int) -> None:
        super().__init__(views, images)
        self.caches: dict[str, Entries] = {}
        self.tensors: dict[str, Tensor] = {}
        self.count = 0
        self.length: int | None = None

    def check(self, adaptation: Adaptation) -> None:
        """Check that an adaptation has one feature for each image, and shared class embeddings if they are needed.

        Raises:
            UserError: it hasn't.
        """
        one_feature(adaptation)
        if self.moves_text:
            shared_embeddings(adaptation)

    def reset(self, length: int | None = None) -> None:
        """Discard what earlier images left, to start a new stream; None for one of unknown length."""
        self.count, self.length, self.tensors = 0, length, {}
        for cache in self.caches.values():
            cache.entries = {}

    def state_dict(self) -> dict[str, Tensor]:
        """Return entries of the caches, changed tensors, and the stream's images so far and its length if known."""
        entries = {f"{which}.{name}": x for which, cache in self.caches.items() for name, x in cache.entries.items()}
        counts = {"count": self.count} | ({} if self.length is None else {"length": self.length})
        found = {name: x.clone() for name, x in (entries | self.tensors).items()}
        return found | {name: torch.tensor(count) for name, count in counts.items()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Load a state that `state_dict` returned, to continue its stream.

        Raises:
            UserError: the state's caches have another capacity.
        """
        self.reset(int(state["length"]) if "length" in state else None)
        for which, cache in self.caches.items():
            own = {name.partition(".")[2]: x.clone() for name, x in state.items() if name.startswith(f"{which}.")}
            cache.load(own)
        others = {name: x for name, x in state.items() if "." not in name and name not in ("count", "length")}
        self.tensors = {name: x.clone() for name, x in others.items()}
        self.count = int(state["count"])

    def logits(self, classifier: Classifier, x: Tensor, text: Tensor | None = None) -> Tensor:
        """Compute logits `[B, C]` of activations `[B, V, ...]` at the image cut, one image after another.

        Raises:
            UserError: the adaptation uses the features of all tokens, or has class embeddings that depend on the image
                where the method needs shared ones; or the method needs the stream's length, and it is unknown.
        """
        return torch.stack([values["logits"] for values in self.follow(classifier, x, text)])

    def follow(self, classifier: Classifier, x: Tensor, text: Tensor | None = None) -> list[dict[str, Tensor]]:
        """Adapt to B images, one after another; arguments and errors are those of `logits`.

        Returns:
            For each image its `logits` `[C]` and other values of its step, by name.
        """
        self.check(classifier.adaptation)
        looked = self.look(classifier, x, text)
        with torch.autocast(x.device.type, enabled=False):
            return [self._next(classifier, looked[image], text) for image in range(len(x))]

    def look(self, classifier: Classifier, x: Tensor, text: Tensor | None = None) -> Any:
        """Return what `step` needs of B images, by image: the summary of each view unless overridden."""
        return summarise_views(classifier, x, text)

    def step(self, classifier: Classifier, looked: Any, text: Tensor | None) -> dict[str, Tensor]:
        """Adapt to one image.

        Args:
            classifier: the adapted CLIP.
            looked: what `look` returned of the image.
            text: class embeddings `[C, D]` before test-time adaptation; None if they depend on the image.

        Returns:
            The image's `logits` `[C]` and other values, by name.
        """
        raise NotImplementedError

    def _next(self, classifier: Classifier, looked: Any, text: Tensor | None) -> dict[str, Tensor]:
        found = self.step(classifier, looked, text)
        self.count += 1
        return found


class Caches(Stream):
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

    def __init__(
        self,
        positive: Cache,
        negative: NegativeCache,
        views: Count = 1,
        images: Count = 8,
        selection: Share = 0.1,
    ) -> None:
        super().__init__(views, images)
        self.positive, self.negative = positive, negative
        self.caches = {"positive": positive, "negative": negative}
        self.selection = selection

    def look(self, classifier: Classifier, x: Tensor, text: Tensor | None = None) -> ViewSummary:
        """Summarise the most confident views of B images."""
        return summarise_views(classifier, x, text).confident(self.selection).averaged()

    def step(self, classifier: Classifier, looked: ViewSummary, text: Tensor | None) -> dict[str, Tensor]:
        """Add one image to the caches, and compute its logits."""
        positive, negative = (cache.logits(looked, self.count) for cache in (self.positive, self.negative))
        return {"logits": looked.logits + positive - negative}
