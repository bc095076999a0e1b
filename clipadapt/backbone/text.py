"""Layout of prompts for a text tower: packed for a causal tower, padded sequences for any other."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from clipadapt.backbone.packing import pack, shared_start, whole
from clipadapt.backbone.rows import Layout, Token


@dataclass(frozen=True)
class PromptLayout:
    """Layout of prompts that a text tower requires.

    Attributes:
        context_length: number of tokens of a padded sequence.
        packs: whether prompts are packed, which needs a causal tower that is pooled at the end token; if not, prompts
            are padded sequences.
        pool: token at which a padded sequence is pooled: "last", "first", or any other text for the end token.
        class_token: whether padded sequences have one more row, a class token, at which they are pooled.
        mask: maps padded ids `[N, length]` to an attention mask, `[S, S]` or `[N, 1, S, S]`, True where a token
            attends to a token; S includes the class token; None for full attention.
    """

    context_length: int = 77
    packs: bool = True
    pool: str = "end"
    class_token: bool = False
    mask: Callable[[Tensor], Tensor | None] = lambda ids: None

    def count_rows(self, sequences: Sequence[Sequence[Token]], unshared_prefix: bool = False) -> int:
        """Return how many rows `arrange` makes of token sequences, without the padding of stacks."""
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
        """Lay out token sequences as the tower requires; arguments as of `DualEncoder.arrange`."""
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
        """Return the position at which a padded sequence is pooled."""
        if self.class_token:
            return self.context_length
        return {"last": self.context_length - 1, "first": 0}.get(self.pool, len(sequence) - 1)


def _id(token: Token, placeholder: int) -> int:
    return token if isinstance(token, int) else token.id(placeholder)
