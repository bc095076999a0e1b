"""Prompts of many classes, encoded in chunks of bounded memory."""

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
"""Templates are laid out separately, each with its own prefix, if at most this share of the rows remains."""

Sequences = Sequence[Sequence[Token]]


@dataclass(frozen=True)
class Prompts:
    """Prompts of C classes with T templates each, at one point of a text tower.

    Attributes:
        chunks: rows by groups of templates, and within each group by ranges of classes.
        activation_checkpointing: whether each chunk's activations are recomputed in the backward pass.
    """

    chunks: tuple[tuple[Rows, ...], ...]
    activation_checkpointing: bool = False

    @property
    def rows(self) -> int:
        """Return the number of rows of all chunks."""
        return sum(len(chunk.layout.ids) for part in self.chunks for chunk in part)

    def with_references(self, references: Tensor) -> "Prompts":
        """Return the prompts with features `[C, D]` of their classes that edits may read."""

        def add(rows: Rows) -> Rows:
            return replace(rows, layout=replace(rows.layout, references=references))

        return replace(self, chunks=tuple(tuple(map(add, part)) for part in self.chunks))

    def run(
        self,
        tower: Tower,
        edits: Mapping[str, Stage] | None = None,
        stages: Mapping[str, Stage] | None = None,
        start: str | None = None,
        stop: str | None = None,
    ) -> Any:
        """Run the tower from the point `start` to the point `stop`; arguments as of `Tower.run`.

        Returns:
            Text features `[..., C, T, D]`, which edits at `features` get, too; `Prompts` at any earlier point.
        """

        def encode(rows: Rows) -> Any:
            return tower.run(rows, edits, stages, start, FEATURES if stop is None else stop)

        if stop not in (None, FEATURES):
            return Prompts(
                tuple(tuple(encode(rows) for rows in part) for part in self.chunks), self.activation_checkpointing
            )
        again = self.activation_checkpointing and torch.is_grad_enabled()
        features = [
            torch.cat([_checkpointed(encode, rows) if again else encode(rows) for rows in part], -3)
            for part in self.chunks
        ]
        whole = torch.cat(features, dim=-2)
        return tower.run(whole, edits, stages, FEATURES) if stop is None else whole


def _checkpointed(encode: Callable[[Rows], Tensor], rows: Rows) -> Tensor:
    return checkpoint(encode, rows, use_reentrant=False)


def in_chunks(
    sequences: Sequences,
    shape: tuple[int, int],
    max_rows: int | None,
    arrange: Callable[[Sequences, tuple[int, int], int], Rows],
    count_rows: Callable[[Sequences], int],
) -> Prompts:
    """Lay out token sequences in chunks of bounded size.

    Args:
        sequences: classes * templates token sequences, class by class.
        shape: (classes, templates).
        max_rows: maximum number of rows of a chunk with more than one class; None for no bound.
        arrange: lays out sequences of a shape; the last argument is the index of their first class.
        count_rows: returns how many rows `arrange` makes of sequences.
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
    """Return the first class and the end (exclusive) of each chunk; chunks have about the same number of classes."""
    count = 1 if max_rows is None else min(classes, -(-rows // max_rows))
    edges = [classes * i // count for i in range(count + 1)]
    return list(pairwise(edges))
