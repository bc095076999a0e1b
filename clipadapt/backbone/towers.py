"""A tower: a frozen encoder as a sequence of stages between named points.

A point names the activation that enters a stage; the last point, `features`, is the output of the tower. An edit is a
function of the activation at a point; a stage replacement is a function that replaces a frozen stage.
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
    """Stage that runs a transformer block.

    Attributes:
        block: the block.
        how: runs a block on the activation, in the way of this stage (such as pooled rows only in the last one).
    """

    block: Block
    how: Callable[[Block, Any], Any]

    def __call__(self, x: Any) -> Any:
        """Return the activation after the block."""
        return self.how(self.block, x)


class Tower:
    """Frozen encoder as a sequence of stages between named points.

    Args:
        name: name of the tower, such as "image" or "text", for messages.
        stages: the function from each point to the next, in order; the last one returns the features.
        weights: modules and single tensors that each stage other than a block uses, by its point.
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
        """Return the transformer blocks, by the point of their input."""
        return {point: stage.block for point, stage in self.stages.items() if isinstance(stage, BlockStage)}

    def parameters(self, point: str) -> list[nn.Parameter]:
        """Return the weights that the stage at a point uses."""
        read = [self.blocks[point]] if point in self.blocks else self.weights.get(point, ())
        found = [part.parameters() if isinstance(part, nn.Module) else [part] for part in read if part is not None]
        return [weight for part in found for weight in part]

    def make_stage(self, point: str, replacement: Any) -> Stage:
        """Return the stage of a replacement at a point; a transformer block is run in the way of the frozen block."""
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
        """Run the stages from the point `start` (default: the first) to the point `stop` (default: the output).

        Edits at `start` and at later points are applied, an edit at `stop` is not: running to a point and on from
        there is the same as running through. Images are `[..., 3, height, width]` at `pixels` and `[..., D]` at
        `features`; texts are `Rows`, and `[..., C, templates, D]` at `features`.

        With `activation_checkpointing`, each stage's activations are recomputed in the backward pass.
        """
        edits, stages = edits or {}, self.stages | {p: self.make_stage(p, own) for p, own in (stages or {}).items()}
        first = self.points.index(start or self.points[0])
        last = len(self.points) if stop is None else self.points.index(stop)
        for point in self.points[first:last]:
            x = edits[point](x) if point in edits else x
            if point in stages:
                x = checkpoint(stages[point], x, use_reentrant=False) if activation_checkpointing else stages[point](x)
        return x

    def first_blocks(self, depth: int | Literal["all"] | None) -> list[str]:
        """Return the points of the first `depth` blocks: a number, "all", or None for three quarters (9 of 12).

        Raises:
            UserError: the tower has fewer blocks.
            MissingPoint: the tower has no blocks.
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
        """Return the earliest of the edited or replaced points; `features` if there are none.

        Raises:
            MissingPoint: the tower lacks one of the points.
        """
        points = set(points)
        for point in sorted(points - set(self.points)):
            raise MissingPoint(f"the {self.name} tower has no point '{point}' (it has {', '.join(self.points)})")
        return min(points, key=self.points.index, default=FEATURES)


def over_leading(function: Callable[[Tensor], Tensor], dimensions: int) -> Callable[[Tensor], Tensor]:
    """Return a function of any leading dimensions, from one with a single batch dimension before `dimensions` more."""

    def run(x: Tensor) -> Tensor:
        leading = x.shape[:-dimensions]
        return function(x.reshape(-1, *x.shape[-dimensions:])).unflatten(0, leading)

    return run


def opaque_image_tower(encode: Callable[[Tensor], Tensor], visual: nn.Module) -> Tower:
    """Return an image tower of unknown architecture, of which only pixels and features can be edited.

    Args:
        encode: maps pixels `[B, 3, height, width]` to features `[B, D]`.
        visual: the module with the tower's weights.
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
        embed: maps pixels `[B, 3, height, width]` to embedded patches `[B, T, W]`, the class token, if any, first.
        prepare: maps the embedded patches to the first block's input, such as a norm.
        blocks: the blocks, on tokens `[..., T, W]`.
        read: maps tokens `[B, T, W]` to features `[B, D]`.
        weights: weights that the stages before and after the blocks use, by their points.
        at_class_token: whether `read` uses the class token alone; if so, the last block computes only this token.
        name: name of the tower, for messages.
    """
    *first, last = blocks
    stages: dict[str, Stage] = {"pixels": over_leading(embed, 3), "patches": prepare}
    stages |= {f"block.{i}": BlockStage(block, run_block) for i, block in enumerate(first)}
    stages[f"block.{len(first)}"] = BlockStage(last, _at_class_token if at_class_token else run_block)
    return Tower(name, stages | {"tokens": over_leading(read, 2)}, weights)


def _at_class_token(block: Block, x: Tensor) -> Tensor:
    """Run the last block for the class token alone; the other tokens only serve as keys and values."""
    return run_block(block, x, reads=torch.zeros(1, dtype=torch.long, device=x.device))


def reading_first(tower: Tower, count: int) -> BlockStage:
    """Return the last block's stage of a tower that is read at its class token, for the first `count` tokens.

    Raises:
        UserError: the tower isn't a vision transformer that is read at its class token.
    """
    stage = [*tower.stages.values()][-2] if len(tower.stages) > 1 else None
    if not isinstance(stage, BlockStage) or stage.how is not _at_class_token:
        raise UserError(
            f"the {tower.name} tower isn't read at a class token: use a vision transformer of CLIP, such as ViT-B-16"
        )

    def run(block: Block, x: Tensor) -> Tensor:
        return run_block(block, x, reads=torch.arange(count, device=x.device))

    return replace(stage, how=run)


def convolutional_tower(
    embed: Callable[[Tensor], Tensor],
    layers: Sequence[nn.Module],
    read: Callable[[Tensor], Tensor],
    weights: Mapping[str, Sequence[Any]],
    name: str = "image",
) -> Tower:
    """Return a convolutional network's tower: pixels, layer.1 …, tokens, features.

    Args:
        embed: maps pixels `[B, 3, height, width]` to the first layer's input.
        layers: the layers, on feature maps `[B, W, height, width]`.
        read: maps feature maps to features `[B, D]`.
        weights: weights that the first and the last stage use, by their points.
        name: name of the tower, for messages.
    """
    stages: dict[str, Stage] = {"pixels": over_leading(embed, 3)}
    stages |= {f"layer.{i}": over_leading(layer, 3) for i, layer in enumerate(layers, 1)}
    own: dict[str, Sequence[Any]] = {f"layer.{i}": (layer,) for i, layer in enumerate(layers, 1)}
    return Tower(name, stages | {"tokens": over_leading(read, 3)}, {**own, **weights})
