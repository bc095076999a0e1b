"""Prompts to token sequences."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from clipadapt.backbone.rows import Prompt, Slot, Token
from clipadapt.errors import UserError


@dataclass(frozen=True)
class Tokenizer:
    """The part of a tokenizer that splices prompts from pieces.

    Attributes:
        length: number of tokens a prompt may have, start and end tokens included.
        encode: a text to token ids, without start and end tokens.
        decode: token ids to a text.
        start: ids before a prompt's own.
        end: ids after them.
        pad: id after the end, where the text tower reads whole sequences.
    """

    length: int
    encode: Callable[[str], list[int]]
    decode: Callable[[Sequence[int]], str]
    start: Sequence[int]
    end: Sequence[int]
    pad: int = 0

    @property
    def placeholder(self) -> int:
        """Token id that stands where a learned vector goes."""
        return self.encode("X")[0]

    def sequence(self, prompt: Prompt) -> list[Token]:
        """Start token, the prompt's pieces one after another, end token.

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
        learned = sum(isinstance(piece, Slot) for piece in pieces)
        return (
            f"the prompt of '{text}' takes {count} tokens ({learned} of them learned), but the text tower reads at "
            f"most {self.length}: shorten the class name or the template"
            + (", or use fewer context tokens" if learned else "")
        )
