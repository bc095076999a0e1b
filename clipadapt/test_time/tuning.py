"""Test-time tuning: learned tensors are tuned to each test image, without labels."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated

import torch
from annotated_types import Ge, Gt, Interval
from torch import Tensor, nn
from torch.nn import functional

from clipadapt.errors import UserError
from clipadapt.tasks.classification import Classifier
from clipadapt.test_time.base import TestTimeMethod
from clipadapt.test_time.copies import batched_parameters, images_first, rounding_anew
from clipadapt.test_time.views import (
    Count,
    averaged,
    entropy,
    gather_views,
    most_confident,
    view_logits,
)

Tensors = Mapping[str, Tensor]


@dataclass(frozen=True)
class Tuned:
    """The result of tuning to B images.

    Attributes:
        logits: logits of the first view of each image, `[B, C]`.
        tensors: the learned tensors as tuned to each image, `[B, ...]` by name.
        gradients: gradients of the objective in the first step, by the same names.
        values: `entropy`, `dispersion` and `objective` before each step, `[B, steps]`.
    """

    logits: Tensor
    tensors: Tensors
    gradients: Tensors
    values: Tensors


class PromptTuning(TestTimeMethod):
    """TPT: test-time prompt tuning by entropy minimisation (Shu et al., NeurIPS 2022, arXiv:2209.07511).

    The views of lowest entropy are selected before the first step. The objective is the entropy of their mean
    probability; C-TPT (Yoon et al., ICLR 2024, arXiv:2403.14119) subtracts the weighted dispersion of the class
    embeddings. The logits are those of the first view after tuning.

    Tuning starts from the learned tensors for every image, with a new AdamW. Since AdamW's update is elementwise,
    several images are tuned to at once, each with its own tensors, if the adaptation has `supports_batched_params`.

    Args:
        views: number of views of each image: the centre crop, then random crops.
        images: number of images that are tuned to at once.
        selection: share of the views that are used.
        steps: number of optimiser steps.
        lr: learning rate.
        weight_decay: decoupled weight decay.
        dispersion_weight: weight of the dispersion; 0 for TPT.
    """

    def __init__(
        self,
        views: Count = 64,
        images: Count = 8,
        selection: Annotated[float, Interval(gt=0, le=1)] = 0.1,
        steps: Count = 1,
        lr: Annotated[float, Gt(0)] = 0.005,
        weight_decay: Annotated[float, Ge(0)] = 0.01,
        dispersion_weight: Annotated[float, Ge(0)] = 0.0,
    ) -> None:
        super().__init__(views, images)
        self.selection = selection
        self.steps = steps
        self.lr, self.weight_decay = lr, weight_decay
        self.dispersion_weight = dispersion_weight

    def logits(self, classifier: Classifier, x: Tensor, text: Tensor | None = None) -> Tensor:
        """Compute logits `[B, C]` of activations `[B, V, ...]`; arguments and errors are those of `tune`."""
        return self.tune(classifier, x, text).logits

    def tune(self, classifier: Classifier, x: Tensor, text: Tensor | None = None) -> Tuned:
        """Tune to each of B images; afterwards, the adaptation's tensors are restored.

        Args:
            classifier: the adapted CLIP.
            x: activations `[B, V, ...]` at the image cut.
            text: class embeddings `[C, D]` before any step; None if they depend on the image.

        Raises:
            UserError: the adaptation has no parameters to tune.
        """
        adaptation = classifier.adaptation
        if not adaptation.has_parameters:
            raise UserError(
                "there is nothing to tune at test time, as this adaptation learns nothing: take one that does, such as "
                "adaptation@method.adaptation=context"
            )
        groups = x.split(len(x) if adaptation.capabilities.supports_batched_params else 1)
        with rounding_anew(x.device):
            return joined([self._tune(classifier, some, text) for some in groups])

    def select(self, logits: Tensor) -> Tensor:
        """Return the indices `[B, K]` of the most confident views, given logits `[B, V, C]`."""
        return most_confident(logits, self.selection)

    def values(self, logits: Tensor, text: Tensor) -> dict[str, Tensor]:
        """Compute the objective and its terms, each `[B]`.

        Args:
            logits: logits of the selected views, `[B, K, C]`.
            text: class embeddings, `[B, ..., C, D]`.
        """
        parts = {
            "entropy": entropy(averaged(logits)),
            "dispersion": dispersion(text).reshape(len(text), -1).mean(dim=1),
        }
        return parts | {"objective": parts["entropy"] - self.dispersion_weight * parts["dispersion"]}

    def _tune(self, classifier: Classifier, x: Tensor, text: Tensor | None) -> Tuned:
        """Tune to all images of a group at once; a group is one image without `supports_batched_params`."""
        adaptation = classifier.adaptation
        with torch.no_grad():
            chosen = gather_views(x, self.select(view_logits(classifier, x, text)))
        with batched_parameters(adaptation, len(x)) as tensors:
            optimizer = torch.optim.AdamW(tensors.values(), lr=self.lr, weight_decay=self.weight_decay)
            steps = [self._step(classifier, chosen, tensors, optimizer) for _ in range(self.steps)]
            with torch.no_grad():
                logits, _ = logits_and_text(classifier, x[:, :1])
            tuned = images_first(adaptation, tensors)
        values = {name: torch.stack([step[name] for step, _ in steps], dim=1) for name in steps[0][0]}
        return Tuned(logits[:, 0], tuned, images_first(adaptation, steps[0][1]), values)

    def _step(
        self, classifier: Classifier, chosen: Tensor, tensors: Mapping[str, nn.Parameter], optimizer: torch.optim.AdamW
    ) -> tuple[Tensors, Tensors]:
        """Take one optimiser step; return the values before the step, and the gradients."""
        with torch.enable_grad():
            values = self.values(*logits_and_text(classifier, chosen))
            found = torch.autograd.grad(values["objective"].sum(), [*tensors.values()], materialize_grads=True)
        gradients = dict(zip(tensors, found, strict=True))
        for name, tensor in tensors.items():
            tensor.grad = gradients[name]
        optimizer.step()
        return {name: value.detach() for name, value in values.items()}, gradients


def logits_and_text(classifier: Classifier, x: Tensor) -> tuple[Tensor, Tensor]:
    """Compute logits `[B, V, C]` and class embeddings `[B, ..., C, D]`, given activations `[B, V, ...]`.

    B must be 1 if the adaptation doesn't have `supports_batched_params`.
    """
    if not classifier.adaptation.capabilities.supports_batched_params:
        output = classifier.output(x[0], classifier.image_cut)
        return output.logits[None], output.text[None]
    image, text = classifier.encode_image(x, classifier.image_cut), classifier.class_embeddings()
    return torch.stack([classifier.logits(*own) for own in zip(image, text, strict=True)]), text


def dispersion(text: Tensor) -> Tensor:
    """Compute the mean distance `[...]` of unit class embeddings `[..., C, D]` from their mean."""
    text = functional.normalize(text.float(), dim=-1)
    return (text - text.mean(dim=-2, keepdim=True)).norm(dim=-1).mean(dim=-1)


def joined(parts: Sequence[Tuned]) -> Tuned:
    """Concatenate the results of several groups of images."""

    def join(tables: Sequence[Tensors]) -> Tensors:
        return {name: torch.cat([table[name] for table in tables]) for name in tables[0]}

    return Tuned(
        torch.cat([part.logits for part in parts]),
        join([part.tensors for part in parts]),
        join([part.gradients for part in parts]),
        join([part.values for part in parts]),
    )
