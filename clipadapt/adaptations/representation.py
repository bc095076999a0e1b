"""Tokens of a space of their own in the upper blocks of both towers, which a head of their own reads."""

from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any

import torch
from annotated_types import Ge, Interval, MinLen
from torch import Tensor, nn

from clipadapt.adaptations.base import Adaptation, Capabilities, Edit, Head
from clipadapt.backbone.dual_encoder import DualEncoder
from clipadapt.backbone.rows import Rows
from clipadapt.backbone.towers import reading_first
from clipadapt.errors import UserError
from clipadapt.interfaces import SupportView


class RepresentationTokens(Adaptation):
    """MMRL: tokens of a shared space in both towers (Guo & Gu, CVPR 2025, arXiv:2503.08497).

    Each chosen block has a linear map from the space to either tower. The first one inserts the mapped tokens after the
    class token or the start token, without positions; the others replace them. The logits mix those of the class token
    and those of the mean over the tokens, which have a projection of their own, against the same text. Logits of
    classes that weren't learned are those of the class token alone.

    Args:
        clip: the frozen backbone.
        task: class names and templates.
        blocks: numbers of the blocks with tokens, counted from 1; None for the upper half of both towers: 6 to 12 of
            12.
        n_tokens: number of tokens.
        inner: channels of the shared space.
        alpha: weight of the class token's logits; those of the tokens have the rest.

    Attributes:
        tokens: the tokens, `[n_tokens, inner]`; they start normally distributed with standard deviation 0.02.
        projection: projection of the tokens' outputs, `[image W, D]`; it starts normal with deviation W ** -0.5.

    Raises:
        UserError: a tower has no blocks or not those, or the image tower isn't read at a class token.
    """

    capabilities = Capabilities(several_features=True)
    required_points = ("image.block.0", "text.block.0")

    def __init__(
        self,
        clip: DualEncoder,
        task: SupportView,
        blocks: Annotated[list[Annotated[int, Ge(1)]], MinLen(1)] | None = None,
        n_tokens: Annotated[int, Ge(1)] = 5,
        inner: Annotated[int, Ge(1)] = 512,
        alpha: Annotated[float, Interval(ge=0, le=1)] = 0.7,
    ) -> None:
        super().__init__(clip, task)
        self.alpha = alpha
        numbers, width = chosen_blocks(clip, blocks), clip.image_width or 0
        last = reading_first(clip.image, 1 + n_tokens)
        norm = next(part for part in clip.image.weights["tokens"] if isinstance(part, nn.LayerNorm))
        # in a dict, so that torch doesn't register the frozen norm
        self.held: dict[str, Any] = {"last": last, "norm": norm, "read": clip.image.stages["tokens"]}
        self.last_point = [*clip.image.blocks][-1]
        self.tokens = nn.Parameter(0.02 * torch.randn(n_tokens, inner))
        self.to_text = nn.ModuleDict({str(number): nn.Linear(inner, clip.text_width or 0) for number in numbers})
        self.to_image = nn.ModuleDict({str(number): nn.Linear(inner, width) for number in numbers})
        self.projection = nn.Parameter(width**-0.5 * torch.randn(width, clip.width or 0))

    def edits(self, tower: str, image: Tensor | None = None) -> Mapping[str, Edit]:
        """Return the edits that insert the mapped tokens at the first block and replace them at the others."""
        maps = self.to_text if tower == "text" else self.to_image
        insert, replace = (Rows.insert, Rows.replace_inserted) if tower == "text" else (insert_tokens, replace_tokens)
        edits: dict[str, Edit] = {}
        for number, layer in maps.items():
            edits[f"block.{int(number) - 1}"] = _with(replace if edits else insert, layer(self.tokens))
        return edits

    def stages(self, tower: str) -> Mapping[str, Edit]:
        """Return the image tower's last stages, which compute and read the tokens as well."""
        return {self.last_point: self.held["last"], "tokens": self.read} if tower == "image" else {}

    def read(self, x: Tensor) -> Tensor:
        """Return the features `[..., 2, D]` of the class token and of the mean over the tokens `[..., 1 + n, W]`."""
        own = self.held["norm"](x[..., 1:, :]).mean(dim=-2) @ self.projection
        return torch.stack([self.held["read"](x[..., :1, :]), own], dim=-2)

    def heads(self, image: Tensor, text: Tensor, scale: float) -> list[Head]:
        """Return the weights and the logits `[B, C]` of class token and tokens, for image features `[B, 2, D]`."""
        own = [super(RepresentationTokens, self).logits(image[:, i], text, scale) for i in range(2)]
        return [*zip((self.alpha, 1 - self.alpha), own, strict=True)]

    def logits(self, image: Tensor, text: Tensor, scale: float) -> Tensor:
        """Return logits `[B, C]`, the weighted sum of both heads'."""
        return torch.stack([weight * logits for weight, logits in self.heads(image, text, scale)]).sum(dim=0)

    def logits_of_unseen(self, image: Tensor, text: Tensor, scale: float) -> Tensor:
        """Return logits `[B, C]` of the class token alone."""
        return super().logits(image[:, 0], text, scale)


def chosen_blocks(clip: DualEncoder, blocks: Sequence[int] | None) -> list[int]:
    """Return numbers of blocks that both towers have, ascending and counted from 1; None for the upper half.

    Raises:
        UserError: a tower has no block of a number.
    """
    count = min(len(clip.tower(tower).blocks) for tower in ("image", "text"))
    chosen = sorted({*(blocks or range(max(1, count // 2), count + 1))})
    if blocks is not None and chosen[-1] > count:
        raise UserError(f"method.adaptation.blocks={[*blocks]} has a number beyond the {count} blocks of both towers")
    return chosen


def _with(edit: Callable[[Any, Tensor], Any], vectors: Tensor) -> Edit:
    return lambda x: edit(x, vectors)


def insert_tokens(x: Tensor, tokens: Tensor, left_out: int = 0) -> Tensor:
    """Insert tokens `[n, W]` after the first of `x [..., T, W]`, in the place of the `left_out` tokens there."""
    own = tokens.to(x.dtype).expand(*x.shape[:-2], -1, -1)
    return torch.cat([x[..., :1, :], own, x[..., 1 + left_out :, :]], dim=-2)


def replace_tokens(x: Tensor, tokens: Tensor) -> Tensor:
    """Replace the n tokens after the first of `x [..., T, W]` by tokens `[n, W]`."""
    return insert_tokens(x, tokens, len(tokens))
