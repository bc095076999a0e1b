"""The interface of what adapts at test time, which the engine knows."""

from collections.abc import Mapping

from torch import Tensor

from clipadapt.tasks.classification import Classifier


class TestTimeMethod:
    """What adapts to test images, given views of each.

    Args:
        views: of each image: the centre crop, then random ones.
        images: that are looked at together; more take more memory.
    """

    stream = False
    """Whether what an image leaves changes the answers for those after it."""

    def __init__(self, views: int, images: int) -> None:
        self.views = views
        self.images = images

    def reset(self) -> None:
        """Forget what earlier images left; nothing where each image is on its own."""

    def state_dict(self) -> dict[str, Tensor]:
        """What earlier images left, by name."""
        return {}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Go on from what other images left."""

    def logits(self, classifier: Classifier, x: Tensor, text: Tensor | None = None) -> Tensor:
        """Activations at the image cut `[B, V, ...]` to logits `[B, C]`.

        Args:
            classifier: CLIP through an adaptation.
            x: V views of each of B images.
            text: class embeddings `[C, D]` before anything adapts; None where they depend on the image.
        """
        raise NotImplementedError
