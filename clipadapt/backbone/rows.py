"""Text as rows: prompts without padding, what they share at their start written once.

A causal text tower read at its end token gives the same features whatever follows that token, and the same activations
in every layer for a start that prompts share. So a set of N prompts is one flat tensor of rows `[..., R, W]`: the
shared prefix first, then each prompt's own tokens, packed, the longest prompts first. Norms, projections and MLPs work
row by row; only attention looks at the layout. Leading dimensions carry whatever has a prefix of its own (images, sets
of prompts).

Towers that are not causal keep whole sequences: the same layout with no prefix, every prompt as long as the context.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

KEPT_COPIES = 2**20
"""Bytes of copies of the prefix's keys that are kept for gradients; making them again costs time, not much memory."""


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
class Stack:
    """Prompts whose own tokens take the same number of rows, one after another: attention sees them as a batch.

    Attributes:
        count: number n of prompts.
        length: rows S of each; those behind a prompt's end token fill it up.
        mask: True where a token sees a token, `[S, prefix + S]` or `[n, 1, S, prefix + S]`; None where all see all.
        end_mask: the same for the tokens at which prompts are read, `[n, 1, 1, prefix + S]`.
    """

    count: int
    length: int
    mask: Tensor | None
    end_mask: Tensor | None

    def to(self, device: torch.device | str) -> "Stack":
        """The same on a device."""
        return _moved(self, device)

    def apart(self, rows: Tensor) -> Tensor:
        """The stack's rows `[..., n * S, H, d]` prompt by prompt, `[..., n, H, S, d]`."""
        return rows.unflatten(-3, (self.count, self.length)).transpose(-3, -2)

    def after(self, prefix: Tensor, rows: Tensor) -> Tensor:
        """The same with the prefix `[..., P, H, d]` before each prompt, `[..., n, H, P + S, d]`."""
        own = self.apart(rows)
        if not prefix.shape[-3]:
            return own
        shared = prefix.transpose(-3, -2).unsqueeze(-4)
        return torch.cat([shared.expand(*own.shape[:-2], *shared.shape[-2:]), own], dim=-2)

    def attend(
        self, query: Tensor, first_key: Tensor, key: Tensor, first_value: Tensor, value: Tensor, mask: Tensor | None
    ) -> Tensor:
        """Attention of queries `[..., n, H, S or 1, d]` to the prefix and their own prompts.

        The prefix stands before every prompt only while it is attended to, and is put there again for the gradients:
        keys and values of all prompts with the prefix before each would be half of what a block keeps. Of few prompts
        they are kept.

        Args:
            query: of each prompt.
            first_key: keys of the prefix, `[..., P, H, d]`.
            key: keys of the stack, `[..., n * S, H, d]`.
            first_value: values of the prefix.
            value: values of the stack.
            mask: the stack's, or its ends'.
        """

        def go(query: Tensor, first_key: Tensor, key: Tensor, first_value: Tensor, value: Tensor) -> Tensor:
            return _attend(query, self.after(first_key, key), self.after(first_value, value), mask)

        given = query, first_key, key, first_value, value
        copied = first_key.numel() * self.count * first_key.element_size()
        if torch.is_grad_enabled() and copied > KEPT_COPIES:
            return checkpoint(go, *given, use_reentrant=False, preserve_rng_state=False)
        return go(*given)


