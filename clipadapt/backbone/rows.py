"""Text as rows: prompts without padding, what they share at their start written once.

A causal text tower read at its end token gives the same features whatever follows that token, and the same activations
in every layer for a start that prompts share. So a set of N prompts is one flat tensor of rows `[..., R, W]`: the
shared prefix first, then each prompt's own tokens, packed. Norms, projections and MLPs work row by row; only attention
looks at the layout. Leading dimensions carry whatever has a prefix of its own (images, sets of prompts).

Towers that are not causal keep whole sequences: the same layout with no prefix, every prompt as long as the context.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from clipadapt.backbone.attention import causal_mask


@dataclass(frozen=True)
class Slot:
    """The place of a learned vector in a prompt.

    Attributes:
        index: which of the vectors stands here.
        shared: whether all classes have the same vector here; where not, each class has its own.
        token: id that stands here until the vector is written; the tokenizer's placeholder where None.
    """

    index: int
    shared: bool = True
    token: int | None = None

    def id(self, placeholder: int) -> int:
        """The token id that holds the place."""
        return placeholder if self.token is None else self.token


Token = int | Slot
Prompt = str | Sequence[str | int | Slot]
"""A text, or pieces of one: texts that are tokenized on their own, token ids, and places of learned vectors."""


@dataclass(frozen=True)
class Layout:
    """Which rows make up which prompt.

    Attributes:
        ids: token id of each row, `[R]`; a slot holds a placeholder's.
        positions: position in its prompt of each row, `[R]`.
        prefix: number of rows at the start that all prompts share.
        grid: rows of each prompt's own tokens, `[N, S]`, the shorter ones filled up with row 0.
        own: flat indices into the grid of the entries that are rows, in row order, `[R - prefix]`.
        ends: row at which each prompt is read, `[N]`.
        slots: rows that are slots, `[K]`; with `slot_index [K]` the vector and `slot_class [K]` the class of each.
        mask: True where a query sees a key, `[S, prefix + S]` or `[N, 1, S, S]`; None where every row sees all.
        shape: (classes, templates), with N = classes * templates.
    """

    ids: Tensor
    positions: Tensor
    prefix: int
    grid: Tensor
    own: Tensor
    ends: Tensor
    slots: Tensor
    slot_index: Tensor
    slot_class: Tensor
    mask: Tensor | None
    shape: tuple[int, int]

    def to(self, device: torch.device | str) -> "Layout":
        """The same layout on a device."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        moved: dict[str, Any] = {name: x.to(device) for name, x in values.items() if isinstance(x, Tensor)}
        return replace(self, **moved)

    def attend(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Attention among rows `[..., R, H, d]`: the prefix to itself, each prompt to the prefix and to itself."""
        own = self._attend_own(query, key, value)
        if not self.prefix:
            return own
        query, key, value = (x[..., : self.prefix, :, :].transpose(-3, -2) for x in (query, key, value))
        shared = functional.scaled_dot_product_attention(query, key, value, is_causal=True)
        return torch.cat([shared.transpose(-3, -2), own], dim=-3)

    def _attend_own(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Attention of the prompts' own rows, `[..., R - prefix, H, d]`."""
        query = self._on_grid(query).transpose(-3, -2)
        key, value = (self._after_prefix(x).transpose(-3, -2) for x in (key, value))
        attended = functional.scaled_dot_product_attention(query, key, value, attn_mask=self.mask)
        return attended.transpose(-3, -2).flatten(-4, -3).index_select(-3, self.own)

    def _on_grid(self, x: Tensor) -> Tensor:
        """Rows `[..., R, H, d]` as padded sequences of the prompts' own tokens, `[..., N, S, H, d]`."""
        return x.index_select(-3, self.grid.flatten()).unflatten(-3, tuple(self.grid.shape))

    def _after_prefix(self, x: Tensor) -> Tensor:
        """Padded sequences with the prefix before each, `[..., N, prefix + S, H, d]`."""
        own = self._on_grid(x)
        shared = x[..., : self.prefix, :, :].unsqueeze(-4)
        return torch.cat([shared.expand(*own.shape[:-3], *shared.shape[-3:]), own], dim=-3)


@dataclass(frozen=True)
class Rows:
    """The activation of a text tower: `values [..., R, W]` (token ids `[R]` where it enters) and their layout."""

    values: Tensor
    layout: Layout

    def place(self, vectors: Tensor) -> "Rows":
        """Write learned vectors into their slots.

        Args:
            vectors: `[..., n, W]`, the same for all classes; leading dimensions spread over the rows.
        """
        return self._write(vectors.index_select(-2, self.layout.slot_index))

    def place_per_class(self, vectors: Tensor) -> "Rows":
        """Write each class's own learned vectors, `[C, n, W]`, into its slots."""
        return self._write(vectors[self.layout.slot_class, self.layout.slot_index])

    def _write(self, vectors: Tensor) -> "Rows":
        leading = torch.broadcast_shapes(self.values.shape[:-2], vectors.shape[:-2])
        values = self.values.expand(*leading, *self.values.shape[-2:])
        vectors = vectors.to(values.dtype).expand(*leading, *vectors.shape[-2:])
        return replace(self, values=values.index_copy(-2, self.layout.slots, vectors))


def pack(prompts: Sequence[Sequence[Token]], shape: tuple[int, int], placeholder: int) -> Layout:
    """Lay out prompts for a causal tower that is read at each prompt's last token.

    Args:
        prompts: N token sequences, those of one class after another, without padding.
        shape: (classes, templates).
        placeholder: token id that stands in a slot.
    """
    prefix = shared_start(prompts)
    longest = max(len(prompt) for prompt in prompts) - prefix
    mask = causal_mask(longest, prefix, torch.device("cpu"))
    return _lay_out(prompts, prefix, shape, placeholder, mask)


def whole(
    prompts: Sequence[Sequence[Token]],
    shape: tuple[int, int],
    placeholder: int,
    mask: Tensor | None,
    reads: Sequence[int],
) -> Layout:
    """Lay out prompts of one length as whole sequences, for towers that are not causal.

    Args:
        prompts: N token sequences, padded.
        shape: (classes, templates).
        placeholder: token id that stands in a slot.
        mask: True where a token sees a token, `[S, S]` or `[N, 1, S, S]`; None where all see all.
        reads: position at which each prompt is read, N.
    """
    layout = _lay_out(prompts, 0, shape, placeholder, mask)
    return replace(layout, ends=layout.grid.gather(1, torch.tensor(reads)[:, None]).flatten())


def shared_start(prompts: Sequence[Sequence[Token]]) -> int:
    """Length of the start that all prompts share; the last token of a prompt is always its own."""
    first, shortest = prompts[0], min(len(prompt) for prompt in prompts)
    for i in range(shortest - 1):
        token = first[i]
        own = isinstance(token, Slot) and not token.shared
        if own or any(prompt[i] != token for prompt in prompts):
            return i
    return shortest - 1


def _lay_out(
    prompts: Sequence[Sequence[Token]], prefix: int, shape: tuple[int, int], placeholder: int, mask: Tensor | None
) -> Layout:
    tokens: list[Token] = list(prompts[0][:prefix])
    positions, classes = list(range(prefix)), [0] * prefix
    longest = max(len(prompt) for prompt in prompts) - prefix
    grid = torch.zeros(len(prompts), longest, dtype=torch.long)
    filled = torch.zeros_like(grid, dtype=torch.bool)
    for n, prompt in enumerate(prompts):
        own = len(prompt) - prefix
        grid[n, :own] = torch.arange(len(tokens), len(tokens) + own)
        filled[n, :own] = True
        tokens += prompt[prefix:]
        positions += range(prefix, len(prompt))
        classes += [n // shape[1]] * own
    slots = [(row, token.index) for row, token in enumerate(tokens) if isinstance(token, Slot)]
    return Layout(
        ids=torch.tensor([token.id(placeholder) if isinstance(token, Slot) else token for token in tokens]),
        positions=torch.tensor(positions),
        prefix=prefix,
        grid=grid,
        own=filled.flatten().nonzero().flatten(),
        ends=torch.tensor([grid[n, len(prompt) - prefix - 1] for n, prompt in enumerate(prompts)]),
        slots=torch.tensor([row for row, _ in slots], dtype=torch.long),
        slot_index=torch.tensor([index for _, index in slots], dtype=torch.long),
        slot_class=torch.tensor([classes[row] for row, _ in slots], dtype=torch.long),
        mask=mask,
        shape=shape,
    )
