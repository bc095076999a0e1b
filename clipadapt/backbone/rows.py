"""Prompts as packed rows: without padding, and with their shared prefix stored once.

In a causal text tower that is pooled at the end token, tokens after the end token don't change the features, and
prompts with the same prefix have the same activations for it in every layer. So a set of N prompts is one flat tensor
of rows `[..., R, W]`: the shared prefix first, then each prompt's own tokens, packed, the longest prompts first. Norms,
projections and MLPs work row by row; only attention uses the layout. Leading dimensions index batches of prefixes:
images of a conditional method, or sets of prompts.

Towers that are not causal have padded sequences: the same layout with no prefix, each prompt as long as the context.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from clipadapt.errors import UserError

KEPT_COPIES = 2**20
"""Largest copies of the prefix's keys, in bytes, that are stored for gradients; larger ones are recomputed."""


@dataclass(frozen=True)
class Slot:
    """Place of a learned vector in a prompt.

    Attributes:
        index: index of the vector.
        shared: whether all classes share the vector; if not, each class has its own.
        token: token id at this place until the vector is written; the tokenizer's placeholder if None.
    """

    index: int
    shared: bool = True
    token: int | None = None

    def id(self, placeholder: int) -> int:
        """Return the token id at this place."""
        return placeholder if self.token is None else self.token


Token = int | Slot
Prompt = str | Sequence[str | int | Slot]
"""A text, or a list of pieces: texts, each tokenized on its own, token ids, and places of learned vectors."""


@dataclass(frozen=True)
class Stack:
    """Batch of prompts with the same number of own rows, one after another, for attention.

    Attributes:
        count: number n of prompts.
        length: number S of rows of each prompt; rows after a prompt's end token are padding.
        mask: attention mask, True where a token attends to a token, `[S, prefix + S]` or `[n, 1, S, prefix + S]`; None
            for full attention.
        end_mask: mask of the tokens at which prompts are pooled, `[n, 1, 1, prefix + S]`; None for full attention.
    """

    count: int
    length: int
    mask: Tensor | None
    end_mask: Tensor | None

    def to(self, device: torch.device | str) -> "Stack":
        """Return the stack on a device."""
        return _moved(self, device)

    def after_more(self, count: int) -> "Stack":
        """Return the stack of the same prompts after `count` rows more, to which all rows attend."""

        def wider(mask: Tensor | None) -> Tensor | None:
            return mask if mask is None else torch.cat([mask.new_ones(*mask.shape[:-1], count), mask], dim=-1)

        return replace(self, mask=wider(self.mask), end_mask=wider(self.end_mask))

    def apart(self, rows: Tensor) -> Tensor:
        """Reshape the stack's rows `[..., n * S, H, d]` to one batch entry per prompt, `[..., n, H, S, d]`."""
        return rows.unflatten(-3, (self.count, self.length)).transpose(-3, -2)

    def after(self, prefix: Tensor, rows: Tensor) -> Tensor:
        """Reshape the stack's rows by prompt, with the prefix `[..., P, H, d]` before each: `[..., n, H, P + S, d]`."""
        own = self.apart(rows)
        if not prefix.shape[-3]:
            return own
        shared = prefix.transpose(-3, -2).unsqueeze(-4)
        return torch.cat([shared.expand(*own.shape[:-2], *shared.shape[-2:]), own], dim=-2)

    def attend(
        self, query: Tensor, first_key: Tensor, key: Tensor, first_value: Tensor, value: Tensor, mask: Tensor | None
    ) -> Tensor:
        """Compute the attention of queries `[..., n, H, S or 1, d]` to the prefix and their own prompts.

        The prefix is concatenated before each prompt inside a checkpoint, so that its copies aren't stored for the
        backward pass: they would be half of a block's saved activations. Small copies are stored.

        Args:
            query: queries of each prompt.
            first_key: keys of the prefix, `[..., P, H, d]`.
            key: keys of the stack, `[..., n * S, H, d]`.
            first_value: values of the prefix, `[..., P, H, d]`.
            value: values of the stack, `[..., n * S, H, d]`.
            mask: `mask` or `end_mask`.
        """

        def compute(query: Tensor, first_key: Tensor, key: Tensor, first_value: Tensor, value: Tensor) -> Tensor:
            return _attend(query, self.after(first_key, key), self.after(first_value, value), mask)

        inputs = query, first_key, key, first_value, value
        copied = first_key.numel() * self.count * first_key.element_size()
        if torch.is_grad_enabled() and copied > KEPT_COPIES:
            return checkpoint(compute, *inputs, use_reentrant=False, preserve_rng_state=False)
        return compute(*inputs)


