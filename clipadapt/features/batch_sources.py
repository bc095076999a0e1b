"""Where a fit's images come from: activations that were kept, in memory or on disk, or images seen anew every epoch."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

from clipadapt.features.cache import LookupResult
from clipadapt.features.encoder import AugmentedDataset, Item

IndexBatches = Sequence[Sequence[int]]
BatchIterator = Iterator[tuple[Tensor, Tensor, *tuple[Tensor, ...]]]
"""Activations, labels, and where an objective has teachers, the features of each."""


class BatchSource(Protocol):
    """Where a fit's images come from."""

    @property
    def start(self) -> str:
        """The point of the image tower at which they come."""

    def iterate(self, batches: IndexBatches, epoch: int) -> BatchIterator:
        """Activations and labels of batches of image indices."""


def on_device(batches: IndexBatches, device: torch.device) -> Iterator[Tensor]:
    """Indices of batches on a device, brought there at once: nothing waits for them later."""
    order = torch.tensor([index for batch in batches for index in batch], device=device)
    return iter(order.split([len(batch) for batch in batches]))


@dataclass(frozen=True)
class InMemoryFeatures:
    """Activations that can't change, in the device's memory.

    Attributes:
        values: activation at the cut of every view of every image, `[views, N, ...]`.
        labels: targets, `[N, ...]`.
        start: name of the cut.
    """

    values: Tensor
    labels: Tensor
    start: str

    def iterate(self, batches: IndexBatches, epoch: int) -> BatchIterator:
        """Activations and labels of batches of images; every epoch has the next of the kept views."""
        views = self.values[epoch % len(self.values)]
        for indices in on_device(batches, views.device):
            yield views[indices], self.labels[indices]


@dataclass(frozen=True)
class MemmapFeatures:
    """Activations that can't change, on disk.

    Attributes:
        found: activations of the first view of every image, then of the second ….
        labels: targets, `[N, ...]`, on the device where they are needed.
        views: number of views.
        start: name of the cut.
    """

    found: LookupResult
    labels: Tensor
    views: int
    start: str

    def iterate(self, batches: IndexBatches, epoch: int) -> BatchIterator:
        """Activations and labels of batches of images; every epoch has the next of the kept views."""
        first = epoch % self.views * len(self.labels)
        for batch, indices in zip(batches, on_device(batches, self.labels.device), strict=True):
            values = self.found.gather([first + index for index in batch])
            yield values.to(self.labels.device, non_blocking=True), self.labels[indices]


@dataclass
class AugmentedImages:
    """Images seen anew every epoch; what was read of them is kept as far as memory permits, so it's read once.

    Attributes:
        views: of the images.
        labels: their targets, `[N, ...]`.
        device: where they are needed.
        workers: processes that read them.
        keep_bytes: most bytes of what was read that are kept.
        cycle: number of views that the epochs go round; None for new ones every epoch.
        teacher_encoders: what else is made of views, given what was read of their images.
        start: name of what it yields.
    """

    views: AugmentedDataset
    labels: Tensor
    device: torch.device
    workers: int
    keep_bytes: float
    cycle: int | None = None
    teacher_encoders: Sequence[Callable[[Sequence[Tensor], Sequence[Item]], Tensor]] = ()
    start: str = "pixels"
    _read: dict[int, Tensor] = field(default_factory=dict)
    _held: int = 0

    def iterate(self, batches: IndexBatches, epoch: int) -> BatchIterator:
        """Pixels and labels of batches of images."""
        view = epoch % self.cycle if self.cycle else epoch
        absent = [[index for index in batch if index not in self._read] for batch in batches]
        arriving = self.views.read([some for some in absent if some], self.workers) if any(absent) else iter([])
        labels = self.labels.to(self.device)
        for batch, some, indices in zip(batches, absent, on_device(batches, self.device), strict=True):
            new = dict(zip(some, next(arriving), strict=True)) if some else {}
            read = [new[index] if index in new else self._read[index] for index in batch]
            self._keep(new)
            items = [(index, view) for index in batch]
            more = (look(read, items) for look in self.teacher_encoders)
            yield self.views.pixels(read, items, self.device), labels[indices], *more

    def _keep(self, new: dict[int, Tensor]) -> None:
        for index, read in new.items():
            size = read.numel() * read.element_size()
            if index not in self._read and self._held + size <= self.keep_bytes:
                self._read[index] = read.clone()  # what a worker process sent holds a file descriptor
                self._held += size
