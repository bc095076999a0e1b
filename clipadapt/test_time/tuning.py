"""Learned tensors tuned afresh for each test image, without a label."""

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
    """What tuning to B images yields.

    Attributes:
        logits: of the first view of each image, `[B, C]`.
        tensors: what was learned, as tuned to each image, `[B, ...]` by name.
        gradients: of the objective at the first step, by the same names.
        values: `entropy`, `dispersion` and `objective` before each step, `[B, steps]`.
    """

    logits: Tensor
    tensors: Tensors
    gradients: Tensors
    values: Tensors


class PromptTuning(TestTimeMethod):
    """TPT: steps on the entropy of the mean of an image's surest views (Shu et al., NeurIPS 2022, arXiv:2209.07511).

    The views of lowest entropy are chosen before the first step; minimised is the entropy of their mean probability,
    in C-TPT (Yoon et al., ICLR 2024, arXiv:2403.14119) less the weighted dispersion of the class
    embeddings. The answer is the first view's.
    Every image starts from what was learned, with a new AdamW. As its update goes element by element,
    several images are tuned to at once, with tensors of their own, where the adaptation has `supports_batched_params`.

    Args:
        views: of each image: the centre crop, then random ones.
        images: that are tuned to at once.
        selection: share of the views that are kept.
        steps: of the optimiser.
        lr: its learning rate.
        weight_decay: its decoupled weight decay.
        dispersion_weight: of the dispersion; 0 is TPT.
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
        """Activations at the image cut `[B, V, ...]` to logits `[B, C]`; arguments and errors as of `tune`."""
        return self.tune(classifier, x, text).logits

    def tune(self, classifier: Classifier, x: Tensor, text: Tensor | None = None) -> Tuned:
        """Tune to each of B images; the adaptation is as before afterwards.

        Args:
            classifier: CLIP through an adaptation.
            x: activations `[B, V, ...]` at the image cut.
            text: class embeddings `[C, D]` before any step; None where they depend on the image.

        Raises:
            UserError: nothing is learned that could be tuned.
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
        """Indices `[B, K]` of the views that are kept, given logits `[B, V, C]`."""
        return most_confident(logits, self.selection)

    def values(self, logits: Tensor, text: Tensor) -> dict[str, Tensor]:
        """What is minimised, and its parts, each `[B]`.

        Args:
            logits: of the views that are kept, `[B, K, C]`.
            text: class embeddings, `[B, ..., C, D]`.
        """
        parts = {
            "entropy": entropy(averaged(logits)),
            "dispersion": dispersion(text).reshape(len(text), -1).mean(dim=1),
        }
        return parts | {"objective": parts["entropy"] - self.dispersion_weight * parts["dispersion"]}

    def _tune(self, classifier: Classifier, x: Tensor, text: Tensor | None) -> Tuned:
        """Tune to all images at once; or to one."""
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
        """One step; what was minimised before it, and the gradients."""
        with torch.enable_grad():
            values = self.values(*logits_and_text(classifier, chosen))
            found = torch.autograd.grad(values["objective"].sum(), [*tensors.values()], materialize_grads=True)
        gradients = dict(zip(tensors, found, strict=True))
        for name, tensor in tensors.items():
            tensor.grad = gradients[name]
        optimizer.step()
        return {name: value.detach() for name, value in values.items()}, gradients


def logits_and_text(classifier: Classifier, x: Tensor) -> tuple[Tensor, Tensor]:
    """Logits `[B, V, C]` of activations `[B, V, ...]` and class embeddings `[B, ..., C, D]`.

    One image alone, where the adaptation doesn't take tensors for each of several.
    """
    if not classifier.adaptation.capabilities.supports_batched_params:
        output = classifier.output(x[0], classifier.image_cut)
        return output.logits[None], output.text[None]
    image, text = classifier.encode_image(x, classifier.image_cut), classifier.class_embeddings()
    return torch.stack([classifier.logits(*own) for own in zip(image, text, strict=True)]), text


def dispersion(text: Tensor) -> Tensor:
    """Mean distance of unit class embeddings `[..., C, D]` from their mean, `[...]`."""
    text = functional.normalize(text.float(), dim=-1)
    return (text - text.mean(dim=-2, keepdim=True)).norm(dim=-1).mean(dim=-1)


def joined(parts: Sequence[Tuned]) -> Tuned:
    """What tuning to several groups of images yielded, as one."""

    def join(tables: Sequence[Tensors]) -> Tensors:
        return {name: torch.cat([table[name] for table in tables]) for name in tables[0]}

    return Tuned(
        torch.cat([part.logits for part in parts]),
        join([part.tensors for part in parts]),
        join([part.gradients for part in parts]),
        join([part.values for part in parts]),
    )