@dataclass(frozen=True)
class Layout:
    """Layout of N prompts in R rows.

    Attributes:
        ids: token id of each row, `[R]`; the placeholder's in slots.
        positions: position of each row in its prompt, `[R]`.
        prefix: number P of rows at the start, which all prompts share.
        stacks: stacks of the prompts' own rows.
        reads: rows at which prompts are pooled, `[N]`, ascending.
        order: index in `reads` of each prompt, `[N]`.
        slots: rows that are slots, `[K]`.
        slot_index: index of each slot's learned vector, `[K]`.
        slot_class: class of each slot, `[K]`.
        shape: (classes, templates), with N = classes * templates.
        references: features of the frozen text tower `[all classes, D]`, which edits may read; None if none does.
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
    references: Tensor | None = None

    def to(self, device: torch.device | str) -> "Layout":
        """Return the layout on a device."""
        return _moved(replace(self, stacks=tuple(stack.to(device) for stack in self.stacks)), device)

    def attend(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Compute attention among rows `[..., R, H, d]`: prefix to itself, each prompt to the prefix and itself."""
        (first, *queries), keys, values = (self._split(x) for x in (query, key, value))
        parts = [_causal(first, keys[0], values[0])] if self.prefix else []
        for i, stack in enumerate(self.stacks, start=1):
            query = stack.apart(queries[i - 1])
            attended = stack.attend(query, keys[0], keys[i], values[0], values[i], stack.mask)
            parts.append(attended.transpose(-3, -2).flatten(-4, -3))
        return torch.cat(parts, dim=-3)

    def attend_at_ends(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Compute attention of the pooled rows `[..., N, H, d]`, in the order of `reads`, to all rows."""
        queries, keys, values = query.split([stack.count for stack in self.stacks], -3), *map(self._split, (key, value))
        parts = []
        for i, stack in enumerate(self.stacks, start=1):
            query = queries[i - 1].unsqueeze(-2)
            attended = stack.attend(query, keys[0], keys[i], values[0], values[i], stack.end_mask)
            parts.append(attended.squeeze(-2))
        return torch.cat(parts, dim=-3)

    def _split(self, x: Tensor) -> tuple[Tensor, ...]:
        """Split rows `[..., R, H, d]` into those of the prefix and of each stack."""
        return x.split([self.prefix, *(stack.count * stack.length for stack in self.stacks)], dim=-3)

    @property
    def ends(self) -> Tensor:
        """Return the row at which each prompt is pooled, `[N]`."""
        return self.reads[self.order]

    def lengthened(self, count: int) -> "Layout":
        """Return the layout with `count` rows more after the first one, which all prompts share."""
        ids, positions = (torch.cat([x[:1], x[:1].expand(count), x[1:]]) for x in (self.ids, self.positions))
        return replace(
            self,
            ids=ids,
            positions=positions,
            prefix=self.prefix + count,
            stacks=tuple(stack.after_more(count) for stack in self.stacks),
            reads=self.reads + count,
            slots=self.slots + count,
        )

    def at_ends(self) -> "Layout":
        """Return the layout of the pooled rows alone."""
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
    """Activation of a text tower.

    Attributes:
        values: rows `[..., R, W]`; at the point `ids`, token ids `[R]`.
        layout: layout of the prompts in the rows.
    """

    values: Tensor
    layout: Layout

    def place(self, vectors: Tensor) -> "Rows":
        """Write learned vectors into their slots.

        Args:
            vectors: `[..., n, W]`, the same for all classes; leading dimensions are broadcast with those of the rows.
        """
        return self._write(vectors.index_select(-2, self.layout.slot_index))

    def place_per_class(self, vectors: Tensor) -> "Rows":
        """Write each class's own learned vectors, `[..., C, n, W]`, into that class's slots."""
        return self._write(vectors[..., self.layout.slot_class, self.layout.slot_index, :])

    def blend_per_class(self, vectors: Tensor, weight: float) -> "Rows":
        """Write each class's own vectors, `[..., C, n, W]`, with this weight; the rest is what its slots hold."""
        new = vectors[..., self.layout.slot_class, self.layout.slot_index, :].to(self.values.dtype)
        return self._write(torch.lerp(self.values.index_select(-2, self.layout.slots), new, weight))

    def insert(self, vectors: Tensor) -> "Rows":
        """Insert vectors `[n, W]` after the first row, which all prompts share.

        Raises:
            UserError: the prompts share no row, as in a tower that isn't causal, or where rows may not be shared.
        """
        if not self.layout.prefix:
            raise UserError(
                "tokens can't be inserted into these prompts, since they share no start: use a text tower that is "
                "causal, as CLIP's is, and leave out what has dropout in its blocks"
            )
        return Rows(self._after_first(vectors, 0), self.layout.lengthened(vectors.shape[-2]))

    def replace_inserted(self, vectors: Tensor) -> "Rows":
        """Replace the n vectors that `insert` has inserted by others, `[n, W]`."""
        return replace(self, values=self._after_first(vectors, vectors.shape[-2]))

    def _after_first(self, vectors: Tensor, left_out: int) -> Tensor:
        """Return the first row, vectors, and the rows after the first but for the next `left_out` ones."""
        own = vectors.to(self.values.dtype).expand(*self.values.shape[:-2], -1, -1)
        return torch.cat([self.values[..., :1, :], own, self.values[..., 1 + left_out :, :]], dim=-2)

    def _write(self, vectors: Tensor) -> "Rows":
        leading = torch.broadcast_shapes(self.values.shape[:-2], vectors.shape[:-2])
        values = self.values.expand(*leading, *self.values.shape[-2:])
        vectors = vectors.to(values.dtype).expand(*leading, *vectors.shape[-2:])
        return replace(self, values=values.index_copy(-2, self.layout.slots, vectors))


def _causal(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Compute causal attention among rows `[..., P, H, d]`."""
    query, key, value = (x.transpose(-3, -2) for x in (query, key, value))
    return functional.scaled_dot_product_attention(query, key, value, is_causal=True).transpose(-3, -2)


def _attend(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
    """Compute attention of queries `[..., n, H, S, d]`, flattened to one leading dimension, as fused kernels need."""
    leading = query.shape[:-3]
    if mask is not None and mask.ndim == 4:  # a mask for each of n prompts
        mask = mask.expand(*leading, *mask.shape[-3:]).flatten(0, -4)
    query, key, value = (x.flatten(0, -4) for x in (query, key, value))
    return functional.scaled_dot_product_attention(query, key, value, attn_mask=mask).unflatten(0, leading)


def _moved(parts: Any, device: torch.device | str) -> Any:
    """Return a copy of a dataclass with its tensors on a device."""
    values = {field.name: getattr(parts, field.name) for field in fields(parts)}
    return replace(parts, **{name: x.to(device) for name, x in values.items() if isinstance(x, Tensor)})
