"""Searches for a few weights by accuracy on the validation split."""

from collections.abc import Callable, Sequence
from itertools import product

import torch
from torch import Tensor

MOST_LOGITS = 2**24
"""The number of logits computed at once."""


def grid(least: float, most: float, count: int) -> list[float]:
    """Return `count` evenly spaced values from `least` up to `most`, excluded."""
    return [least + step * (most - least) / count for step in range(count)]


def accuracy(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the accuracies `[...]` of logits `[..., N, C]` on labels `[N]`."""
    return (logits.argmax(dim=-1) == labels).float().mean(dim=-1)


def grid_accuracies(
    terms: Callable[..., tuple[Tensor, Tensor]], labels: Tensor, *grids: Sequence[float], most: int = MOST_LOGITS
) -> Tensor:
    """Return the accuracy for each combination of values, with one dimension per grid.

    Args:
        terms: returns two summands of the logits, each `[N, C]`, for a value of every grid but the last; the value of
            the last grid multiplies the second summand.
        labels: class indices `[N]`.
        grids: the values to try.
        most: the number of logits to compute at once, at least those of one combination.
    """
    *outer, weights = grids
    rows = []
    for values in product(*outer):
        first, second = terms(*values)
        factors = torch.tensor(weights, dtype=second.dtype, device=second.device)[:, None, None]
        parts = factors.split(max(1, most // first.numel()))
        rows.append(torch.cat([accuracy(first + part * second, labels) for part in parts]))
    return torch.stack(rows).reshape([len(values) for values in grids])


def first_best(accuracies: Tensor, *grids: Sequence[float], otherwise: float = 0.0) -> list[float]:
    """Return the combination of values with the best accuracy.

    Args:
        accuracies: accuracies with one dimension per grid; of equal ones, the first counts, with the last grid varying
            fastest.
        grids: the values that were tried.
        otherwise: every value, if no image is classified correctly.
    """
    if not accuracies.any():
        return [otherwise] * len(grids)
    place = int(accuracies.argmax())
    found = []
    for values in reversed(grids):
        place, index = divmod(place, len(values))
        found.append(values[index])
    return found[::-1]
