"""Adaptations of what enters the image tower."""

from collections.abc import Mapping
from typing import Annotated

import torch
from annotated_types import Ge
from torch import Tensor, nn

from clipadapt.adaptations.base import Adaptation, Edit, TaskLike
from clipadapt.backbone.clip import CLIP
from clipadapt.errors import UserError


class Padding(Adaptation):
    """Visual prompting: a frame of learned pixels added to the normalised image (Bahng et al. 2022, arXiv:2203.17274).

    Four strips, starting standard normal: `top` and `bottom` `[1, 3, size, width]`, `left` and `right`
    `[1, 3, height - 2 * size, size]`. Nothing is clamped or masked.

    Args:
        clip: the frozen backbone.
        task: class names and templates.
        size: width of the frame in pixels; where None, the authors' share of the image: 30 of 224.

    Raises:
        UserError: the frame leaves nothing of the image free.
    """

    def __init__(self, clip: CLIP, task: TaskLike, size: Annotated[int, Ge(1)] | None = None) -> None:
        super().__init__(clip, task)
        sides = clip.preprocess["size"]
        height, width = (sides, sides) if isinstance(sides, int) else sides
        size = size or max(1, round(min(height, width) * 30 / 224))
        if 2 * size >= min(height, width):
            raise UserError(
                f"a frame of {size} pixels covers the whole image of {height} x {width}: choose a smaller size"
            )
        self.top = nn.Parameter(torch.randn(1, 3, size, width))
        self.bottom = nn.Parameter(torch.randn(1, 3, size, width))
        self.left = nn.Parameter(torch.randn(1, 3, height - 2 * size, size))
        self.right = nn.Parameter(torch.randn(1, 3, height - 2 * size, size))

    def image_edits(self) -> Mapping[str, Edit]:
        """Adds the frame to the pixels."""
        return {"pixels": lambda pixels: pixels + self.canvas()[0]}

    def canvas(self) -> Tensor:
        """The frame as an image that is zero inside, `[1, 3, height, width]`."""
        inside = self.left.new_zeros(*self.left.shape[:3], self.top.shape[3] - 2 * self.top.shape[2])
        middle = torch.cat([self.left, inside, self.right], dim=3)
        return torch.cat([self.top, middle, self.bottom], dim=2)
