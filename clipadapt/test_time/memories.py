"""Memories of test images and of support images, that are read for each image."""

from typing import Annotated

import torch
from annotated_types import Ge
from torch import Tensor
from torch.nn import functional

from clipadapt.adaptations.base import Adaptation
from clipadapt.errors import UserError
from clipadapt.tasks.classification import Classifier
from clipadapt.test_time.entries import Entries
from clipadapt.test_time.stream import Share, Stream
from clipadapt.test_time.views import (
    Count,
    ViewSummary,
    log_probabilities,
    of_classes,
    summarise_views,
    unit_embeddings,
)

Weight = Annotated[float, Ge(0)]
Looked = tuple[ViewSummary, ViewSummary]


class Memory(Entries):
    """The most confident images of each predicted class, in the places that they came to."""

    def place(self, entropies: Tensor) -> int:
        """Return the first place of highest entropy: a free one, or that of the least confident image."""
        return int(entropies.sort(descending=True, stable=True).indices[0])

    def order(self, label: int) -> None:
        """Return None: places aren't sorted."""


class DualMemory(Stream):
    """DMN: memories that each image reads for itself (Zhang et al., CVPR 2024, arXiv:2403.17589).

    A dynamic memory has the most confident test images of each predicted class, a static memory the support images of
    the adaptation, if it keeps any (DMN-TF; without them DMN-ZS). An image's feature f reads a class's prototype: the
    sum of the class embedding and the class's features k in memory, each times `exp(-beta (1 - f k))`. The
    probabilities are a weighted sum of CLIP's, those of the prototypes of both memories, and those of the static
    memory's prototypes.

    The int(V * selection) most confident of V views, at least one, decide on an image's class and confidence; the first
    view is stored, and read with.

    Args:
        views: number of views of each image: the centre crop, then random crops.
        images: number of images that are encoded together; they enter the memory one after another.
        selection: share of the views that are used.
        capacity: maximum number of test images per class.
        beta: sharpness: the weight of a feature decays exponentially with beta times its cosine distance.
        text_weight: weight of CLIP's probabilities.
        dynamic_weight: weight of the probabilities that the dynamic memory gives.
        static_weight: weight of the probabilities that the static memory gives, if there is one.
    """

    moves_text = True

    def __init__(
        self,
        views: Count = 32,
        images: Count = 8,
        selection: Share = 0.1,
        capacity: Count = 50,
        beta: float = 5.5,
        text_weight: Weight = 1.0,
        dynamic_weight: Weight = 1.0,
        static_weight: Weight = 1.0,
    ) -> None:
        super().__init__(views, images)
        self.memory = Memory(capacity)
        self.caches = {"memory": self.memory}
        self.selection, self.beta = selection, beta
        self.weights = {"text": text_weight, "dynamic": dynamic_weight, "static": static_weight}

    def check(self, adaptation: Adaptation) -> None:
        """Check that an adaptation serves a stream, and that a part of the answer counts.

        Raises:
            UserError: it doesn't, or none does.
        """
        super().check(adaptation)
        there = ["text", "dynamic", *["static"] * (adaptation.support_features() is not None)]
        if not any(self.weights[name] for name in there):
            names = " and ".join(f"{name}_weight" for name in there)
            raise UserError(f"{names} are 0, which leaves no answer: set method.test_time.text_weight=1")

    def look(self, classifier: Classifier, x: Tensor, text: Tensor | None = None) -> list[Looked]:
        """Return the summary of each image's first view, and the one to store."""
        views = summarise_views(classifier, x, text)
        first, mean = views[:, 0], views.confident(self.selection).averaged()
        logits = log_probabilities(mean.probability)  # the class is that of the mean probability
        stored = ViewSummary(first.feature, logits, mean.probability, mean.entropy)
        return [(first[image], stored[image]) for image in range(len(x))]

    def step(self, classifier: Classifier, looked: Looked, text: Tensor | None) -> dict[str, Tensor]:
        """Store one image, then read both memories with it."""
        first, stored = looked
        self.memory.put(stored, self.count)
        static, support = self.static(classifier, first.feature, unit_embeddings(text))
        keys = self.memory.entries["key"]
        weights = self.affinity(keys, first.feature) * self.memory.filled
        dynamic = static + (weights.unsqueeze(-2) @ keys).squeeze(-2)
        found = {"text": first.probability, "dynamic": self.probabilities(classifier, dynamic, first.feature)}
        if support:
            found["static"] = self.probabilities(classifier, static, first.feature)
        total = torch.stack([self.weights[name] * part for name, part in found.items()]).sum(dim=0)
        return {**found, "stored": stored.probability, "sum": total, "logits": log_probabilities(total)}

    def static(self, classifier: Classifier, feature: Tensor, text: Tensor) -> tuple[Tensor, bool]:
        """Return the sums `[C, D]` of class embeddings and support features for an image, and whether there are any."""
        sums, support = self.affinity(text, feature)[:, None] * text, classifier.adaptation.support_features()
        if support is not None:
            keys, labels = support.flat()
            sums = sums.index_add(0, labels, self.affinity(keys, feature)[:, None] * keys)
        return of_classes(classifier, sums), support is not None

    def affinity(self, keys: Tensor, feature: Tensor) -> Tensor:
        """Return the weights `[...]` of unit features `[..., D]` for an image with unit feature `[D]`."""
        return torch.exp(-self.beta * (1 - keys @ feature))

    def probabilities(self, classifier: Classifier, sums: Tensor, feature: Tensor) -> Tensor:
        """Return the probabilities `[C]` of an image by the prototypes of these sums `[C, D]`."""
        return (classifier.clip.scale * functional.normalize(sums, dim=-1) @ feature).softmax(dim=-1)
