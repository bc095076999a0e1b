"""Adaptations of the input pixels."""

from collections.abc import Mapping
from typing import Annotated

import torch
from annotated_types import Ge, Len
from torch import Tensor, nn

from clipadapt.adaptations.base import Adaptation, Edit
from clipadapt.backbone.dual_encoder import DualEncoder
from clipadapt.errors import UserError
from clipadapt.interfaces import SupportView


class PixelFrame(Adaptation):
    """Visual prompting: a frame of learned pixels added to the normalised image (Bahng et al. 2022, arXiv:2203.17274).

    The frame has four strips, which start standard normal: `top` and `bottom` `[1, 3, size, width]`, `left` and `right`
    `[1, 3, height - 2 * size, size]`. The sum is not clamped or masked.

    Args:
        clip: the frozen backbone.
        task: class names and templates.
        size: width of the frame in pixels; if None, the authors' share of the image, 30 of 224 pixels.

    Raises:
        UserError: the frame covers the whole image.
    """

    def __init__(self, clip: DualEncoder, task: SupportView, size: Annotated[int, Ge(1)] | None = None) -> None:
        super().__init__(clip, task)
        height, width = clip.image_size
        size = size or default_size(height, width)
        if 2 * size >= min(height, width):
            raise UserError(
                f"a frame of {size} pixels covers the whole image of {height} x {width}: choose a smaller size"
            )
        self.top = nn.Parameter(torch.randn(1, 3, size, width))
        self.bottom = nn.Parameter(torch.randn(1, 3, size, width))
        self.left = nn.Parameter(torch.randn(1, 3, height - 2 * size, size))
        self.right = nn.Parameter(torch.randn(1, 3, height - 2 * size, size))

    def edits(self, tower: str, image: Tensor | None = None) -> Mapping[str, Edit]:
        """Return the edit that adds the frame to the pixels."""
        return {"pixels": lambda pixels: pixels + self.canvas()[0]} if tower == "image" else {}

    def canvas(self) -> Tensor:
        """Return the frame as an image `[1, 3, height, width]` that is zero inside the frame."""
        inside = self.left.new_zeros(*self.left.shape[:3], self.top.shape[3] - 2 * self.top.shape[2])
        middle = torch.cat([self.left, inside, self.right], dim=3)
        return torch.cat([self.top, middle, self.bottom], dim=2)


class Patch(Adaptation):
    """Visual prompting: a square of learned pixels added to the normalised image (Bahng et al. 2022, arXiv:2203.17274).

    Args:
        clip: the frozen backbone.
        task: class names and templates.
        size: side of the square in pixels; if None, the authors' share of the image, 30 of 224 pixels.
        offset: row and column of the square's upper left corner. If None, they are drawn at random in every forward
            pass, once for the whole batch, at evaluation as well; as in the authors' code, the last possible row and
            column are never drawn.

    Attributes:
        patch: the square, `[1, 3, size, size]`; it starts standard normal.

    Raises:
        UserError: the square exceeds the image.
    """

    def __init__(
        self,
        clip: DualEncoder,
        task: SupportView,
        size: Annotated[int, Ge(1)] | None = None,
        offset: Annotated[list[Annotated[int, Ge(0)]], Len(2, 2)] | None = None,
    ) -> None:
        super().__init__(clip, task)
        self.sides = clip.image_size
        size = size or default_size(*self.sides)
        if any(size + start > side for start, side in zip(offset or (1, 1), self.sides, strict=True)):
            raise UserError(
                f"a square of {size} pixels{f' at {offset}' if offset else ''} is more than fits in an image of "
                f"{self.sides[0]} x {self.sides[1]}: choose a smaller size or offset"
            )
        self.offset = offset
        self.patch = nn.Parameter(torch.randn(1, 3, size, size))

    def edits(self, tower: str, image: Tensor | None = None) -> Mapping[str, Edit]:
        """Return the edit that adds the square to the pixels."""
        return {"pixels": lambda pixels: pixels + self.canvas()[0]} if tower == "image" else {}

    def canvas(self) -> Tensor:
        """Return the square in an image of zeros, `[1, 3, height, width]`."""
        rows, columns = (self._places(axis) for axis in (0, 1))
        return rows @ self.patch @ columns.mT

    def _places(self, axis: int) -> Tensor:
        """Return a matrix of zeros and ones `[side, size]` that places the square's rows (or columns) in the image."""
        size, side, device = self.patch.shape[-1], self.sides[axis], self.patch.device
        start = torch.randint(side - size, (), device=device) if self.offset is None else self.offset[axis]
        places = start + torch.arange(size, device=device)
        return (torch.arange(side, device=device)[:, None] == places).to(self.patch.dtype)


def default_size(height: int, width: int) -> int:
    """Return the authors' prompt size, 30 of 224 pixels, scaled to an image's shorter side."""
    return max(1, round(min(height, width) * 30 / 224))
