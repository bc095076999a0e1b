"""Prototypes of classes that follow a stream, with a step on both for each image."""

import math
from typing import Annotated

import torch
from annotated_types import Ge, Gt
from torch import Tensor
from torch.nn import functional

from clipadapt.errors import UserError
from clipadapt.tasks.classification import Classifier
from clipadapt.test_time.caches import Cache
from clipadapt.test_time.stream import Share, Stream
from clipadapt.test_time.views import (
    Count,
    averaged_views,
    entropy,
    most_confident,
    of_classes,
    unit_embeddings,
)

ADAM_EPS = 1e-3
"""AdamW's epsilon in the authors' code."""


class DualPrototypes(Stream):
    """DPE: textual and visual prototypes that evolve (Zhang et al., NeurIPS 2024, arXiv:2410.12790).

    Textual prototypes are class embeddings that confident images move; visual ones are the means of a cache of the most
    confident images of each predicted class. For each image, a residue on each prototype makes one step of AdamW from
    zero: on the entropy of the image's logits plus the cache's, and on a contrastive loss that aligns the visual and
    textual prototypes of a class. The logits are those of the first view with the moved prototypes.

    At its first step AdamW moves by `-lr g / (|g| + eps)` for a gradient g, and its weight decay acts on zero.

    Args:
        cache: cache of confident images, whose means are the visual prototypes.
        views: number of views of each image: the centre crop, then random crops.
        images: number of images that are encoded together; they are adapted to one after another.
        selection: share of the views that are used.
        text_lr: learning rate of the residue on textual prototypes; 0 for none.
        image_lr: learning rate of the residue on visual prototypes; 0 for none.
        align_weight: weight of the contrastive loss.
        align_temperature: temperature of the contrastive loss.
        threshold: bound (excluded) on an image's entropy over log2 of the number of classes, below which the textual
            prototypes of later images move.
        predict_from_views: whether the logits are those of the most confident views with the moved prototypes.

    Raises:
        UserError: the cache has no places.
    """

    moves_text = True

    def __init__(
        self,
        cache: Cache,
        views: Count = 64,
        images: Count = 8,
        selection: Share = 0.1,
        text_lr: Annotated[float, Ge(0)] = 0.0006,
        image_lr: Annotated[float, Ge(0)] = 0.0006,
        align_weight: Annotated[float, Ge(0)] = 0.5,
        align_temperature: Annotated[float, Gt(0)] = 0.01,
        threshold: Annotated[float, Ge(0)] = 0.1,
        predict_from_views: bool = False,
    ) -> None:
        super().__init__(views, images)
        if not cache.capacity:
            raise UserError(
                "method.test_time.cache.capacity=0 leaves no images for visual prototypes: set it to at least 1"
            )
        self.cache, self.selection = cache, selection
        self.caches = {"cache": cache}
        self.rates = text_lr, image_lr
        self.align_weight, self.align_temperature = align_weight, align_temperature
        self.threshold, self.predict_from_views = threshold, predict_from_views

    def look(self, classifier: Classifier, x: Tensor, text: Tensor | None = None) -> Tensor:
        """Return unit features `[B, V, D]` of the views."""
        image = classifier.encode_image(x.flatten(0, 1), classifier.image_cut)
        return functional.normalize(image.float(), dim=-1).unflatten(0, x.shape[:2])

    def step(self, classifier: Classifier, looked: Tensor, text: Tensor | None) -> dict[str, Tensor]:
        """Make a step on the residues for one image's features `[V, D]`, and compute its logits."""
        if not self.tensors:
            start = unit_embeddings(text)
            self.tensors = {"text": start, "updates": start.new_zeros(())}
        with torch.enable_grad():
            found = self.move(classifier, looked)
        features = looked if self.predict_from_views else looked[:1]
        logits = classifier.logits(features, found["moved_text"])
        if self.predict_from_views:
            chosen = most_confident(logits, self.selection)
            features, logits = features[chosen], logits[chosen]
        answer = logits.mean(dim=0) + self.cached(found["moved_keys"], found["present"], features.mean(dim=0))
        return found | {"logits": answer} | self.evolve(found["moved_text"], answer)

    def move(self, classifier: Classifier, features: Tensor) -> dict[str, Tensor]:
        """Put an image with unit features `[V, D]` into the cache, and make a step on both residues.

        Returns:
            Losses and gradients before the step, residues after it, the moved prototypes as unit vectors, and the
            classes that are `present` in the cache.
        """
        start = self.tensors["text"].detach().requires_grad_()
        text = functional.normalize(start, dim=-1)
        logits = classifier.logits(features, text)
        chosen = most_confident(logits.detach(), self.selection)
        kept = averaged_views(features[chosen], logits[chosen])
        self.cache.put(kept.detached(), self.count)
        present = self.cache.filled.any(dim=-1).nonzero().flatten()
        means = self.means()[present].requires_grad_()
        keys = functional.normalize(means, dim=-1)
        entropies = entropy(kept.logits + self.cached(keys, present, kept.feature))
        align = self.alignment(keys, of_classes(classifier, text)[present])
        total = entropies + self.align_weight * align
        gradients = torch.autograd.grad(total, [start, means], materialize_grads=True)
        seen = kept.detached()
        found = {"feature": seen.feature, "clip": seen.logits, "uncertainty": seen.uncertainty}
        found |= {"entropy": entropies.detach(), "align": align.detach(), "means": means.detach()}
        found["present"] = present
        for name, x, lr, g in zip(("text", "keys"), (start, means), self.rates, gradients, strict=True):
            residue = -lr * g / (g.abs() + ADAM_EPS)
            moved = functional.normalize(x.detach() + residue, dim=-1)
            found |= {f"{name}_gradient": g, f"{name}_residue": residue, f"moved_{name}": moved}
        return found

    def means(self) -> Tensor:
        """Return the visual prototypes `[C, D]`, the mean of each class's features; zero for a class without any."""
        filled = self.cache.filled.float()
        shares = filled / filled.sum(dim=-1, keepdim=True).clamp_min(1)
        return (shares.unsqueeze(-2) @ self.cache.entries["key"]).squeeze(-2)

    def cached(self, keys: Tensor, present: Tensor, feature: Tensor) -> Tensor:
        """Return the cache's logits `[C]` of a feature `[D]`, given unit visual prototypes `[P, D]` of some classes."""
        affinity = self.cache.affinity(keys @ feature)
        return affinity.new_zeros(len(self.cache.entries["key"])).index_put((present,), affinity)

    def alignment(self, keys: Tensor, text: Tensor) -> Tensor:
        """Return the contrastive loss of unit visual prototypes `[P, D]` to the textual ones of their classes."""
        labels = torch.arange(len(keys), device=keys.device)
        return functional.cross_entropy(keys / self.align_temperature @ text.T, labels)

    def evolve(self, moved: Tensor, logits: Tensor) -> dict[str, Tensor]:
        """Move the textual prototypes of later images towards those of an image with these logits, if it is confident.

        Returns:
            The image's entropy, and whether it was confident enough.
        """
        found = entropy(logits)
        accepted = found / math.log2(len(logits)) < self.threshold
        if accepted:
            updates = self.tensors["updates"] + 1
            self.tensors = {"text": self.tensors["text"].lerp(moved, 1 / (updates + 1)), "updates": updates}
        return {"final_entropy": found, "accepted": accepted}
