"""Text towers: a transformer with named points, or an encoder of unknown architecture."""

from collections.abc import Callable, Sequence

from torch import Tensor, nn

from clipadapt.backbone.attention import Block, run_block
from clipadapt.backbone.rows import Rows
from clipadapt.backbone.towers import BlockStage, Stage, Tower


def text_transformer(
    embedding: nn.Module,
    positions: Tensor,
    blocks: Sequence[Block],
    norm: nn.Module,
    projection: Tensor | nn.Module | None,
    class_token: Tensor | None = None,
) -> Tower:
    """Return a text transformer's tower on rows: ids, words, block.0 …, tokens, features.

    The last block computes only the rows at which prompts are pooled, so that `tokens` has only these.

    Args:
        embedding: maps token ids to vectors of W channels.
        positions: positional embedding, `[length, W]`.
        blocks: the blocks.
        norm: norm after the last block.
        projection: matrix or layer from the normed rows to features; none if None.
        class_token: class token `[W]`, placed at the rows at which prompts are pooled; None for a model without one.
    """

    def embed(rows: Rows) -> Rows:
        words = embedding(rows.values)
        if class_token is not None:
            last = class_token.to(words.dtype).expand(len(rows.layout.ends), -1)
            words = words.index_copy(-2, rows.layout.ends, last)
        return Rows(words, rows.layout)

    def locate(rows: Rows) -> Rows:
        return Rows(rows.values + positions.to(rows.values.dtype)[rows.layout.positions], rows.layout)

    def read(rows: Rows) -> Tensor:
        ends = norm(rows.values.index_select(-2, rows.layout.ends))
        return project(projection, ends).unflatten(-2, rows.layout.shape)

    *first, last = blocks
    stages: dict[str, Stage] = {"ids": embed, "words": locate}
    stages |= {f"block.{i}": BlockStage(block, _on_rows) for i, block in enumerate(first)}
    stages |= {f"block.{len(first)}": BlockStage(last, _at_ends), "tokens": read}
    weights = {"ids": (embedding, class_token), "words": (positions,), "tokens": (norm, projection)}
    return Tower("text", stages, weights)


def _on_rows(block: Block, rows: Rows) -> Rows:
    return Rows(run_block(block, rows.values, rows.layout.attend), rows.layout)


def _at_ends(block: Block, rows: Rows) -> Rows:
    """Run the last block for the pooled rows alone; the other rows only serve as keys and values."""
    layout = rows.layout
    return Rows(run_block(block, rows.values, layout.attend_at_ends, layout.reads), layout.at_ends())


def opaque_text_tower(encode: Callable[[Tensor], Tensor], text: nn.Module | None) -> Tower:
    """Return a text tower of unknown architecture, on padded sequences of ids; only its features can be edited.

    Args:
        encode: maps padded token ids `[N, length]` to features `[N, D]`.
        text: the module with the tower's weights; None if the tower has no module of its own.
    """

    def run(rows: Rows) -> Tensor:
        return encode(rows.values.unflatten(0, (len(rows.layout.reads), -1))).unflatten(0, rows.layout.shape)

    return Tower("text", {"ids": run}, {"ids": (text,)})


def project(projection: Tensor | nn.Module | None, x: Tensor) -> Tensor:
    """Apply a projection that may be a matrix, a layer, or absent."""
    if projection is None:
        return x
    return projection(x) if isinstance(projection, nn.Module) else x @ projection
