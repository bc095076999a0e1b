"""Base classes of adaptations that replace stages or transformer blocks; the replacements share frozen storage."""

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

    The modules aren't submodules of the adaptation, since frozen weights would then count as learned; `register`
    registers only the tensors that are not frozen storage.

    Attributes:
        replaced: the modules that replace frozen stages, by tower and point.
        start: by name, the values that `interpolate` moves registered tensors towards; empty if there are none.
    """

    def __init__(self, clip: DualEncoder, task: SupportView) -> None:
        super().__init__(clip, task)
        self.replaced: dict[str, dict[str, Any]] = {}
        self.start: dict[str, Tensor] = {}

    def register(self, own: Mapping[str, Tensor]) -> None:
        """Register tensors under their names, with slashes for dots; trainable tensors are converted to float32."""
        for dotted, x in own.items():
            name = dotted.replace(".", "/")
            if isinstance(x, nn.Parameter) and x.requires_grad:
                x.data = x.data.float()
                self.register_parameter(name, x)
            else:
                self.register_buffer(name, x)

    def stages(self, tower: str) -> Mapping[str, Edit]:
        """Return the modules that replace frozen stages of a tower, by point."""
        return self.replaced.get(tower, {})

    def interpolate(self, ratio: float) -> None:
        """Interpolate with the initial weights (WiSE-FT: Wortsman et al., CVPR 2022, arXiv:2109.01903, equation 1).

        Args:
            ratio: weight of the learned tensors: 1 leaves them as they are, 0 restores the initial values.

        Raises:
            UserError: there are no initial values to interpolate with.
        """
        if not self.start:
            super().interpolate(ratio)
        with torch.no_grad():
            for name, start in self.start.items():
                x = self.get_parameter(name)
                x.lerp_(start.to(x), 1 - ratio)

    def squared_distance(self) -> Tensor:
        """Return the squared distance of the registered tensors from their initial values."""
        if not self.start:
            return super().squared_distance()
        learned = {name: self.get_parameter(name) for name in self.start}
        return torch.stack([(x - self.start[name].to(x)).square().sum() for name, x in learned.items()]).sum()


class BlockReplacement(StageReplacement):
    """An adaptation that puts modules into the towers' transformer blocks.

    A subclass overrides `change` to change one block, or `insert` to change all of them. It receives copies of the
    blocks that share the frozen storage and whose attention is made of four linear layers. A copy that was changed
    replaces the frozen block and is run in the same way.

    Args:
        clip: the frozen backbone.
        task: class names and templates.
        towers: the towers whose blocks may be changed.

    Attributes:
        blocks: the copies of the blocks, with module names such as `image.block.0.attn.q_proj`.

    Raises:
        UserError: a tower has no blocks, or a changed block doesn't run.
    """

    def __init__(self, clip: DualEncoder, task: SupportView, towers: Which = "both") -> None:
        super().__init__(clip, task)
        changed, own = self.insert(split_towers(clip, towers))
        self.held = {"blocks": changed}  # in a dict, so that torch doesn't register the module
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
        """Change blocks of towers in place.

        Returns:
            The blocks, and the tensors in them that aren't frozen storage, by name.
        """
        held = [*towers.parameters(), *towers.buffers()]  # alive, so that no new tensor gets the id of a replaced one
        frozen = {id(x) for x in held}
        for point, block in towers.named_modules():
            if isinstance(block, Block):
                self.change(point, block)
        towers.to(next(iter(towers.parameters())).device)
        tensors = {**dict(towers.named_parameters()), **dict(towers.named_buffers())}
        return towers, {name: x for name, x in tensors.items() if id(x) not in frozen}

    def change(self, name: str, block: Block) -> None:
        """Insert modules into a block in place, such as another layer after `block.mlp`; nothing unless overridden.

        Args:
            name: name of the block, such as "image.block.0".
            block: a copy of the frozen block.
        """

    def train(self, mode: bool = True) -> Self:
        """Set training mode, in the inserted modules as well, so that their dropout follows."""
        self.blocks.train(mode)
        return super().train(mode)


def names(towers: Which) -> list[str]:
    """Return the names of the towers."""
    return ["image", "text"] if towers == "both" else [towers]


def split_towers(clip: DualEncoder, towers: Which) -> nn.ModuleDict:
    """Return copies of the towers' blocks that share the backbone's storage and have four linear layers in attention.

    Modules have names such as `image.block.0.attn.q_proj`.

    Raises:
        MissingPoint: a tower has no transformer blocks.
    """
    for tower in names(towers):
        if not clip.tower(tower).blocks:
            points = ", ".join(clip.tower(tower).points)
            raise MissingPoint(f"the {tower} tower has no transformer blocks to put anything into (it has {points})")
    blocks = {tower: map(split_block, clip.tower(tower).blocks.values()) for tower in names(towers)}
    return nn.ModuleDict({tower: nn.ModuleDict({"block": nn.ModuleList(each)}) for tower, each in blocks.items()})


def with_any(blocks: Any, own: Mapping[str, Tensor]) -> dict[str, Block]:
    """Return the blocks that contain any of the given tensors, by point."""
    ids = {id(x) for x in own.values()}
    held = {i: {id(x) for x in (*block.parameters(), *block.buffers())} for i, block in enumerate(blocks)}
    return {f"block.{i}": blocks[i] for i, found in held.items() if found & ids}


def drops(module: nn.Module) -> bool:
    """Return whether a module is a dropout with a positive rate."""
    return isinstance(module, nn.Dropout) and module.p > 0


def try_out(clip: DualEncoder, tower: str, blocks: Mapping[str, Block]) -> None:
    """Run the first of the blocks on zeros, to check that it runs.

    Raises:
        UserError: the block fails, for instance since an inserted module needs more input than activations.
    """
    nothing = torch.zeros(1, 2, clip.widths.get(tower) or 0, device=clip.device, dtype=clip.dtype)
    rounded = clip.dtype != torch.float32
    for block in list(blocks.values())[:1]:
        try:
            with torch.no_grad(), torch.autocast(clip.device.type, clip.dtype if rounded else None, enabled=rounded):
                run_block(block, nothing)
        except Exception as error:  # inserted modules raise errors of any type
            said = " ".join(str(error).split())
            raise UserError(f"this doesn't run in the blocks of the {tower} tower: {said}") from error
