"""The base class of test-time methods."""

import copy
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal, Self

import torch
from torch import Tensor

from clipadapt.adaptations.base import Adaptation
from clipadapt.backbone.dual_encoder import DualEncoder
from clipadapt.objectives.base import BackboneSpec
from clipadapt.tasks.classification import Classifier

AdaptsTo = Literal["image", "batch", "stream", "set"]
"""What is adapted to together: each image alone, the images of a batch, all images before one, or a whole test set."""


class TestTimeMethod:
    """A method that adapts to unlabelled test images, given several views of each.

    Args:
        views: number of views of each image: the centre crop, then random crops.
        images: number of images in a batch; memory use grows with it.
    """

    adapts_to: AdaptsTo = "image"
    """What the answer to an image depends on beside the image."""

    sees_pixels = False
    """Whether the method needs the views' pixels, not only their activations: `logits_of_pixels` is for those."""
    teacher_specs: Sequence[BackboneSpec] = ()
    """The further backbones that the method needs; whoever builds the method loads them into `teachers`."""
    teachers: Sequence[DualEncoder] = ()

    fewest_images = 1
    """The number of images below which there is no answer."""
    note: str | None = None
    """What is to be known of figures on a test set; None for nothing."""

    def __init__(self, views: int, images: int) -> None:
        self.views = views
        self.images = images

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """Return a copy with a state of its own; it shares the teachers, which are frozen."""
        memo |= {id(teacher): teacher for teacher in self.teachers}
        made = copy.copy(self)
        made.__dict__ = copy.deepcopy(self.__dict__, memo)
        return made

    @property
    def texts_at_once(self) -> int:
        """The most sets of class embeddings that are computed together, if the adaptation supports batched tensors."""
        return self.images

    def check(self, adaptation: Adaptation) -> None:
        """Check, before any image is read, that the method can adapt this adaptation; by default it can.

        Raises:
            UserError: it can't.
        """

    def reset(self, length: int | None = None) -> None:
        """Discard the state that earlier images left, for a stream of this length; methods without state do nothing."""

    def state_dict(self) -> dict[str, Tensor]:
        """Return the state that earlier images left, by name."""
        return {}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Load a state that `state_dict` returned."""

    def logits(self, classifier: Classifier, x: Tensor, text: Tensor | None = None) -> Tensor:
        """Compute logits `[B, C]` of B images.

        Args:
            classifier: the adapted CLIP.
            x: activations at the image cut of V views of each image, `[B, V, ...]`.
            text: class embeddings `[C, D]` before test-time adaptation; None if they depend on the image.
        """
        raise NotImplementedError

    def logits_of_pixels(self, classifier: Classifier, pixels: Sequence[Tensor], text: Tensor | None = None) -> Tensor:
        """Compute logits `[B, C]` of B images, given views `[V, 3, height, width]` of each, as `logits` does."""
        return self.logits(classifier, torch.stack([classifier.prefix(views) for views in pixels]), text)

    def answer(
        self, classifier: Classifier, batches: Iterable[tuple[Tensor, Tensor]], text: Tensor | None = None
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the logits `[B, C]` and the targets of every batch of a test set.

        Args:
            classifier: the adapted CLIP.
            batches: activations `[B, V, ...]` at the image cut, or pixels if the method sees pixels, and targets.
            text: as of `logits`.
        """
        for x, targets in batches:
            if self.sees_pixels:
                yield self.logits_of_pixels(classifier, [*x], text), targets
            else:
                yield self.logits(classifier, x, text), targets
