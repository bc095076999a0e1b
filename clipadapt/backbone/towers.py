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

from clipadapt.backbone.attention import attend_all, is_plain_block, run_block
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

    block: nn.Module
    how: Callable[[nn.Module, Any], Any]

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
    def blocks(self) -> dict[str, nn.Module]:
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
        if isinstance(frozen, BlockStage) and is_plain_block(replacement):
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


def vision_transformer(visual: Any, all_tokens: bool = False) -> Tower:
    """CLIP's vision transformer: pixels, patches, block.0 …, tokens, features.

    Where the features are read at the class token, it alone comes out of the last block, at `tokens`.

    Args:
        visual: open_clip's module.
        all_tokens: read features `[..., 1 + P, D]` of all tokens the way the class token's are read.
    """

    def embed(pixels: Tensor) -> Tensor:
        x = visual.conv1(pixels.to(visual.conv1.weight.dtype)).flatten(2).transpose(1, 2)
        first = visual.class_embedding.to(x.dtype).expand(len(x), 1, -1)
        return torch.cat([first, x], dim=1) + visual.positional_embedding.to(x.dtype)

    def read(tokens: Tensor) -> Tensor:
        pooled = visual.ln_post(tokens) if all_tokens else visual._pool(tokens)[0]
        return pooled if visual.proj is None else pooled @ visual.proj

    stages: dict[str, Stage] = {"pixels": over_leading(embed, 3), "patches": lambda x: visual.ln_pre(x)}
    *blocks, last = visual.transformer.resblocks
    stages |= {f"block.{i}": BlockStage(block, run_block) for i, block in enumerate(blocks)}
    alone = reads_class_token(visual) and not all_tokens
    stages[f"block.{len(blocks)}"] = BlockStage(last, _at_class_token if alone else run_block)
    weights = {
        "pixels": (visual.conv1, visual.class_embedding, visual.positional_embedding),
        "patches": (visual.ln_pre,),
        "tokens": (visual.ln_post, visual.attn_pool, getattr(visual, "attn_pool_contrastive", None), visual.proj),
    }
    return Tower(ALL_TOKENS if all_tokens else "image", stages | {"tokens": over_leading(read, 2)}, weights)


def reads_class_token(visual: Any) -> bool:
    """Whether a vision transformer's features are those of its class token."""
    return visual.pool_type == "tok" and visual.attn_pool is None


def _at_class_token(block: nn.Module, x: Tensor) -> Tensor:
    """The last block: the other tokens only serve as keys and values."""
    return run_block(block, x, reads=torch.zeros(1, dtype=torch.long, device=x.device))


def is_vision_transformer(visual: Any) -> bool:
    """Whether `vision_transformer` computes what this visual tower does."""
    parts = ("conv1", "class_embedding", "ln_pre", "transformer", "_pool", "proj")
    return all(hasattr(visual, part) for part in parts) and all(map(is_plain_block, visual.transformer.resblocks))


def modified_resnet(visual: Any, all_tokens: bool = False) -> Tower:
    """CLIP's ResNet: pixels, layer.1 … layer.4, tokens, features.

    Args:
        visual: open_clip's module.
        all_tokens: read features `[..., 1 + P, D]` of the attention pool at the mean and at all positions.
    """
    stages: dict[str, Stage] = {"pixels": over_leading(lambda x: visual.stem(x.to(visual.conv1.weight.dtype)), 3)}
    stages |= {f"layer.{i}": over_leading(getattr(visual, f"layer{i}"), 3) for i in range(1, 5)}
    pool = _attend_everywhere(visual.attnpool) if all_tokens else visual.attnpool
    weights: dict[str, Sequence[Any]] = {f"layer.{i}": (getattr(visual, f"layer{i}"),) for i in range(1, 5)}
    weights["pixels"] = (visual.conv1, visual.bn1, visual.conv2, visual.bn2, visual.conv3, visual.bn3)
    weights["tokens"] = (visual.attnpool,)
    return Tower(ALL_TOKENS if all_tokens else "image", stages | {"tokens": over_leading(pool, 3)}, weights)


def _attend_everywhere(pool: Any) -> Callable[[Tensor], Tensor]:
    """An attention pool `[B, W, height, width]` to `[B, 1 + P, D]`: what it gives at the mean, and at each position."""

    def run(x: Tensor) -> Tensor:
        x = x.flatten(2).transpose(1, 2)
        x = torch.cat([x.mean(dim=1, keepdim=True), x], dim=1) + pool.positional_embedding.to(x.dtype)
        layers = pool.q_proj, pool.k_proj, pool.v_proj
        query, key, value = (layer(x).unflatten(-1, (pool.num_heads, -1)) for layer in layers)
        return pool.c_proj(attend_all(query, key, value).flatten(-2))

    return run


def is_modified_resnet(visual: Any) -> bool:
    """Whether `modified_resnet` computes what this visual tower does."""
    return all(hasattr(visual, part) for part in ("stem", "layer1", "layer4", "attnpool"))
