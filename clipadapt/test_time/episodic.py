"""The base class of episodic tuning: learned tensors are tuned to one image at a time, without labels, and restored."""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated

import torch
from annotated_types import Ge, Gt, Interval
from torch import Tensor, nn

from clipadapt.adaptations.base import Adaptation
from clipadapt.errors import UserError
from clipadapt.tasks.classification import Classifier
from clipadapt.test_time.base import TestTimeMethod
from clipadapt.test_time.copies import batched_parameters, descend, images_first, rounding_anew
from clipadapt.test_time.views import Count, gather_views, most_confident, view_logits

Tensors = Mapping[str, Tensor]
Share = Annotated[float, Interval(gt=0, le=1)]
Rate = Annotated[float, Gt(0)]
Decay = Annotated[float, Ge(0)]


@dataclass(frozen=True)
class ViewOutputs:
    """What the adapted towers give for V views of B images.

    Attributes:
        logits: logits, `[B, V, C]`.
        image: image features, `[B, V, D]`.
        text: class embeddings, `[B, ..., C, D]`.
        scores: scores of the classes that a method computes from the views, `[B, V, C]`; None for none.
    """

    logits: Tensor
    image: Tensor
    text: Tensor
    scores: Tensor | None = None


@dataclass(frozen=True)
class Tuned:
    """The result of tuning to B images.

    Attributes:
        logits: logits of each image after tuning, `[B, C]`.
        tensors: the learned tensors as tuned to each image, `[B, ...]` by name.
        gradients: gradients of the objective in the first step, by the same names.
        values: `objective` and its terms before each step, and the views `selected` for it, `[B, steps, ...]` by name.
    """

    logits: Tensor
    tensors: Tensors
    gradients: Tensors
    values: Tensors