@dataclass(frozen=True)
class Layout:
    """Which rows make up which prompt.

    Attributes:
        ids: token id of each row, `[R]`; a slot holds a placeholder's.
        positions: position in its prompt of each row, `[R]`.
        prefix: number P of rows at the start that all prompts share.
        stacks: the prompts' own rows.
        reads: rows at which prompts are read, `[N]`, in the order of the rows.
        order: place of each prompt in that order, `[N]`.
        slots: rows that are slots, `[K]`; with `slot_index [K]` the vector and `slot_class [K]` the class of each.
        shape: (classes, templates), with N = classes * templates.
    """

    ids: Tensor
    positions: Tensor
    prefix: int
    stacks: tuple[Stack, ...]
    reads: Tensor
    order: Tensor
    slots: Tensor
    slot_index: Tensor
    slot_class: Tensor
    shape: tuple[int, int]

    def to(self, device: torch.device | str) -> "Layout":
        """The same layout on a device."""
        return _moved(replace(self, stacks=tuple(stack.to(device) for stack in self.stacks)), device)

    def attend(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Attention among rows `[..., R, H, d]`: the prefix to itself, each prompt to the prefix and to itself."""
        (first, *queries), keys, values = (self._split(x) for x in (query, key, value))
        parts = [_causal(first, keys[0], values[0])] if self.prefix else []
        for i, stack in enumerate(self.stacks, start=1):
            query = stack.apart(queries[i - 1])
            attended = stack.attend(query, keys[0], keys[i], values[0], values[i], stack.mask)
            parts.append(attended.transpose(-3, -2).flatten(-4, -3))
        return torch.cat(parts, dim=-3)

    def attend_at_ends(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Attention of the rows at which prompts are read, `[..., N, H, d]` in the order of `reads`, to all rows."""
        queries, keys, values = query.split([stack.count for stack in self.stacks], -3), *map(self._split, (key, value))
        parts = []
        for i, stack in enumerate(self.stacks, start=1):
            query = queries[i - 1].unsqueeze(-2)
            attended = stack.attend(query, keys[0], keys[i], values[0], values[i], stack.end_mask)
            parts.append(attended.squeeze(-2))
        return torch.cat(parts, dim=-3)

    def _split(self, x: Tensor) -> tuple[Tensor, ...]:
        """Rows `[..., R, H, d]` of the prefix and of each stack."""
        return x.split([self.prefix, *(stack.count * stack.length for stack in self.stacks)], dim=-3)

    @property
    def ends(self) -> Tensor:
        """Row at which each prompt is read, `[N]`."""
        return self.reads[self.order]

    def at_ends(self) -> "Layout":
        """The layout of the rows at which prompts are read, alone."""
        none = self.slots[:0]
        return replace(
            self,
            ids=self.ids[self.reads],
            positions=self.positions[self.reads],
            prefix=0,
            stacks=(),
            reads=torch.arange(len(self.reads), device=self.reads.device),
            slots=none,
            slot_index=none,
            slot_class=none,
        )


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
        """Write each class's own learned vectors, `[..., C, n, W]`, into its slots."""
        return self._write(vectors[..., self.layout.slot_class, self.layout.slot_index, :])

    def _write(self, vectors: Tensor) -> "Rows":
        leading = torch.broadcast_shapes(self.values.shape[:-2], vectors.shape[:-2])
        values = self.values.expand(*leading, *self.values.shape[-2:])
        vectors = vectors.to(values.dtype).expand(*leading, *vectors.shape[-2:])
        return replace(self, values=values.index_copy(-2, self.layout.slots, vectors))


def _causal(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Attention of rows `[..., P, H, d]` to those before them and themselves."""
    query, key, value = (x.transpose(-3, -2) for x in (query, key, value))
    return functional.scaled_dot_product_attention(query, key, value, is_causal=True).transpose(-3, -2)


def _attend(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
    """Attention of queries `[..., n, H, S, d]`; the fused kernels want one leading dimension."""
    leading = query.shape[:-3]
    if mask is not None and mask.ndim == 4:  # one for each of n prompts
        mask = mask.expand(*leading, *mask.shape[-3:]).flatten(0, -4)
    query, key, value = (x.flatten(0, -4) for x in (query, key, value))
    return functional.scaled_dot_product_attention(query, key, value, attn_mask=mask).unflatten(0, leading)


def _moved(parts: Any, device: torch.device | str) -> Any:
    """A dataclass with its tensors on a device."""
    values = {field.name: getattr(parts, field.name) for field in fields(parts)}
    return replace(parts, **{name: x.to(device) for name, x in values.items() if isinstance(x, Tensor)})
