"""Prompts of many classes on their way through a text tower: in chunks, so that memory has a bound."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from clipadapt.backbone.rows import Rows, Token
from clipadapt.backbone.towers import FEATURES, Stage, Tower

WORTH_PARTING = 0.9
"""Templates get prefixes of their own where that leaves at most this share of the rows."""

Sequences = Sequence[Sequence[Token]]


@dataclass(frozen=True)
class Prompts:
    """Prompts of C classes with T templates each, at one point of a text tower.

    Attributes:
        chunks: some templates each, and of these some classes each; together all of them.
        activation_checkpointing: whether a chunk's activations are computed again for its gradients.
    """

    chunks: tuple[tuple[Rows, ...], ...]
    activation_checkpointing: bool = False

    @property
    def rows(self) -> int:
        """Number of rows of all chunks."""
        return sum(len(chunk.layout.ids) for part in self.chunks for chunk in part)

    def run(
        self,
        tower: Tower,
        edits: Mapping[str, Stage] | None = None,
        stages: Mapping[str, Stage] | None = None,
        start: str | None = None,
        stop: str | None = None,
    ) -> Any:
        """Carry the prompts from `start` to `stop`, as `Tower.run` does.

        Text features are `[..., C, T, D]`, for edits of them too; at any point before, what comes out are `Prompts`.
        """

        def go(rows: Rows) -> Any:
            return tower.run(rows, edits, stages, start, FEATURES if stop is None else stop)

        if stop not in (None, FEATURES):
            return Prompts(
                tuple(tuple(go(rows) for rows in part) for part in self.chunks), self.activation_checkpointing
            )
        again = self.activation_checkpointing and torch.is_grad_enabled()
        features = [
            torch.cat([_recomputed(go, rows) if again else go(rows) for rows in part], -3) for part in self.chunks
        ]
        whole = torch.cat(features, dim=-2)
        return tower.run(whole, edits, stages, FEATURES) if stop is None else whole


def _recomputed(go: Callable[[Rows], Tensor], rows: Rows) -> Tensor:
    return checkpoint(go, rows, use_reentrant=False)


def in_chunks(
    sequences: Sequences,
    shape: tuple[int, int],
    max_rows: int | None,
    arrange: Callable[[Sequences, tuple[int, int], int], Rows],
    count_rows: Callable[[Sequences], int],
) -> Prompts:
    """Lay out token sequences in chunks of a size.

    Args:
        sequences: classes * templates token sequences, those of one class after another.
        shape: (classes, templates).
        max_rows: the most rows of a chunk, if it has more than one class; None for no bound.
        arrange: lays out sequences of a shape; the last argument is the number of their first class.
        count_rows: how many rows `arrange` makes of sequences.
    """
    classes, templates = shape
    apart = [sequences[template::templates] for template in range(templates)]
    together = count_rows(sequences)
    parted = templates > 1 and sum(map(count_rows, apart)) <= WORTH_PARTING * together
    each = 1 if parted else templates
    chunks = []
    for part in apart if parted else [sequences]:
        bounds = _bounds(classes, count_rows(part), max_rows)
        chunks.append(tuple(arrange(part[a * each : b * each], (b - a, each), a) for a, b in bounds))
    prompts = Prompts(tuple(chunks))
    return replace(prompts, activation_checkpointing=max_rows is not None and prompts.rows > max_rows)


def _bounds(classes: int, rows: int, max_rows: int | None) -> list[tuple[int, int]]:
    """First and last class (not included) of chunks of about as many classes each."""
    count = 1 if max_rows is None else min(classes, -(-rows // max_rows))
    edges = [classes * i // count for i in range(count + 1)]
    return list(pairwise(edges))
