"""How prompts are laid out for a text tower: packed where it is causal, whole sequences where it isn't."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from clipadapt.backbone.packing import pack, shared_start, whole
from clipadapt.backbone.rows import Layout, Token


@dataclass(frozen=True)
class PromptLayout:
    """What a text tower wants of the layout of prompts.

    Attributes:
        context_length: number of tokens of a whole sequence.
        packs: whether prompts are packed, as a causal tower that reads at the end token allows; whole sequences if not.
        pool: where a whole sequence is read: at its "last" or "first" token, or else at its end token.
        class_token: whether whole sequences get one more row, at which they are read.
        mask: True where a token sees a token, `[S, S]` or `[N, 1, S, S]`, of padded ids `[N, length]`, where S counts
            the class token's row; None where all see all.
    """

    context_length: int = 77
    packs: bool = True
    pool: str = "end"
    class_token: bool = False
    mask: Callable[[Tensor], Tensor | None] = lambda ids: None

    def count_rows(self, sequences: Sequence[Sequence[Token]], unshared_prefix: bool = False) -> int:
        """Return how many rows `arrange` makes of token sequences, nearly: what fills up stacks isn't counted."""
        if not self.packs:
            return len(sequences) * self.context_length
        prefix = 0 if unshared_prefix else shared_start(sequences)
        return prefix + sum(len(sequence) - prefix for sequence in sequences)

    def arrange(
        self,
        sequences: Sequence[Sequence[Token]],
        shape: tuple[int, int],
        placeholder: int,
        pad: int,
        first_class: int = 0,
        unshared_prefix: bool = False,
    ) -> Layout:
        """Lay out token sequences the way the tower wants them; arguments as of `DualEncoder.arrange`."""
        if self.packs:
            return pack(sequences, shape, placeholder, first_class, unshared_prefix)
        length = self.context_length
        padded = [[*sequence, *[pad] * (length - len(sequence))] for sequence in sequences]
        ids = torch.tensor([[_id(token, placeholder) for token in row] for row in padded])
        extra = [pad] if self.class_token else []
        rows = [[*row, *extra] for row in padded]
        reads = [self._read_at(sequence) for sequence in sequences]
        return whole(rows, shape, placeholder, self.mask(ids), reads, first_class)

    def _read_at(self, sequence: Sequence[Token]) -> int:
        """Position at which a whole sequence is read."""
        if self.class_token:
            return self.context_length
        return {"last": self.context_length - 1, "first": 0}.get(self.pool, len(sequence) - 1)


def _id(token: Token, placeholder: int) -> int:
    return token if isinstance(token, int) else token.id(placeholder)
