"""Text towers, point by point."""

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from clipadapt.backbone.attention import run_block
from clipadapt.backbone.rows import Rows
from clipadapt.backbone.towers import BlockStage, Stage, Tower


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
    stages |= {f"block.{i}": BlockStage(block, _on_rows) for i, block in enumerate(blocks)}
    stages |= {f"block.{len(blocks)}": BlockStage(last, _at_ends), "tokens": read}
    weights = {
        "ids": (text.token_embedding, text.cls_emb),
        "words": (text.positional_embedding,),
        "tokens": (text.ln_final, text.text_projection),
    }
    return Tower("text", stages, weights)


def _on_rows(block: nn.Module, rows: Rows) -> Rows:
    return Rows(run_block(block, rows.values, rows.layout.attend), rows.layout)


def _at_ends(block: nn.Module, rows: Rows) -> Rows:
    """The last block: what follows reads each prompt at one row, so the others only serve as keys and values."""
    layout = rows.layout
    return Rows(run_block(block, rows.values, layout.attend_at_ends, layout.reads), layout.at_ends())


def opaque_text_tower(encode: Callable[[Tensor], Tensor], text: nn.Module | None) -> Tower:
    """A text tower of unknown architecture, on whole sequences of ids: nothing can be edited.

    Args:
        encode: padded token ids `[N, length]` to features `[N, D]`.
        text: the module whose weights it reads; None where it has no module of its own.
    """

    def run(rows: Rows) -> Tensor:
        return encode(rows.values.unflatten(0, (len(rows.layout.reads), -1))).unflatten(0, rows.layout.shape)

    return Tower("text", {"ids": run}, {"ids": (text,)})


def project(projection: Tensor | nn.Module | None, x: Tensor) -> Tensor:
    """Apply a projection that may be a matrix, a layer, or absent."""
    if projection is None:
        return x
    return projection(x) if isinstance(projection, nn.Module) else x @ projection
