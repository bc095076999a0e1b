"""A tower: a frozen encoder unrolled into ordered, named points.

A point names the activation that enters a stage; the last point, `features`, is what leaves the tower. An edit is a
function of the activation at a point; a stage replacement puts another function where a frozen stage stood.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from clipadapt.backbone.attention import is_plain_block, run_block
from clipadapt.backbone.rows import Rows
from clipadapt.errors import UserError, nearest

Stage = Callable[[Any], Any]
FEATURES = "features"


class Tower:
    """Frozen stages between named points.

    Args:
        name: what the tower encodes, "image" or "text"; used in messages.
        stages: the function that leads from each point to the next, in order; the last one yields the features.
    """

    def __init__(self, name: str, stages: Mapping[str, Stage]) -> None:
        self.name = name
        self.stages = dict(stages)
        self.points = (*stages, FEATURES)

    def run(
        self,
        x: Any,
        edits: Mapping[str, Stage] | None = None,
        stages: Mapping[str, Stage] | None = None,
        start: str | None = None,
        stop: str | None = None,
        recompute: bool = False,
    ) -> Any:
        """Carry an activation from the point `start` (the first unless told) to the point `stop`, or out of the tower.

        Edits at `start` and between are applied, one at `stop` is not: running to a point and on from it is the same
        as running through. Images are `[..., 3, height, width]` at `pixels` and `[..., D]` at `features`; texts are
        `Rows`, and `[..., C, templates, D]` at `features`.

        With `recompute`, what a stage computes is computed again for its gradients instead of being kept.
        """
        edits, stages = edits or {}, {**self.stages, **(stages or {})}
        first = self.points.index(start or self.points[0])
        last = len(self.points) if stop is None else self.points.index(stop)
        for point in self.points[first:last]:
            x = edits[point](x) if point in edits else x
            if point in stages:
                x = checkpoint(stages[point], x, use_reentrant=False) if recompute else stages[point](x)
        return x

    def cut(self, points: Iterable[str]) -> str:
        """The earliest of the edited or replaced points, `features` when there are none.

        Raises:
            UserError: a point that the tower lacks.
        """
        points = set(points)
        for point in sorted(points - set(self.points)):
            raise UserError(f"the {self.name} tower has no point '{point}' to edit; {nearest(point, self.points)}")
        return min(points, key=self.points.index, default=FEATURES)


def over_leading(function: Callable[[Tensor], Tensor], dimensions: int) -> Callable[[Tensor], Tensor]:
    """A function of `[batch, *dimensions]` made one of any leading dimensions."""

    def run(x: Tensor) -> Tensor:
        leading = x.shape[:-dimensions]
        return function(x.reshape(-1, *x.shape[-dimensions:])).unflatten(0, leading)

    return run


def opaque_image_tower(encode: Callable[[Tensor], Tensor]) -> Tower:
    """A tower of unknown architecture: only pixels can be edited."""
    return Tower("image", {"pixels": over_leading(encode, 3)})


def vision_transformer(visual: Any) -> Tower:
    """CLIP's vision transformer: pixels, patches, block.0 …, tokens, features.

    Where the features are read at the class token, it alone comes out of the last block, at `tokens`.
    """

    def embed(pixels: Tensor) -> Tensor:
        x = visual.conv1(pixels.to(visual.conv1.weight.dtype)).flatten(2).transpose(1, 2)
        first = visual.class_embedding.to(x.dtype).expand(len(x), 1, -1)
        return torch.cat([first, x], dim=1) + visual.positional_embedding.to(x.dtype)

    def read(tokens: Tensor) -> Tensor:
        pooled, _ = visual._pool(tokens)
        return pooled if visual.proj is None else pooled @ visual.proj

    stages: dict[str, Stage] = {"pixels": over_leading(embed, 3), "patches": lambda x: visual.ln_pre(x)}
    *blocks, last = visual.transformer.resblocks
    stages |= {f"block.{i}": _block_stage(block) for i, block in enumerate(blocks)}
    at_class_token = visual.pool_type == "tok" and visual.attn_pool is None
    stages[f"block.{len(blocks)}"] = _class_token_stage(last) if at_class_token else _block_stage(last)
    return Tower("image", stages | {"tokens": over_leading(read, 2)})


def _block_stage(block: nn.Module) -> Stage:
    return lambda x: run_block(block, x)


def _class_token_stage(block: nn.Module) -> Stage:
    """The last block: the other tokens only serve as keys and values."""
    return lambda x: run_block(block, x, reads=torch.zeros(1, dtype=torch.long, device=x.device))


def is_vision_transformer(visual: Any) -> bool:
    """Whether `vision_transformer` computes what this visual tower does."""
    parts = ("conv1", "class_embedding", "ln_pre", "transformer", "_pool", "proj")
    return all(hasattr(visual, part) for part in parts) and all(map(is_plain_block, visual.transformer.resblocks))


def modified_resnet(visual: Any) -> Tower:
    """CLIP's ResNet: pixels, layer.1 … layer.4, tokens, features."""
    stages: dict[str, Stage] = {"pixels": over_leading(lambda x: visual.stem(x.to(visual.conv1.weight.dtype)), 3)}
    stages |= {f"layer.{i}": over_leading(getattr(visual, f"layer{i}"), 3) for i in range(1, 5)}
    return Tower("image", stages | {"tokens": over_leading(visual.attnpool, 3)})


