"""What every objective gets and gives; and what may change gradients and weights beside the optimiser."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor, nn

from clipadapt.backbone.dual_encoder import DualEncoder
from clipadapt.interfaces import SupportView

BackboneSpec = dict[Literal["name", "pretrained"], str | None]
"""Which backbone, and which of its weights."""


@dataclass(frozen=True)
class Output:
    """What a forward pass yields.

    Attributes:
        logits: `[B, C]`.
        image: image features, `[B, D]`.
        text: class embeddings, `[C, D]` or `[B, C, D]`.
        frozen: computes the features `[B, D]` that the tower without its edits has of the same images, without
            gradients: from the image cut on, so it costs nothing where that is `features`. Elsewhere let the backbone
            be a teacher.
        classify: any features `[N, D]`, as they leave the frozen tower, to logits `[N, C]`: through the adaptation's
            edits of image features.
        teacher_features: features `[B, D]` that each of the objective's teachers has of the same views.
    """

    logits: Tensor
    image: Tensor
    text: Tensor
    frozen: Callable[[], Tensor]
    classify: Callable[[Tensor], Tensor]
    teacher_features: Sequence[Tensor] = ()


class Objective(nn.Module):
    """Named losses of a batch; their sum is minimised.

    Each is the mean over the samples, so that gradient accumulation and several processes may split a batch. One that
    compares samples with each other, as a contrastive loss does, sets `needs_whole_batch`.

    Args:
        clip: the frozen backbone; read, not kept.
        task: class names, templates, and features of the support set for what is computed once from them.

    Attributes:
        teachers: frozen backbones, the run's own maybe among them, whose features of the same views it gets.
        needs_whole_batch: whether the losses are right only on all samples of a batch at once.
    """

    needs_whole_batch = False
    teachers: Sequence[DualEncoder] = ()

    def __init__(self, clip: DualEncoder, task: SupportView) -> None:
        super().__init__()

    @classmethod
    def teachers_for(cls, settings: Mapping[str, Any]) -> Sequence[BackboneSpec]:
        """Return which backbones to load as teachers, given the other arguments of the constructor; none usually.

        It is asked before anything is encoded, so that a backbone that is missing is reported first.
        """
        return ()

    def use_teachers(self, teachers: Sequence[DualEncoder]) -> None:
        """Take the teachers that `teachers_for` asked for.

        Args:
            teachers: frozen backbones, on the device, in the order of their specifications.
        """
        self.teachers = teachers

    def forward(self, output: Output, labels: Tensor) -> dict[str, Tensor]:
        """Losses by name.

        Args:
            output: of the batch.
            labels: class indices, `[B]`.
        """
        raise NotImplementedError


class GradientRule:
    """What becomes of the gradients of several losses, in the place of their sum's.

    Attributes:
        primary_loss: name of the loss that is followed and logged; the others only bend its gradient.
    """

    primary_loss: str

    def __call__(self, gradients: Mapping[str, Sequence[Tensor]]) -> list[Tensor]:
        """What the optimiser gets, given the gradients of each loss, one tensor per learned tensor."""
        raise NotImplementedError


class WeightAverage:
    """An average of what was learned after each epoch, which takes the place of the last epoch's."""

    def weights(self, epochs: int) -> list[float]:
        """Weight of each of so many epochs; they sum to one."""
        raise NotImplementedError
