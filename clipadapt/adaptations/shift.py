"""Learned shifts of class prototypes in feature space."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from clipadapt.adaptations.base import Capabilities, ZeroShot
from clipadapt.backbone.dual_encoder import DualEncoder
from clipadapt.errors import UserError
from clipadapt.interfaces import SupportView, Templates


class PrototypeShift(ZeroShot):
    """TPS: class prototypes that are scaled and shifted (Sui et al., WACV 2025, arXiv:2403.12952, section 3).

    A class embedding is the unit vector of `scale * prototype + shift`, where the prototype is zero-shot CLIP's class
    embedding. The shift `[C, D]` starts at zero and the scale `[C, D]` at one; both are `[D]` if classes share them.
    The text tower runs once.

    Args:
        clip: the frozen backbone.
        task: class names and templates.
        templates: sentences with `{}` to use instead of the task's.
        per_class: whether each class has a shift and a scale of its own.
        shift: whether the shift is learned.
        scale: whether the scale is learned.

    Raises:
        UserError: a template has no `{}`, or neither shift nor scale is learned.
    """

    capabilities = Capabilities(supports_batched_params=True)

    def __init__(
        self,
        clip: DualEncoder,
        task: SupportView,
        templates: Templates | None = None,
        per_class: bool = True,
        shift: bool = True,
        scale: bool = False,
    ) -> None:
        super().__init__(clip, task, templates)
        if not (shift or scale):
            raise UserError("shift=false and scale=false leave nothing to be learned: set one of them to true")
        if per_class:
            self.declare(fixed_classes=tuple(task.class_names))
        self.per_class = per_class
        shape = (len(task.class_names), clip.width or 0) if per_class else (clip.width or 0,)
        self.shift = nn.Parameter(torch.zeros(shape)) if shift else None
        self.scale = nn.Parameter(torch.ones(shape)) if scale else None

    def prototypes(self, text: Tensor) -> Tensor:
        """Return zero-shot CLIP's class embeddings `[..., C, D]` of text features `[..., C, templates, D]`."""
        return super().class_embeddings(text.float())

    def class_embeddings(self, text: Tensor) -> Tensor:
        """Return the prototypes, scaled, shifted and normalised, `[..., C, D]`."""
        moved = self.prototypes(text)
        moved = moved if self.scale is None else self._each(self.scale) * moved
        return functional.normalize(moved if self.shift is None else moved + self._each(self.shift), dim=-1)

    def _each(self, vectors: Tensor) -> Tensor:
        """Return vectors that broadcast with one for each class."""
        return vectors if self.per_class else vectors.unsqueeze(-2)