def is_modified_resnet(visual: Any) -> bool:
    """Whether `modified_resnet` computes what this visual tower does."""
    return all(hasattr(visual, part) for part in ("stem", "layer1", "layer4", "attnpool"))


def text_transformer(text: Any) -> Tower:
    """CLIP's text transformer on rows: ids, words, block.0 …, tokens, features.

    Out of the last block, at `tokens`, come only the rows at which prompts are read.

    Args:
        text: has `token_embedding`, `positional_embedding`, `transformer`, `ln_final`, `text_projection`, `cls_emb`.
    """

    def embed(rows: Rows) -> Rows:
        words = text.token_embedding(rows.values)
        if text.cls_emb is not None:
            last = text.cls_emb.to(words.dtype).expand(len(rows.layout.ends), -1)
            words = words.index_copy(-2, rows.layout.ends, last)
        return Rows(words, rows.layout)

    def locate(rows: Rows) -> Rows:
        positions = text.positional_embedding.to(rows.values.dtype)
        return Rows(rows.values + positions[rows.layout.positions], rows.layout)

    def read(rows: Rows) -> Tensor:
        ends = text.ln_final(rows.values.index_select(-2, rows.layout.ends))
        return project(text.text_projection, ends).unflatten(-2, rows.layout.shape)

    stages: dict[str, Stage] = {"ids": embed, "words": locate}
    *blocks, last = text.transformer.resblocks
    stages |= {f"block.{i}": _row_stage(block) for i, block in enumerate(blocks)}
    return Tower("text", stages | {f"block.{len(blocks)}": _end_stage(last), "tokens": read})


def _row_stage(block: nn.Module) -> Stage:
    return lambda rows: Rows(run_block(block, rows.values, rows.layout.attend), rows.layout)


def _end_stage(block: nn.Module) -> Stage:
    """The last block: what follows reads each prompt at one row, so the others only serve as keys and values."""

    def run(rows: Rows) -> Rows:
        layout = rows.layout
        return Rows(run_block(block, rows.values, layout.attend_at_ends, layout.reads), layout.at_ends())

    return run


def opaque_text_tower(encode: Callable[[Tensor], Tensor]) -> Tower:
    """A text tower of unknown architecture, on whole sequences of ids: nothing can be edited.

    Args:
        encode: padded token ids `[N, length]` to features `[N, D]`.
    """

    def run(rows: Rows) -> Tensor:
        return encode(rows.values.unflatten(0, (len(rows.layout.reads), -1))).unflatten(0, rows.layout.shape)

    return Tower("text", {"ids": run})


def project(projection: Tensor | nn.Module | None, x: Tensor) -> Tensor:
    """Apply a projection that may be a matrix, a layer, or absent."""
    if projection is None:
        return x
    return projection(x) if isinstance(projection, nn.Module) else x @ projection
