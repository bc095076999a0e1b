"""Test-time methods that see all images of a test set at once, and the graph of nearest images that they share."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from clipadapt.adaptations.base import Adaptation
from clipadapt.errors import UserError
from clipadapt.graphs import NearestImages
from clipadapt.tasks.classification import Classifier
from clipadapt.test_time.base import TestTimeMethod

IMAGES = 64
"""Images that are encoded together."""

REFUSED = (
    "this method starts from cosines of an image with each class's text, and this adaptation has logits of its own: "
    "take one that changes prompts, tokens or weights, or method.test_time=null"
)


def check_cosines(adaptation: Adaptation) -> None:
    """Check that an adaptation's logits are cosines of one feature with class embeddings.

    Raises:
        UserError: they are others, or the class embeddings depend on the image.
    """
    own = any(type(part).logits is not Adaptation.logits for part in adaptation.list_parts())
    if own or adaptation.capabilities.conditional or adaptation.capabilities.all_tokens:
        raise UserError(REFUSED)


class WholeSetMethod(TestTimeMethod):
    """A transductive method: the answer to an image depends on all images of its test set.

    Args:
        images: number of images that are encoded together, which changes no answer.
    """

    adapts_to = "set"
    fewest_images = 2
    note = "the images of each test set were seen together, without labels; zero-shot CLIP sees one by one"

    def __init__(self, images: int = IMAGES) -> None:
        super().__init__(views=1, images=images)

    def check(self, adaptation: Adaptation) -> None:
        """Check that an adaptation's logits are cosines of one feature with class embeddings.

        Raises:
            UserError: they are others, or the class embeddings depend on the image.
        """
        check_cosines(adaptation)

    def encode(self, classifier: Classifier, x: Tensor) -> Tensor:
        """Return unit features `[B, D]` in float32 of B images, given activations `[B, 1, ...]` at the image cut."""
        return functional.normalize(classifier.encode_image(x.flatten(0, 1), classifier.image_cut).float(), dim=-1)

    def logits(self, classifier: Classifier, x: Tensor, text: Tensor | None = None) -> Tensor:
        """Compute logits `[B, C]` of B images that are the whole set; arguments as of `TestTimeMethod.logits`."""
        return self.set_logits(classifier, self.encode(classifier, x), text)

    def answer(
        self, classifier: Classifier, batches: Iterable[tuple[Tensor, Tensor]], text: Tensor | None = None
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the logits `[B, C]` and the targets of every batch of a test set, after all have been encoded."""
        features, targets = zip(*((self.encode(classifier, x), some) for x, some in batches), strict=True)
        logits = self.set_logits(classifier, torch.cat(features), text)
        yield from zip(logits.split([*map(len, features)]), targets, strict=True)

    def set_logits(self, classifier: Classifier, features: Tensor, text: Tensor | None) -> Tensor:
        """Compute logits `[N, C]` of a whole set, given its unit features `[N, D]` and class embeddings `[C, D]`.

        Raises:
            UserError: there are too few images, or what the adaptation makes of CLIP can't be adapted further.
        """
        self.check(classifier.adaptation)
        if len(features) < self.fewest_images:
            raise UserError(
                f"this method compares the images of a whole set, at least {self.fewest_images} of them: give all "
                "images at once, such as a folder"
            )
        assert text is not None
        with torch.autocast(features.device.type, enabled=False):
            text = functional.normalize(text.float(), dim=-1)
            logits = self.compute_logits(features, text, classifier.adaptation)
        return logits if classifier.places is None else logits[:, classifier.places]

    def compute_logits(self, features: Tensor, text: Tensor, adaptation: Adaptation) -> Tensor:
        """Compute logits `[N, C]` of unit features `[N, D]` and unit class embeddings `[C, D]`."""
        raise NotImplementedError


@dataclass(frozen=True)
class LabelledGraph:
    """A graph with rows for S labelled images, then for N others.

    Attributes:
        edges: of all rows to the N images.
        labels: one-hot labels `[S, C]`.
        own_rows: whether an image gets what belongs to its own row; else the rows count as if the N images came first.
    """

    edges: NearestImages
    labels: Tensor
    own_rows: bool

    def near(self, z: Tensor) -> Tensor:
        """Return for each of the N images the weighted sum `[N, C]` of what images with an edge from or to it have."""
        rows = self.edges.to_rows(z)
        if self.own_rows:
            return self.edges.to_images(torch.cat([self.labels, z])) + rows[len(self.labels) :]
        return self.edges.to_images(torch.cat([z, self.labels])) + rows[: len(z)]
