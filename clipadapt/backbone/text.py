"""The text side of an open_clip model: its parts, wherever the model keeps them, and how it reads a prompt."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from clipadapt.backbone.attention import is_plain_block
from clipadapt.backbone.packing import pack, shared_start, whole
from clipadapt.backbone.rows import Layout, Token
from clipadapt.backbone.text_tower import opaque_text_tower, text_transformer
from clipadapt.backbone.towers import Tower


class TextParts:
    """What `text_transformer` needs of a model, and how prompts are laid out for it.

    Args:
        model: an open_clip model; its text tower may be the model itself, or its `text`.

    Attributes:
        known: whether the architecture is one that can be run point by point.
        packs: whether prompts are packed; whole sequences otherwise.
        context_length: number of tokens of a whole sequence.
    """

    def __init__(self, model: Any) -> None:
        text = getattr(model, "text", model)
        self.module = text
        self.token_embedding = getattr(text, "token_embedding", None)
        self.positional_embedding = getattr(text, "positional_embedding", None)
        self.transformer = getattr(text, "transformer", None)
        self.ln_final = getattr(text, "ln_final", None)
        self.text_projection = getattr(text, "text_projection", None)
        self.context_length = getattr(text, "context_length", 77)
        self.pool = getattr(text, "text_pool_type", getattr(text, "pool_type", "argmax"))
        blocks = getattr(self.transformer, "resblocks", [])
        parts = (self.token_embedding, self.positional_embedding, self.ln_final)
        self.known = all(part is not None for part in parts) and len(blocks) > 0 and all(map(is_plain_block, blocks))
        self.cls_emb = getattr(text, "cls_emb", None) if self.known else None
        causal = getattr(text, "attn_mask", None) is not None
        self.packs = self.known and causal and self.cls_emb is None and self.pool in ("argmax", "eos")

    def tower(self, model: Any) -> Tower:
        """The model's text tower, point by point where its architecture is known."""
        if self.known:
            return text_transformer(self)
        own = self.module if self.module is not model else None
        return opaque_text_tower(lambda ids: model.encode_text(ids, normalize=False), own)

    @property
    def text_width(self) -> int | None:
        """Channels of the tower; None where the architecture isn't known."""
        return self.positional_embedding.shape[-1] if self.known else None  # type: ignore[union-attr]

    @property
    def joint_width(self) -> int | None:
        """Channels of the joint space; None where there is no projection to read it from."""
        if isinstance(self.text_projection, nn.Linear):
            return self.text_projection.out_features
        return self.text_projection.shape[-1] if isinstance(self.text_projection, Tensor) else None

    def count_rows(self, sequences: Sequence[Sequence[Token]], unshared_prefix: bool = False) -> int:
        """How many rows `arrange` makes of token sequences, nearly: what fills up stacks isn't counted."""
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
        """Lay out token sequences the way this tower wants them; arguments as of `CLIP.arrange`."""
        if self.packs:
            return pack(sequences, shape, placeholder, first_class, unshared_prefix)
        length = self.context_length
        padded = [[*sequence, *[pad] * (length - len(sequence))] for sequence in sequences]
        ids = torch.tensor([[_id(token, placeholder) for token in row] for row in padded])
        extra = [] if self.cls_emb is None else [pad]  # the row that the class token takes
        rows = [[*row, *extra] for row in padded]
        reads = [self._read_at(sequence) for sequence in sequences]
        return whole(rows, shape, placeholder, self._mask(ids), reads, first_class)

    def _read_at(self, sequence: Sequence[Token]) -> int:
        """Position at which a whole sequence is read."""
        if self.cls_emb is not None:
            return self.context_length
        return {"last": self.context_length - 1, "first": 0}.get(self.pool, len(sequence) - 1)

    def _mask(self, ids: Tensor) -> Tensor | None:
        """Which token sees which in padded ids `[N, length]`, as open_clip builds it."""
        mask = getattr(self.module, "attn_mask", None)
        visible = None if mask is None else mask.cpu() == 0
        if self.cls_emb is None and not getattr(self.module, "use_pad_mask", False):
            return visible
        rows = ids.shape[1] + (self.cls_emb is not None)
        padding = self.module._build_additive_mask(ids, rows, torch.float32)
        seen = padding.unflatten(0, (len(ids), -1))[:, :1] == 0
        return seen if visible is None else seen & visible


def _id(token: Token, placeholder: int) -> int:
    return token if isinstance(token, int) else token.id(placeholder)
