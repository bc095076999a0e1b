"""Tokenization of prompts with places for learned vectors."""

import reprlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from clipadapt.backbone.rows import Prompt, Slot, Token
from clipadapt.errors import UserError

SHOWN = 80
"""Letters of a prompt in a message."""


@dataclass(frozen=True)
class Tokenizer:
    """Tokenizer of prompts that are made of texts, token ids and places of learned vectors.

    Attributes:
        length: maximum number of tokens of a prompt, start and end tokens included.
        encode: maps a text to token ids, without start and end tokens.
        decode: maps token ids to a text.
        start: token ids before each prompt.
        end: token ids after each prompt.
        pad: token id that pads sequences, if the text tower reads padded sequences.
    """

    length: int
    encode: Callable[[str], list[int]]
    decode: Callable[[Sequence[int]], str]
    start: Sequence[int]
    end: Sequence[int]
    pad: int = 0

    @property
    def placeholder(self) -> int:
        """Return the token id at the places of learned vectors."""
        return self.encode("X")[0]

    def sequence(self, prompt: Prompt) -> list[Token]:
        """Return the tokens of a prompt: start tokens, its pieces one after another, end tokens.

        Raises:
            UserError: the prompt has more tokens than the text tower reads.
        """
        pieces = [prompt] if isinstance(prompt, str) else prompt
        tokens: list[Token] = [*self.start]
        for piece in pieces:
            tokens += self.encode(piece) if isinstance(piece, str) else [piece]
        tokens += self.end
        if len(tokens) > self.length:
            raise UserError(self._too_long(pieces, len(tokens)))
        return tokens

    def _too_long(self, pieces: Sequence[str | int | Slot], count: int) -> str:
        text = " ".join(piece for piece in pieces if isinstance(piece, str)).replace(" .", ".")
        text = text if len(text) <= SHOWN else f"{text[:SHOWN]}…"
        learned = sum(isinstance(piece, Slot) for piece in pieces)
        return (
            f"the prompt of '{text}' takes {count} tokens ({learned} of them learned), but the text tower reads at "
            f"most {self.length}: shorten the class name or the template"
            + (", or use fewer context tokens" if learned else "")
        )


def by_class(prompts: Any) -> list[list[Any]]:
    """Return prompts by class: a text is one class of one prompt, and a text in a list one prompt of its class.

    Raises:
        UserError: They are no prompts, or classes have different numbers of them.
    """
    listed = [prompts] if isinstance(prompts, str) else prompts if isinstance(prompts, Sequence) else []
    found = [[one] if isinstance(one, str) else [*one] if isinstance(one, Sequence) else [] for one in listed]
    texts = all(isinstance(prompt, str | Sequence) for templates in found for prompt in templates)
    if not found or not all(found) or not texts:
        raise UserError(
            "prompts must be a list of texts, as in ['a red car', 'a dog'], or a list of texts for each class, and "
            f"{reprlib.repr(prompts)} is not"
        )
    if len({*map(len, found)}) > 1:
        raise UserError("each class must have as many prompts as the others")
    return found
