"""Prompts to layouts: what they share first, then each one's own tokens, the longest prompts first."""

from collections.abc import Iterator, Sequence
from itertools import groupby

import torch
from torch import Tensor

from clipadapt.backbone.attention import causal_mask
from clipadapt.backbone.rows import Layout, Slot, Stack, Token

FILLING = 0.02
"""Share of the rows that may be filled up so that prompts of nearby lengths make one stack."""


def pack(
    prompts: Sequence[Sequence[Token]],
    shape: tuple[int, int],
    placeholder: int,
    first_class: int = 0,
    unshared_prefix: bool = False,
) -> Layout:
    """Lay out prompts for a causal tower that is read at each prompt's last token.

    Args:
        prompts: N token sequences, those of one class after another, without padding.
        shape: (classes, templates).
        placeholder: token id that stands in a slot.
        first_class: number of the first of these classes among all.
        unshared_prefix: whether each prompt has rows of its own of what all share at their start.
    """
    prefix = 0 if unshared_prefix else shared_start(prompts)
    lengths = [len(prompt) - prefix for prompt in prompts]
    taken = sorted(range(len(prompts)), key=lambda n: -lengths[n])
    stacks, done = [], 0
    for length, count in stack_sizes([lengths[n] for n in taken]):
        own = torch.tensor([lengths[n] for n in taken[done : done + count]])
        stacks.append(_causal_stack(length, prefix, own))
        done += count
    return _lay_out(prompts, prefix, taken, stacks, lengths, shape, placeholder, first_class)


def stack_sizes(lengths: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Length and number of prompts of each stack, for prompts of these lengths, the longest first.

    Few stacks are quick to attend in, and prompts that are filled up to the length of longer ones cost rows: lengths
    join the stack of the longer ones as long as all filling together stays below its share of the rows.
    """
    left = FILLING * sum(lengths)
    length, count = lengths[0], 0
    for shorter, group in groupby(lengths):
        more = len(list(group))
        cost = (length - shorter) * more
        if cost > left:
            yield length, count
            length, count, cost = shorter, 0, 0
        count, left = count + more, left - cost
    yield length, count


def whole(
    prompts: Sequence[Sequence[Token]],
    shape: tuple[int, int],
    placeholder: int,
    mask: Tensor | None,
    reads: Sequence[int],
    first_class: int = 0,
) -> Layout:
    """Lay out prompts of one length as whole sequences, for towers that are not causal.

    Args:
        prompts: N token sequences, padded.
        shape: (classes, templates).
        placeholder: token id that stands in a slot.
        mask: True where a token sees a token, `[S, S]` or `[N, 1, S, S]`; None where all see all.
        reads: position at which each prompt is read, N.
        first_class: number of the first of these classes among all.
    """
    places, count, length = torch.tensor(reads), len(prompts), len(prompts[0])
    each = mask if mask is None or mask.ndim == 4 else mask.expand(count, 1, -1, -1)
    end_mask = None if each is None else each[torch.arange(count), :, places].unsqueeze(-2)
    stack = Stack(count, length, mask, end_mask)
    read_after = [place + 1 for place in reads]
    return _lay_out(prompts, 0, range(count), [stack], read_after, shape, placeholder, first_class)


def shared_start(prompts: Sequence[Sequence[Token]]) -> int:
    """Length of the start that all prompts share; the last token of a prompt is always its own."""
    first, shortest = prompts[0], min(len(prompt) for prompt in prompts)
    for i in range(shortest - 1):
        token = first[i]
        own = isinstance(token, Slot) and not token.shared
        if own or any(prompt[i] != token for prompt in prompts):
            return i
    return shortest - 1


def _causal_stack(length: int, prefix: int, own: Tensor) -> Stack:
    """A stack of prompts whose own tokens, `own [n]` of them, are filled up to one length."""
    mask, end_mask = causal_mask(length, prefix, own.device), None
    if int(own.min()) < length:
        end_mask = (torch.arange(prefix + length) < prefix + own[:, None])[:, None, None]
    return Stack(len(own), length, mask if length > 1 else None, end_mask)


def _lay_out(
    prompts: Sequence[Sequence[Token]],
    prefix: int,
    taken: Sequence[int],
    stacks: Sequence[Stack],
    lengths: Sequence[int],
    shape: tuple[int, int],
    placeholder: int,
    first_class: int,
) -> Layout:
    """Rows of prompts taken in this order into stacks; prompt n is read at the last of its own `lengths[n]` tokens."""
    tokens: list[Token] = list(prompts[0][:prefix])
    positions, classes, reads = list(range(prefix)), [first_class] * prefix, []
    for n, length in zip(taken, (stack.length for stack in stacks for _ in range(stack.count)), strict=True):
        own = prompts[n][prefix:]
        filling = [_id(own[-1], placeholder)] * (length - len(own))
        reads.append(len(tokens) + lengths[n] - 1)
        tokens += [*own, *filling]
        positions += range(prefix, prefix + length)
        classes += [first_class + n // shape[1]] * length
    slots = [(row, token.index) for row, token in enumerate(tokens) if isinstance(token, Slot)]
    return Layout(
        ids=torch.tensor([_id(token, placeholder) for token in tokens]),
        positions=torch.tensor(positions),
        prefix=prefix,
        stacks=tuple(stacks),
        reads=torch.tensor(reads),
        order=torch.tensor(taken).argsort(),
        slots=torch.tensor([row for row, _ in slots], dtype=torch.long),
        slot_index=torch.tensor([index for _, index in slots], dtype=torch.long),
        slot_class=torch.tensor([classes[row] for row, _ in slots], dtype=torch.long),
        shape=shape,
    )


def _id(token: Token, placeholder: int) -> int:
    return token if isinstance(token, int) else token.id(placeholder)
