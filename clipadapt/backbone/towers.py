"""A tower: a frozen encoder unrolled into ordered, named points.

A point names the activation that enters a stage; the last point, `features`, is what leaves the tower. An edit is a
function of the activation at a point; a stage replacement puts another function where a frozen stage stood.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from clipadapt.backbone.attention import Block, run_block
from clipadapt.errors import MissingPoint, UserError

Stage = Callable[[Any], Any]
FEATURES = "features"
ALL_TOKENS = "image (all tokens)"


@dataclass(frozen=True)
class BlockStage:
    """A stage that is a transformer block.

    Attributes:
        block: the block.
        how: runs a block on the activation, as this place in the tower wants it run.
    """

    block: Block
    how: Callable[[Block, Any], Any]

    def __call__(self, x: Any) -> Any:
        """The activation after the block."""
        return self.how(self.block, x)


class Tower:
    """Frozen stages between named points.

    Args:
        name: what the tower encodes, "image" or "text"; used in messages.
        stages: the function that leads from each point to the next, in order; the last one yields the features.
        weights: what the stages that are no blocks read: modules, and tensors that stand alone.
    """

    def __init__(
        self, name: str, stages: Mapping[str, Stage], weights: Mapping[str, Sequence[Any]] | None = None
    ) -> None:
        self.name = name
        self.stages = dict(stages)
        self.points = (*stages, FEATURES)
        self.weights = weights or {}

    @property
    def blocks(self) -> dict[str, Block]:
        """The transformer blocks, by the point that each one starts from."""
        return {point: stage.block for point, stage in self.stages.items() if isinstance(stage, BlockStage)}

    def parameters(self, point: str) -> list[nn.Parameter]:
        """The weights that the stage at a point reads."""
        read = [self.blocks[point]] if point in self.blocks else self.weights.get(point, ())
        found = [part.parameters() if isinstance(part, nn.Module) else [part] for part in read if part is not None]
        return [weight for part in found for weight in part]

    def stage_of(self, point: str, replacement: Any) -> Stage:
        """The stage that a replacement makes at a point: a transformer block runs as the one that stood there does."""
        frozen = self.stages.get(point)
        if isinstance(frozen, BlockStage) and isinstance(replacement, Block):
            return replace(frozen, block=replacement)
        stage: Stage = replacement
        return stage

    def run(
        self,
        x: Any,
        edits: Mapping[str, Stage] | None = None,
        stages: Mapping[str, Stage] | None = None,
        start: str | None = None,
        stop: str | None = None,
        activation_checkpointing: bool = False,
    ) -> Any:
        """Carry an activation from the point `start` (the first unless told) to the point `stop`, or out of the tower.

        Edits at `start` and between are applied, one at `stop` is not: running to a point and on from it is the same
        as running through. Images are `[..., 3, height, width]` at `pixels` and `[..., D]` at `features`; texts are
        `Rows`, and `[..., C, templates, D]` at `features`.

        With `activation_checkpointing`, a stage's activations are computed again for its gradients.
        """
        edits, stages = edits or {}, self.stages | {p: self.stage_of(p, own) for p, own in (stages or {}).items()}
        first = self.points.index(start or self.points[0])
        last = len(self.points) if stop is None else self.points.index(stop)
        for point in self.points[first:last]:
            x = edits[point](x) if point in edits else x
            if point in stages:
                x = checkpoint(stages[point], x, use_reentrant=False) if activation_checkpointing else stages[point](x)
        return x

    def first_blocks(self, depth: int | Literal["all"] | None) -> list[str]:
        """Points of the first blocks: so many, all of them, or three quarters (9 of 12) where None.

        Raises:
            UserError: the tower has fewer.
            MissingPoint: it has none.
        """
        blocks = [point for point in self.points if point.startswith("block.")]
        if not blocks:
            raise MissingPoint(f"the {self.name} tower has no blocks (it has {', '.join(self.points)})")
        if depth is None:
            depth = max(1, len(blocks) * 3 // 4)
        wanted = len(blocks) if depth == "all" else depth
        if wanted > len(blocks):
            raise UserError(f"a depth of {depth} blocks is beyond the {self.name} tower's {len(blocks)}: choose fewer")
        return blocks[:wanted]

    def cut(self, points: Iterable[str]) -> str:
        """The earliest of the edited or replaced points, `features` when there are none.

        Raises:
            MissingPoint: a point that the tower lacks.
        """
        points = set(points)
        for point in sorted(points - set(self.points)):
            raise MissingPoint(f"the {self.name} tower has no point '{point}' (it has {', '.join(self.points)})")
        return min(points, key=self.points.index, default=FEATURES)


def over_leading(function: Callable[[Tensor], Tensor], dimensions: int) -> Callable[[Tensor], Tensor]:
    """A function of `[batch, *dimensions]` made one of any leading dimensions."""

    def run(x: Tensor) -> Tensor:
        leading = x.shape[:-dimensions]
        return function(x.reshape(-1, *x.shape[-dimensions:])).unflatten(0, leading)

    return run


def opaque_image_tower(encode: Callable[[Tensor], Tensor], visual: nn.Module) -> Tower:
    """A tower of unknown architecture: only pixels can be edited.

    Args:
        encode: pixels `[B, 3, height, width]` to features `[B, D]`.
        visual: the module whose weights it reads.
    """
    return Tower("image", {"pixels": over_leading(encode, 3)}, {"pixels": (visual,)})


def vision_transformer(
    embed: Callable[[Tensor], Tensor],
    prepare: Stage,
    blocks: Sequence[Block],
    read: Callable[[Tensor], Tensor],
    weights: Mapping[str, Sequence[Any]],
    at_class_token: bool,
    name: str = "image",
) -> Tower:
    """Return a vision transformer's tower: pixels, patches, block.0 …, tokens, features.

    Args:
        embed: pixels `[B, 3, height, width]` to embedded patches `[B, T, W]`, the class token, if any, first.
        prepare: what these go through before the first block.
        blocks: the blocks, on tokens `[..., T, W]`.
        read: tokens `[B, T, W]` to features `[B, D]`.
        weights: what the stages before and after the blocks read, by their points.
        at_class_token: whether `read` needs the class token alone: then nothing else comes out of the last block.
        name: of the tower, in messages.
    """
    *first, last = blocks
    stages: dict[str, Stage] = {"pixels": over_leading(embed, 3), "patches": prepare}
    stages |= {f"block.{i}": BlockStage(block, run_block) for i, block in enumerate(first)}
    stages[f"block.{len(first)}"] = BlockStage(last, _at_class_token if at_class_token else run_block)
    return Tower(name, stages | {"tokens": over_leading(read, 2)}, weights)


def _at_class_token(block: Block, x: Tensor) -> Tensor:
    """The last block: the other tokens only serve as keys and values."""
    return run_block(block, x, reads=torch.zeros(1, dtype=torch.long, device=x.device))


def convolutional_tower(
    embed: Callable[[Tensor], Tensor],
    layers: Sequence[nn.Module],
    read: Callable[[Tensor], Tensor],
    weights: Mapping[str, Sequence[Any]],
    name: str = "image",
) -> Tower:
    """Return a convolutional network's tower: pixels, layer.1 …, tokens, features.

    Args:
        embed: pixels `[B, 3, height, width]` to the first layer's input.
        layers: the layers, on maps `[B, W, height, width]`.
        read: maps to features `[B, D]`.
        weights: what the first and the last stage read, by their points.
        name: of the tower, in messages.
    """
    stages: dict[str, Stage] = {"pixels": over_leading(embed, 3)}
    stages |= {f"layer.{i}": over_leading(layer, 3) for i, layer in enumerate(layers, 1)}
    own: dict[str, Sequence[Any]] = {f"layer.{i}": (layer,) for i, layer in enumerate(layers, 1)}
    return Tower(name, stages | {"tokens": over_leading(read, 3)}, {**own, **weights})
