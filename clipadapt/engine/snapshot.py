"""Snapshots of a fit's state, which reuse the tensors of an earlier snapshot."""

import copy
from typing import Any

import torch
from torch import Tensor


@torch.no_grad()
def copied(state: Any, into: Any = None) -> Any:
    """Return a copy of a state: nested dictionaries, lists and tensors.

    Args:
        state: the state to copy.
        into: an earlier copy; tensors of the same shape and type are overwritten, so that only one copy takes memory.
    """
    if isinstance(state, Tensor):
        fits = isinstance(into, Tensor) and (into.shape, into.dtype) == (state.shape, state.dtype)
        return into.copy_(state) if fits else state.clone()
    if isinstance(state, dict):
        found = copy.copy(state)  # keeps the class and PyTorch's `_metadata`, the modules' versions
        before = into if isinstance(into, dict) else {}
        found.update((key, copied(value, before.get(key))) for key, value in state.items())
        return found
    if isinstance(state, list | tuple):
        matching = isinstance(into, list | tuple) and len(into) == len(state)
        return type(state)(copied(value, into[i] if matching else None) for i, value in enumerate(state))
    return copy.deepcopy(state)
