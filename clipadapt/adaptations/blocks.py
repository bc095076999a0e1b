"""Modules in the place of a tower's stages, over the backbone's storage: what all such adaptations share."""

from collections.abc import Mapping
from typing import Any, Literal, Self

import torch
from torch import Tensor, nn

from clipadapt.adaptations.base import Adaptation, Edit
from clipadapt.backbone.attention import Block, run_block, split_block
from clipadapt.backbone.dual_encoder import DualEncoder
from clipadapt.errors import MissingPoint, UserError
from clipadapt.interfaces import SupportView

Which = Literal["image", "text", "both"]


class StageReplacement(Adaptation):
    """An adaptation that replaces stages of the towers with modules over the frozen weights' storage.

    These aren't its submodules, or frozen weights would count as learned: it registers what is its own of them.

    Attributes:
        replaced: by tower and point, what stands where a frozen stage stood.
        start: by name, what `interpolate` moves registered tensors towards; empty where there is no such way back.
    """

    def __init__(self, clip: DualEncoder, task: SupportView) -> None:
        super().__init__(clip, task)
        self.replaced: dict[str, dict[str, Any]] = {}
        self.start: dict[str, Tensor] = {}

    def register(self, own: Mapping[str, Tensor]) -> None:
        """Register tensors under their names, with slashes for dots; those that train are kept in float32."""
        for dotted, x in own.items():
            name = dotted.replace(".", "/")
            if isinstance(x, nn.Parameter) and x.requires_grad:
                x.data = x.data.float()
                self.register_parameter(name, x)
            else:
                self.register_buffer(name, x)

    def stages(self, tower: str) -> Mapping[str, Edit]:
        """Return what stands in the place of frozen stages."""
        return self.replaced.get(tower, {})

    def interpolate(self, ratio: float) -> None:
        """Move what was learned towards its start (WiSE-FT: Wortsman et al., CVPR 2022, arXiv:2109.01903, equation 1).

        Raises:
            UserError: there is no start to go back to.
        """
        if not self.start:
            super().interpolate(ratio)
        with torch.no_grad():
            for name, start in self.start.items():
                x = self.get_parameter(name)
                x.lerp_(start.to(x), 1 - ratio)


class BlockReplacement(StageReplacement):
    """An adaptation that puts modules into the towers' transformer blocks.

    A subclass changes blocks in `change`, or all of them in `insert`. They are copies over the frozen storage, with an
    attention of four linear layers, and run as the frozen ones do; those that got anything replace them.

    Args:
        clip: the frozen backbone.
        task: class names and templates.
        towers: whose blocks are offered.

    Attributes:
        blocks: the copies, with modules named as `image.block.0.attn.q_proj`.

    Raises:
        UserError: a tower without blocks, or blocks that don't run with what is in them.
    """

    def __init__(self, clip: DualEncoder, task: SupportView, towers: Which = "both") -> None:
        super().__init__(clip, task)
        changed, own = self.insert(split_towers(clip, towers))
        self.held = {"blocks": changed}  # in a table, so that it isn't registered
        self.register(own)
        self.replaced = {tower: with_any(changed.get_submodule(f"{tower}.block"), own) for tower in names(towers)}
        for tower, blocks in self.replaced.items():
            try_out(clip, tower, blocks)
        in_text = (module for block in self.replaced.get("text", {}).values() for module in block.modules())
        self.declare(unshared_prefix=any(map(drops, in_text)))
        self.train()

    @property
    def blocks(self) -> nn.Module:
        """The copies of the towers' blocks, changed or not."""
        return self.held["blocks"]

    def insert(self, towers: nn.ModuleDict) -> tuple[nn.Module, dict[str, Tensor]]:
        """Change blocks of towers; return them, and by name the tensors in them that aren't frozen storage."""
        frozen = {id(x) for x in (*towers.parameters(), *towers.buffers())}
        for point, block in towers.named_modules():
            if isinstance(block, Block):
                self.change(point, block)
        towers.to(next(iter(towers.parameters())).device)
        tensors = {**dict(towers.named_parameters()), **dict(towers.named_buffers())}
        return towers, {name: x for name, x in tensors.items() if id(x) not in frozen}

    def change(self, name: str, block: Block) -> None:
        """Put modules into a block, such as a further layer after `block.mlp`; nothing unless overridden.

        Args:
            name: of the block, such as "image.block.0".
            block: a copy of the frozen one, to be changed in place.
        """

    def train(self, mode: bool = True) -> Self:
        """Switch what is put into blocks, too: its dropout follows."""
        self.blocks.train(mode)
        return super().train(mode)


def names(towers: Which) -> list[str]:
    """The towers meant."""
    return ["image", "text"] if towers == "both" else [towers]


def split_towers(clip: DualEncoder, towers: Which) -> nn.ModuleDict:
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


def with_any(blocks: Any, own: Mapping[str, Tensor]) -> dict[str, Block]:
    """Of blocks, those that hold any of these tensors, by point."""
    ids = {id(x) for x in own.values()}
    held = {i: {id(x) for x in (*block.parameters(), *block.buffers())} for i, block in enumerate(blocks)}
    return {f"block.{i}": blocks[i] for i, found in held.items() if found & ids}


def drops(module: nn.Module) -> bool:
    """Whether a module drops activations in training."""
    return isinstance(module, nn.Dropout) and module.p > 0


def try_out(clip: DualEncoder, tower: str, blocks: Mapping[str, Block]) -> None:
    """Run the first of these blocks on nothing.

    Raises:
        UserError: what is in it needs more than activations.
    """
    nothing = torch.zeros(1, 2, clip.widths.get(tower) or 0, device=clip.device, dtype=clip.dtype)
    rounded = clip.dtype != torch.float32
    for block in list(blocks.values())[:1]:
        try:
            with torch.no_grad(), torch.autocast(clip.device.type, clip.dtype if rounded else None, enabled=rounded):
                run_block(block, nothing)
        except Exception as error:  # of whatever kind
            said = " ".join(str(error).split())
            raise UserError(f"this doesn't run in the blocks of the {tower} tower: {said}") from error
