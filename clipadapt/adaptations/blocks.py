"""Copies of the towers' blocks over the backbone's storage, for something to be put into."""

from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn

from clipadapt.backbone.attention import run_block, split_block
from clipadapt.backbone.open_clip import CLIP
from clipadapt.errors import MissingPoint, UserError

Which = Literal["image", "text", "both"]


def names(towers: Which) -> list[str]:
    """The towers meant."""
    return ["image", "text"] if towers == "both" else [towers]


def split_towers(clip: CLIP, towers: Which) -> nn.ModuleDict:
    """The blocks of towers over the backbone's own storage, with modules `image.block.0.attn.q_proj` and so on.

    Raises:
        MissingPoint: a tower without blocks.
    """
    for tower in names(towers):
        if not clip.tower(tower).blocks:
            points = ", ".join(clip.tower(tower).points)
            raise MissingPoint(f"the {tower} tower has no transformer blocks to put anything into (it has {points})")
    blocks = {tower: map(split_block, clip.tower(tower).blocks.values()) for tower in names(towers)}
    return nn.ModuleDict({tower: nn.ModuleDict({"block": nn.ModuleList(each)}) for tower, each in blocks.items()})


def with_any(blocks: Any, own: Mapping[str, Tensor]) -> dict[str, nn.Module]:
    """Of blocks, those that hold any of these tensors, by point."""
    ids = {id(x) for x in own.values()}
    held = {i: {id(x) for x in (*block.parameters(), *block.buffers())} for i, block in enumerate(blocks)}
    return {f"block.{i}": blocks[i] for i, found in held.items() if found & ids}


def drops(module: nn.Module) -> bool:
    """Whether a module drops activations in training."""
    return isinstance(module, nn.Dropout) and module.p > 0


def try_out(clip: CLIP, tower: str, blocks: Mapping[str, nn.Module]) -> None:
    """Run the first of these blocks on nothing.

    Raises:
        UserError: what is in it needs more than activations.
    """
    width = clip.image_width if tower == "image" else clip.text_width
    nothing = torch.zeros(1, 2, width or 0, device=clip.device, dtype=clip.dtype)
    rounded = clip.dtype != torch.float32
    for block in list(blocks.values())[:1]:
        try:
            with torch.no_grad(), torch.autocast(clip.device.type, clip.dtype if rounded else None, enabled=rounded):
                run_block(block, nothing)
        except Exception as error:  # of whatever kind
            said = " ".join(str(error).split())
            raise UserError(f"this doesn't run in the blocks of the {tower} tower: {said}") from error
