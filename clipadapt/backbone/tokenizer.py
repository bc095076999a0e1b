"""Prompts to token sequences, with any of open_clip's tokenizers."""

from collections.abc import Sequence
from typing import Any

from clipadapt.backbone.rows import Prompt, Slot, Token
from clipadapt.errors import UserError


class Tokenizer:
    """The part of a tokenizer that splices prompts from pieces.

    Args:
        tokenizer: open_clip's byte-pair tokenizer, or its wrapper of a Hugging Face one.
        length: number of tokens a prompt may have, start and end tokens included.
    """

    def __init__(self, tokenizer: Any, length: int) -> None:
        self.length = length
        inner = getattr(tokenizer, "tokenizer", None)
        if inner is None:
            self.encode, self.decode = tokenizer.encode, tokenizer.decode
            self.start, self.end, self.pad = [tokenizer.sot_token_id], [tokenizer.eot_token_id], 0
            return
        self.encode = lambda text: inner.encode(tokenizer.clean_fn(text), add_special_tokens=False)
        self.decode = inner.decode
        self.start = [] if inner.bos_token_id is None else [inner.bos_token_id]
        self.end = [] if inner.eos_token_id is None else [inner.eos_token_id]
        self.pad = inner.pad_token_id

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
