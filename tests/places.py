"""Where tensors are said to be, by the storages that hold their numbers."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef


class Places:
    """Which storages are on the second device or unplaced; a weak reference keeps an address from being used again.

    Attributes:
        within: whether what is running was given tensors of the second device by Python.
    """

    def __init__(self) -> None:
        self.within = False
        self._there: dict[int, StorageWeakRef] = {}
        self._unplaced: dict[int, StorageWeakRef] = {}

    def there(self, x: Tensor) -> bool:
        """Whether a tensor is on the second device."""
        return storage_key(x) in self._there

    def unplaced(self, x: Tensor) -> bool:
        """Whether a tensor is on neither device yet."""
        return storage_key(x) in self._unplaced

    def put(self, x: Tensor, there: bool) -> None:
        """Say where a tensor is, and all that share its storage."""
        self._unplaced.pop(storage_key(x), None)
        if there:
            self._there[storage_key(x)] = StorageWeakRef(x.untyped_storage())
        else:
            self._there.pop(storage_key(x), None)

    def leave(self, x: Tensor) -> None:
        """Say that a tensor is on neither device yet."""
        self._unplaced[storage_key(x)] = StorageWeakRef(x.untyped_storage())

    @contextmanager
    def call(self, there: bool) -> Iterator[None]:
        """While a call runs that was given tensors of the second device, or none."""
        before, self.within = self.within, there
        try:
            yield
        finally:
            self.within = before


def storage_key(x: Tensor) -> int:
    """Return the address of what holds a tensor's numbers."""
    return x.untyped_storage()._cdata


def tensors(of: Any) -> list[Tensor]:
    """Return the tensors in nested lists, tuples and dictionaries."""
    if isinstance(of, Tensor):
        return [of] if of.layout == torch.strided else []
    if isinstance(of, dict):
        of = list(of.values())
    return [x for part in of for x in tensors(part)] if isinstance(of, (list, tuple)) else []
