"""Rules that combine the gradients of several losses."""

from collections.abc import Mapping, Sequence
from typing import Annotated

import torch
from annotated_types import Ge
from torch import Tensor

from clipadapt.objectives.base import GradientRule


class ProjectedGradient(GradientRule):
    """ProGrad: projection of conflicting gradients (Zhu et al., ICCV 2023, arXiv:2205.14865, equation 5).

    If the gradients of the primary and the general loss have a negative inner product, the component of the primary
    gradient along the general gradient is removed. This is done for each tensor separately.

    Args:
        strength: share of the conflicting component that is removed.
        primary_loss: name of the loss that is minimised.
        general: name of the loss that the step must not increase.
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
        """Return the primary loss's gradients, projected if they conflict with the general loss's."""
        pairs = zip(gradients[self.primary_loss], gradients[self.general], strict=True)
        return [self._project(followed, general) for followed, general in pairs]

    def _project(self, followed: Tensor, general: Tensor) -> Tensor:
        norm = general.norm()
        direction = torch.where(norm > 0, general / norm, torch.zeros_like(general))
        along = (followed * direction).sum()
        return followed - self.strength * along.clamp(max=0) * direction
