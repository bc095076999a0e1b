"""Learned prompt tokens in the image tower, alone or projected from the text tower's."""

from collections.abc import Mapping
from functools import partial
from typing import Annotated

import torch
from annotated_types import Ge
from torch import Tensor, nn

from clipadapt.adaptations.base import Adaptation, Edit
from clipadapt.adaptations.context import DeepContext, Depth
from clipadapt.backbone.dual_encoder import DualEncoder
from clipadapt.interfaces import SupportView


class ImageTokens(Adaptation):
    """VPT as in MaPLe's code: tokens after the patches (Jia et al., ECCV 2022, arXiv:2203.12119, section 3.2).

    The tokens are appended before the first layer norm, without positional embeddings. Each deeper block replaces them
    by its own tokens.

    Args:
        clip: the frozen backbone.
        task: class names and templates.
        n_tokens: number of tokens in each block.
        depth: number of blocks, 1 for VPT-shallow, "all", or None for three quarters: 9 of 12.

    Attributes:
        tokens: the tokens, `[depth, n_tokens, W]`; they start normally distributed with standard deviation 0.02.

    Raises:
        UserError: `depth` exceeds the number of image blocks, or the image tower has no tokens.
    """

    required_points: tuple[str, ...] = ("image.patches", "image.block.0")

    def __init__(
        self, clip: DualEncoder, task: SupportView, n_tokens: Annotated[int, Ge(1)] = 4, depth: Depth = None
    ) -> None:
        super().__init__(clip, task)
        self.points = image_points(clip, depth)
        self.tokens = nn.Parameter(0.02 * torch.randn(len(self.points), n_tokens, clip.image_width or 0))

    def edits(self, tower: str, image: Tensor | None = None) -> Mapping[str, Edit]:
        """Return the edits that append the first block's tokens to the patches and replace them in deeper blocks."""
        return token_edits(self.points, self.tokens) if tower == "image" else {}


class CoupledPrompts(DeepContext):
    """MaPLe: image tokens projected from the text's (Khattak et al., CVPR 2023, arXiv:2210.03117, section 3.2).

    Args:
        clip: the frozen backbone.
        task: class names.
        n_ctx: number of tokens in each block, the same in both towers.
        depth: number of blocks, the same in both towers, "all", or None for three quarters: 9 of 12.
        words: as for `DeepContext`.

    Attributes:
        projection_weight: projection weights of each block, `[depth, image W, text W]`; all blocks after the first
            start with the same weights.
        projection_bias: projection biases of each block, `[depth, image W]`.

    Raises:
        UserError: as for `DeepContext` and `ImageTokens`.
    """

    required_points: tuple[str, ...] = (*DeepContext.required_points, *ImageTokens.required_points)

    def __init__(
        self,
        clip: DualEncoder,
        task: SupportView,
        n_ctx: Annotated[int, Ge(1)] = 2,
        depth: Depth = None,
        words: str | None = "a photo of a",
    ) -> None:
        super().__init__(clip, task, n_ctx, depth, words)
        count = len(self.points)
        self.image_points = image_points(clip, count)
        layers = [nn.Linear(clip.text_width or 0, clip.image_width or 0) for _ in range(min(count, 2))]
        layers += layers[-1:] * (count - len(layers))
        self.projection_weight = nn.Parameter(torch.stack([layer.weight.detach() for layer in layers]))
        self.projection_bias = nn.Parameter(torch.stack([layer.bias.detach() for layer in layers]))

    def edits(self, tower: str, image: Tensor | None = None) -> Mapping[str, Edit]:
        """Return the edits that write the context into the prompts and the projected context into the image tokens."""
        if tower != "image":
            return super().edits(tower, image)
        return token_edits(self.image_points, self.context @ self.projection_weight.mT + self.projection_bias[:, None])


def image_points(clip: DualEncoder, depth: Depth) -> list[str]:
    """Return the points of the image tower at which prompt tokens of the first blocks are written.

    Raises:
        UserError: the image tower has no tokens, or fewer blocks than `depth`.
    """
    clip.image.cut(["patches"])
    return ["patches", *clip.image.first_blocks(depth)[1:]]


def token_edits(points: list[str], tokens: Tensor) -> dict[str, Edit]:
    """Return edits that append tokens `[depth, n, W]` at the first point and replace the last n at the others."""
    first, *deeper = points
    edits: dict[str, Edit] = {first: partial(append, tokens=tokens[0])}
    return edits | {point: partial(replace_last, tokens=tokens[i]) for i, point in enumerate(deeper, start=1)}


def append(x: Tensor, tokens: Tensor) -> Tensor:
    """Append tokens `[n, W]` to the tokens of `x [..., T, W]`."""
    return torch.cat([x, tokens.to(x.dtype).expand(*x.shape[:-2], -1, -1)], dim=-2)


def replace_last(x: Tensor, tokens: Tensor) -> Tensor:
    """Replace the last n tokens of `x [..., T, W]` by tokens `[n, W]`."""
    return append(x[..., : x.shape[-2] - len(tokens), :], tokens)
