"""The base class of test-time methods."""

from collections.abc import Mapping

from torch import Tensor

from clipadapt.adaptations.base import Adaptation
from clipadapt.tasks.classification import Classifier


class TestTimeMethod:
    """A method that adapts to unlabelled test images, given several views of each.

    Args:
        views: number of views of each image: the centre crop, then random crops.
        images: number of images in a batch; memory use grows with it.
    """

    stream = False
    """Whether the method keeps state that lets an image change the logits of later images."""

    def __init__(self, views: int, images: int) -> None:
        self.views = views
        self.images = images

    @property
    def texts_at_once(self) -> int:
        """The most sets of class embeddings that are computed together, if the adaptation supports batched tensors."""
        return self.images

    def check(self, adaptation: Adaptation) -> None:
        """Check, before any image is read, that the method can adapt this adaptation; by default it can.

        Raises:
            UserError: it can't.
        """

    def reset(self) -> None:
        """Discard the state that earlier images left; methods without state do nothing."""

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
