"""What becomes of the gradients of several losses."""

from collections.abc import Mapping, Sequence
from typing import Annotated

import torch
from annotated_types import Ge
from torch import Tensor

from clipadapt.objectives.base import GradientRule


class ProjectedGradient(GradientRule):
    """ProGrad: a gradient that doesn't undo general knowledge (Zhu et al., ICCV 2023, arXiv:2205.14865, equation 5).

    Where the followed loss's gradient points against the other's, its part along the other is taken out; tensor by
    tensor.

    Args:
        strength: how much of that part.
        primary_loss: name of the loss that is followed.
        general: name of the loss that mustn't rise.
    """

    def __init__(
        self,
        strength: Annotated[float, Ge(0)] = 1.0,
        primary_loss: str = "cross_entropy",
        general: str = "distillation",
    ) -> None:
        self.strength = strength
        self.primary_loss = primary_loss
        self.general = general

    def __call__(self, gradients: Mapping[str, Sequence[Tensor]]) -> list[Tensor]:
        """The followed loss's gradients, projected where they conflict."""
        pairs = zip(gradients[self.primary_loss], gradients[self.general], strict=True)
        return [self._project(followed, general) for followed, general in pairs]

    def _project(self, followed: Tensor, general: Tensor) -> Tensor:
        norm = general.norm()
        direction = torch.where(norm > 0, general / norm, torch.zeros_like(general))
        along = (followed * direction).sum()
        return followed - self.strength * along.clamp(max=0) * direction