class EpisodicTuning(TestTimeMethod):
    """Tuning to each test image by itself, with AdamW; a subclass says what is minimised, and what is predicted.

    Tuning starts from the learned tensors for every image, with a new AdamW. Since AdamW's update is elementwise,
    several images are tuned to at once, each with its own tensors, if the adaptation has `supports_batched_params`.

    Args:
        views: number of views of each image: the centre crop, then random crops.
        images: number of images that are tuned to at once.
        selection: share of the views that are used, those of lowest entropy.
        steps: number of optimiser steps.
        lr: learning rate.
        weight_decay: decoupled weight decay.
    """

    select_every_step = False
    """Whether views are selected anew before each step, not only before the first."""

    def __init__(
        self, views: Count, images: Count, selection: Share, steps: Count, lr: Rate, weight_decay: Decay
    ) -> None:
        super().__init__(views, images)
        self.selection = selection
        self.steps = steps
        self.lr, self.weight_decay = lr, weight_decay

    def check(self, adaptation: Adaptation) -> None:
        """Check that an adaptation has parameters.

        Raises:
            UserError: there is nothing to tune.
        """
        if not adaptation.has_parameters:
            raise UserError(
                "there is nothing to tune at test time, as this adaptation learns nothing: take one that does, such as "
                "adaptation@method.adaptation=context"
            )

    @abstractmethod
    def values(self, outputs: ViewOutputs) -> dict[str, Tensor]:
        """Compute the `objective` of the selected views, and perhaps terms of it, `[B, ...]` by name."""

    def predict(self, classifier: Classifier, x: Tensor) -> Tensor:
        """Compute logits `[B, C]` after tuning; those of the first view unless overridden.

        Args:
            classifier: the adapted CLIP, with tensors of each image.
            x: activations `[B, V, ...]` at the image cut.
        """
        return view_outputs(classifier, x[:, :1]).logits[:, 0]

    def logits(self, classifier: Classifier, x: Tensor, text: Tensor | None = None) -> Tensor:
        """Compute logits `[B, C]` of activations `[B, V, ...]`; arguments and errors are those of `tune`."""
        return self.tune(classifier, x, text).logits

    def scores(self, classifier: Classifier, pixels: Sequence[Tensor] | None, chosen: Tensor) -> Tensor | None:
        """Return scores `[B, K, C]` of the classes for the selected views `[B, K]`; None unless overridden."""
        return None

    def tune(
        self, classifier: Classifier, x: Tensor, text: Tensor | None = None, pixels: Sequence[Tensor] | None = None
    ) -> Tuned:
        """Tune to each of B images; afterwards, the adaptation's tensors are restored.

        Args:
            classifier: the adapted CLIP.
            x: activations `[B, V, ...]` at the image cut.
            text: class embeddings `[C, D]` before any step; None if they depend on the image.
            pixels: the views `[V, 3, height, width]` of each image, for a method with `scores`.

        Raises:
            UserError: the adaptation has no parameters to tune.
        """
        adaptation = classifier.adaptation
        self.check(adaptation)
        size = len(x) if adaptation.capabilities.supports_batched_params else 1
        groups = x.split(size)
        seen = [None if pixels is None else pixels[first : first + size] for first in range(0, len(x), size)]
        with rounding_anew(x.device):
            return joined([self._tune(classifier, some, text, own) for some, own in zip(groups, seen, strict=True)])

    def select(self, logits: Tensor) -> Tensor:
        """Return the indices `[B, K]` of the most confident views, given logits `[B, V, C]`."""
        return most_confident(logits, self.selection)

    @torch.no_grad()
    def choose(self, classifier: Classifier, x: Tensor, text: Tensor | None) -> Tensor:
        """Return the indices `[B, K]` of the views for the first step; arguments are those of `tune`."""
        return self.select(view_logits(classifier, x, text))

    def _tune(self, classifier: Classifier, x: Tensor, text: Tensor | None, pixels: Sequence[Tensor] | None) -> Tuned:
        """Tune to all images of a group at once; a group is one image without `supports_batched_params`."""
        adaptation = classifier.adaptation
        chosen = self.choose(classifier, x, text)
        scores = self.scores(classifier, pixels, chosen)
        with batched_parameters(adaptation, len(x)) as tensors:
            optimizer = torch.optim.AdamW(tensors.values(), lr=self.lr, weight_decay=self.weight_decay)
            steps = []
            for step in range(self.steps):
                if step and self.select_every_step:
                    with torch.no_grad():
                        chosen = self.select(view_outputs(classifier, x).logits)
                    scores = self.scores(classifier, pixels, chosen)
                values, gradients = self._step(classifier, gather_views(x, chosen), scores, tensors, optimizer)
                steps.append((values | {"selected": chosen}, gradients))
            with torch.no_grad():
                logits = self.predict(classifier, x)
            tuned = images_first(adaptation, tensors)
        values = {name: torch.stack([step[name] for step, _ in steps], dim=1) for name in steps[0][0]}
        return Tuned(logits, tuned, images_first(adaptation, steps[0][1]), values)

    def _step(
        self,
        classifier: Classifier,
        x: Tensor,
        scores: Tensor | None,
        tensors: Mapping[str, nn.Parameter],
        optimizer: torch.optim.AdamW,
    ) -> tuple[dict[str, Tensor], Tensors]:
        """Take one optimiser step on the selected views; return the values before the step, and the gradients."""
        with torch.enable_grad():
            values = self.values(replace(view_outputs(classifier, x), scores=scores))
            gradients = descend(values["objective"].sum(), tensors, optimizer)
        return {name: value.detach() for name, value in values.items()}, gradients


def view_outputs(classifier: Classifier, x: Tensor) -> ViewOutputs:
    """Compute the outputs for activations `[B, V, ...]`.

    B must be 1 if the adaptation doesn't have `supports_batched_params`.
    """
    if not classifier.adaptation.capabilities.supports_batched_params:
        output = classifier.output(x[0], classifier.image_cut)
        return ViewOutputs(output.logits[None], output.image[None], output.text[None])
    image, text = classifier.encode_image(x, classifier.image_cut), classifier.class_embeddings()
    logits = torch.stack([classifier.logits(*own) for own in zip(image, text, strict=True)])
    return ViewOutputs(logits, image, text)


def joined(parts: Sequence[Tuned]) -> Tuned:
    """Concatenate the results of several groups of images."""

    def join(tables: Sequence[Tensors]) -> Tensors:
        return {name: torch.cat([table[name] for table in tables]) for name in tables[0]}

    named = (join([getattr(part, field) for part in parts]) for field in ("tensors", "gradients", "values"))
    return Tuned(torch.cat([part.logits for part in parts]), *named)
