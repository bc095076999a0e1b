"""Training batches: cached features in memory or on disk, or images with fresh augmentations every epoch."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

from clipadapt.features.cache import LookupResult
from clipadapt.features.encoder import AugmentedDataset, Item

IndexBatches = Sequence[Sequence[int]]
BatchIterator = Iterator[tuple[Tensor, Tensor, *tuple[Tensor, ...]]]
"""Batches of activations, labels, and, if the objective has teachers, the features of each teacher."""


class BatchSource(Protocol):
    """Source of the training batches of a fit."""

    @property
    def start(self) -> str:
        """Return the point of the image tower at which the activations enter."""

    def iterate(self, batches: IndexBatches, epoch: int) -> BatchIterator:
        """Yield the activations and labels of batches of image indices."""


def on_device(batches: IndexBatches, device: torch.device) -> Iterator[Tensor]:
    """Move the indices of all batches to a device in one transfer, so that no step waits; yield them by batch."""
    order = torch.tensor([index for batch in batches for index in batch], device=device)
    return iter(order.split([len(batch) for batch in batches]))


@dataclass(frozen=True)
class InMemoryFeatures:
    """Frozen features in the device's memory.

    Attributes:
        values: activations at the image cut of all views of all images, `[views, N, ...]`.
        labels: targets, `[N, ...]`.
        start: name of the image cut.
    """

    values: Tensor
    labels: Tensor
    start: str

    def iterate(self, batches: IndexBatches, epoch: int) -> BatchIterator:
        """Yield the activations and labels of batches of images; epoch e reads stored view e modulo `views`."""
        views = self.values[epoch % len(self.values)]
        for indices in on_device(batches, views.device):
            yield views[indices], self.labels[indices]


@dataclass(frozen=True)
class MemmapFeatures:
    """Frozen features in memory-mapped files.

    Attributes:
        found: activations of all views of the first image, then of the second, and so on.
        labels: targets, `[N, ...]`, on the device of the fit.
        views: number of views.
        start: name of the image cut.
    """

    found: LookupResult
    labels: Tensor
    views: int
    start: str

    def iterate(self, batches: IndexBatches, epoch: int) -> BatchIterator:
        """Yield the activations and labels of batches of images; epoch e reads stored view e modulo `views`."""
        view = epoch % self.views
        for batch, indices in zip(batches, on_device(batches, self.labels.device), strict=True):
            values = self.found.gather([index * self.views + view for index in batch])
            yield values.to(self.labels.device, non_blocking=True), self.labels[indices]


@dataclass
class AugmentedImages:
    """Images with fresh augmentations every epoch; decoded images stay in memory up to a limit.

    Attributes:
        views: augmented dataset of the images.
        labels: targets, `[N, ...]`.
        device: device of the batches.
        workers: number of processes that read images.
        keep_bytes: bytes of decoded images that may stay in memory.
        cycle: number of views, which the epochs take in turn; None for new views every epoch.
        teacher_encoders: functions from the decoded images and the views of a batch to a teacher's features `[B, D]`.
        start: name of the point at which the batches enter the image tower.
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
    _read_bytes: int = 0

    def iterate(self, batches: IndexBatches, epoch: int) -> BatchIterator:
        """Yield the pixels and labels of batches of images, and the features of each teacher."""
        view = epoch % self.cycle if self.cycle else epoch
        absent = [[index for index in batch if index not in self._read] for batch in batches]
        arriving = self.views.read([some for some in absent if some], self.workers) if any(absent) else iter([])
        labels = self.labels.to(self.device)
        for batch, some, indices in zip(batches, absent, on_device(batches, self.device), strict=True):
            new = dict(zip(some, next(arriving), strict=True)) if some else {}
            read = [new[index] if index in new else self._read[index] for index in batch]
            self._remember(new)
            items = [(index, view) for index in batch]
            teacher_features = (encode(read, items) for encode in self.teacher_encoders)
            yield self.views.pixels(read, items, self.device), labels[indices], *teacher_features

    def _remember(self, new: dict[int, Tensor]) -> None:
        for index, read in new.items():
            size = read.numel() * read.element_size()
            if index not in self._read and self._read_bytes + size <= self.keep_bytes:
                self._read[index] = read.clone()  # a tensor from a worker process holds a file descriptor
                self._read_bytes += size
