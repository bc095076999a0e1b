"""Base classes of objectives, and of rules that combine gradients or average weights beside the optimiser."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from torch import Tensor, nn

from clipadapt.backbone.dual_encoder import DualEncoder
from clipadapt.interfaces import SupportView

BackboneSpec = dict[Literal["name", "pretrained"], str | None]
"""A backbone's architecture name and pretrained weights."""


@dataclass(frozen=True)
class Output:
    """The outputs of a forward pass.

    Attributes:
        logits: logits, `[B, C]`.
        image: image features, `[B, D]`.
        text: class embeddings, `[C, D]` or `[B, C, D]`.
        frozen: function that computes the frozen tower's features `[B, D]` of the same images, without gradients. It
            starts at the image cut, so it costs nothing if the cut is `features`; at an earlier cut, an objective
            should rather use the backbone as a teacher.
        classify: function that computes logits `[N, C]` of any features `[N, D]` of the frozen tower; the adaptation's
            edits of image features are applied.
        teacher_features: features `[B, D]` of the same images from each of the objective's teachers.
        class_weights: weights `[C]` of the classes in the cross entropy; None for equal ones.
        heads: function that computes the weight of each head and its logits `[B, C]`, where the logits are a sum of
            those of several heads; None for a kind of task without them.
        text_logits: function that computes logits `[..., C, C]` of the class embeddings as samples; None in place of
            them where the adaptation has none.
        distance: function that computes the squared distance of the learned tensors from their initial values; given
            to every objective in a fit.
    """

    logits: Tensor
    image: Tensor
    text: Tensor
    frozen: Callable[[], Tensor]
    classify: Callable[[Tensor], Tensor]
    teacher_features: Sequence[Tensor] = ()
    class_weights: Tensor | None = None
    heads: Callable[[], Sequence[tuple[float, Tensor]]] | None = None
    text_logits: Callable[[], Tensor | None] = lambda: None
    distance: Callable[[], Tensor] | None = None

    def shifted(self, shift: Tensor) -> "Output":
        """Return the outputs with `shift [C]` added to all logits."""
        classify, heads, texts = self.classify, self.heads, self.text_logits
        return replace(
            self,
            logits=self.logits + shift,
            classify=lambda features: classify(features) + shift,
            heads=heads and (lambda: [(weight, logits + shift) for weight, logits in heads()]),
            text_logits=lambda: None if (found := texts()) is None else found + shift,
        )


class Objective(nn.Module):
    """An objective: named losses of a batch, whose sum is minimised.

    Each loss is the mean over the samples, so that gradient accumulation and several processes may split a batch. An
    objective that compares samples with each other, such as a contrastive loss, sets `needs_whole_batch`.

    Args:
        clip: the frozen backbone; the constructor reads from the backbone but stores no reference, except as a teacher.
        task: class names, templates, and features of the support set, for values that are computed from them once.

    Attributes:
        teachers: frozen backbones, possibly including the run's own, whose features of the same views the objective
            receives.
        teachers_see_others: whether the teachers see other random views of the same images than the student.
        needs_text_logits: whether the adaptation must have logits of class embeddings as samples, `text_logits`.
        needs_whole_batch: whether the losses are correct only if computed on all samples of a batch at once.
        needs_distance: whether the losses need the distance of the learned tensors from their initial values.
    """

    needs_text_logits = False
    needs_whole_batch = False
    needs_distance = False
    teachers_see_others = False
    teachers: Sequence[DualEncoder] = ()

    def __init__(self, clip: DualEncoder, task: SupportView) -> None:
        super().__init__()

    @classmethod
    def teachers_for(cls, settings: Mapping[str, Any]) -> Sequence[BackboneSpec]:
        """Return the backbones to load as teachers, given the other arguments of the constructor; none by default.

        The teachers are loaded before any image is encoded, so that a missing backbone is reported early.
        """
        return ()

    def use_teachers(self, teachers: Sequence[DualEncoder]) -> None:
        """Set the teachers that `teachers_for` requested.

        Args:
            teachers: frozen backbones, on the device, in the order of their specifications.
        """
        self.teachers = teachers

    def forward(self, output: Output, labels: Tensor) -> dict[str, Tensor]:
        """Compute the losses of a batch, by name.

        Args:
            output: outputs of the forward pass for the batch.
            labels: class indices, `[B]`.
        """
        raise NotImplementedError


class GradientRule:
    """A rule that combines the gradients of several losses, instead of summing the losses.

    Attributes:
        primary_loss: name of the primary loss, which is minimised and logged; the other losses only modify its
            gradient.
    """

    primary_loss: str

    def __call__(self, gradients: Mapping[str, Sequence[Tensor]]) -> list[Tensor]:
        """Combine the gradients of each loss, one per learned tensor, into the gradients for the optimiser."""
        raise NotImplementedError


class WeightAverage:
    """An average of the learned tensors over epochs, which replaces the last epoch's tensors."""

    def weights(self, epochs: int) -> list[float]:
        """Return the weights of the epochs, which sum to one; `epochs` is their number."""
        raise NotImplementedError
