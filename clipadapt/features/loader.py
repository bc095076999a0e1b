"""Loading of features and training batches, and the decision which of them to cache, and where."""

import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from clipadapt.data.tasks import Augment, Split, Task
from clipadapt.data.transforms import transform_for
from clipadapt.errors import WriteError
from clipadapt.features.batch_sources import AugmentedImages, BatchSource, InMemoryFeatures, MemmapFeatures
from clipadapt.features.cache import CacheEntry, LookupResult, Store, unusable
from clipadapt.features.encoder import MICRO_BATCH, AugmentedDataset, Encoder, Item, in_batches
from clipadapt.features.memory import SHARE, free_bytes
from clipadapt.model import AdaptedCLIP, image_megabytes

BESIDE_A_ROW = 64
"""Upper bound on the bytes that an activation takes on disk beside its values: key, checksum, share of a header."""

USUAL_CACHE = "~/.cache/clipadapt"
"""The folder of the disk cache in conf/engine/, where nobody has named one."""

ProgressUpdate = Callable[[int], object]
ProgressFactory = Callable[[int], AbstractContextManager[ProgressUpdate]]
"""Makes a progress bar for a number of images: a context that yields an update function for the images encoded."""


def no_progress(count: int) -> AbstractContextManager[ProgressUpdate]:
    """Return a progress bar that shows nothing."""
    return nullcontext(lambda done: None)


class Processes(Protocol):
    """Processes of a run, with their device and number format: an Accelerate `Accelerator`, or alike."""

    @property
    def device(self) -> torch.device:
        """Return the device of this process."""

    @property
    def process_index(self) -> int:
        """Return the rank of this process."""

    @property
    def num_processes(self) -> int:
        """Return the number of processes."""

    def autocast(self) -> AbstractContextManager[Any]:
        """Return the context of forward passes in the run's number format."""

    def wait_for_everyone(self) -> None:
        """Wait until every process has called this."""


@dataclass(frozen=True)
class CachePlacement:
    """Placement of cached activations, and their size.

    Attributes:
        in_memory: whether they are in the device's memory.
        on_disk: whether they are in the disk cache, for other runs, or because they don't fit in memory.
        megabytes: their size.
    """

    in_memory: bool
    on_disk: bool
    megabytes: float = 0.0

    @property
    def anywhere(self) -> bool:
        """Return whether activations are cached at all."""
        return self.in_memory or self.on_disk


@dataclass(frozen=True)
class FeatureLoader:
    """Loader of a run's images and features, with a cache in memory and on disk.

    Attributes:
        processes: the run's processes, device and number format.
        workers: number of processes that read images.
        cache: folder of the disk cache; None for no disk cache.
        cache_gb: gigabytes that the disk cache may take.
        keep_mb: megabytes of memory that features or images may take; None for half of the free memory.
        progress: makes the progress bar of the encoding.
        collate: makes one tensor `[N, ...]` of the targets of N images; depends on the kind of task.
    """

    processes: Processes
    workers: int = 0
    cache: str | None = None
    cache_gb: float = 20.0
    keep_mb: float | None = None
    progress: ProgressFactory = no_progress
    collate: Callable[[Sequence[Any]], Tensor] = torch.tensor

    def placement(self, model: AdaptedCLIP, task: Task) -> CachePlacement:
        """Decide where the activations of the support set's views are cached, by the settings and the free memory."""
        if task.views is None:
            return CachePlacement(in_memory=False, on_disk=False)
        count = len(task.support) * max(1, task.views)
        megabytes = image_megabytes(model) * count
        return CachePlacement(
            megabytes <= self._limit_mb(self.processes.device), self._on_disk(model, count), megabytes
        )

    def _on_disk(self, model: AdaptedCLIP, count: int) -> bool:
        """Return whether `count` activations go to the disk cache; pixels, which aren't computed, never do."""
        computed = model.image_cut != model.clip.image.points[0]
        size = count * (1e6 * image_megabytes(model) + BESIDE_A_ROW)
        return computed and self.cache is not None and size <= 1e9 * self.cache_gb

    def _limit_mb(self, device: torch.device) -> float:
        return SHARE * free_bytes(device) / 1e6 if self.keep_mb is None else self.keep_mb

    def describe(self, model: AdaptedCLIP, task: Task, placement: CachePlacement) -> str:
        """Describe the cached activations of the support set: point, size and placement."""
        if task.views is None:
            return "nothing: fresh views every epoch; images are read once, as far as memory permits"
        if not placement.anywhere:
            limits = ["engine.keep_mb"] + ["engine.cache_gb"] * (self.cache is not None)
            return f"nothing: above {' and '.join(limits)}"
        places = ["in memory"] * placement.in_memory + [f"in {self.cache}"] * placement.on_disk
        views = f", {task.views} views of each" if task.views > 1 else ""
        activations = f"{model.image_cut} of {len(task.support)} images{views}"
        return f"{activations}, {placement.megabytes:.1f} MB, {' and '.join(places)}"

    def support(self, model: AdaptedCLIP, task: Task, placement: CachePlacement) -> BatchSource:
        """Return the batch source of the support set; cached activations are computed here."""
        cycle = None if task.views is None else max(1, task.views)
        views = _views(model, task.support, task.augmentation, task.seed if cycle is None else None)
        if cycle is None or not placement.anywhere:
            limit = 1e6 * self._limit_mb(torch.device("cpu"))
            return AugmentedImages(
                views, self.collate(views.images.labels), self.processes.device, self.workers, limit, cycle
            )
        labels = self.collate(views.images.labels).to(self.processes.device)
        values = self._values(model, views, cycle, placement.on_disk)
        if isinstance(values, LookupResult) and not placement.in_memory:
            return MemmapFeatures(values, labels, cycle, model.image_cut)
        return InMemoryFeatures(self._in_memory(values, cycle), labels, model.image_cut)

    def values(self, model: AdaptedCLIP, split: Split, views: int, augment: Augment) -> Tensor:
        """Return the image-cut activations of views of a split's images, `[views, N, ...]`."""
        dataset = _views(model, split, augment)
        values = self._values(model, dataset, views, self._on_disk(model, views * len(split)))
        return self._in_memory(values, views)

    def _values(self, model: AdaptedCLIP, views: AugmentedDataset, cycle: int, on_disk: bool) -> Tensor | LookupResult:
        """Return the activations of all `cycle` views of the first image, then of the second, and so on.

        They are encoded, each image being read once, or looked up in the disk cache.
        """
        items = [(index, view) for index in range(len(views)) for view in range(cycle)]
        with self.progress(len(items)) as update:
            encoder = self._encoder(model, update)
            if not on_disk:
                return torch.cat(list(encoder.compute(views, items)))
            return encoder.find(views, items, self._entry(encoder, views), shared=True)

    def _in_memory(self, values: Tensor | LookupResult, views: int) -> Tensor:
        """Return values that are ordered by image as `[views, N, ...]`, on the device."""
        found = values.gather(range(len(values.rows))) if isinstance(values, LookupResult) else values
        return found.to(self.processes.device).unflatten(0, (-1, views)).transpose(0, 1)

    def test_views(self, model: AdaptedCLIP, split: Split, views: int, images: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield activations `[B, V, ...]` of V views, and labels, of this process's share of a test set.

        The first view is the centre crop, the others are random.

        Args:
            model: the model.
            split: the test set.
            views: number V of views of each image.
            images: number B of images of a batch.
        """
        own = self.share(split)
        labels = self.collate(split.labels).to(self.processes.device)
        plain, random = _views(model, split, "none"), _views(model, split, "crop_mirror")
        with self.progress(views * len(own)) as update:
            encoder = self._encoder(model, update)
            first = TensorReader(self._test_values(encoder, plain, [(i, 0) for i in own]))
            others = TensorReader(
                self._test_values(encoder, random, [(i, view) for i in own for view in range(1, views)])
            )
            for some in (own[n : n + images] for n in range(0, len(own), images)):
                parts = [first.read(len(some)).unsqueeze(1)]
                if views > 1:
                    parts.append(others.read(len(some) * (views - 1)).unflatten(0, (len(some), -1)))
                yield torch.cat(parts, dim=1), labels[some]

    def test_batches(self, model: AdaptedCLIP, split: Split) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the activations and labels of this process's share of a test set, in micro-batches."""
        items = [(i, 0) for i in self.share(split)]
        labels = self.collate(split.labels).to(self.processes.device)
        views = _views(model, split, "none")
        with self.progress(len(items)) as update:
            values = self._test_values(self._encoder(model, update), views, items)
            for batch, activations in zip(in_batches(items), values, strict=True):
                yield activations, labels[[index for index, _ in batch]]

    def share(self, split: Split) -> list[int]:
        """Return the indices of the test images that this process evaluates, in the test set's order."""
        rank, processes = self.processes.process_index, self.processes.num_processes
        return [i for i in range(len(split)) if i // MICRO_BATCH % processes == rank]

    def _test_values(self, encoder: Encoder, views: AugmentedDataset, items: Sequence[Item]) -> Iterator[Tensor]:
        if not self._on_disk(encoder.model, len(items)):
            yield from encoder.compute(views, items)
            return
        found = encoder.find(views, items, self._entry(encoder, views), shared=False)
        for first in range(0, len(items), MICRO_BATCH):
            values = found.gather(range(first, min(first + MICRO_BATCH, len(items))))
            yield values.to(self.processes.device, non_blocking=True)

    def _encoder(self, model: AdaptedCLIP, update: ProgressUpdate) -> Encoder:
        return Encoder(
            model,
            workers=self.workers,
            autocast=self.processes.autocast,
            rank=self.processes.process_index,
            processes=self.processes.num_processes,
            wait=self.processes.wait_for_everyone,
            update=update,
        )

    def _entry(self, encoder: Encoder, views: AugmentedDataset) -> CacheEntry:
        store = open_store(self.cache, self.cache_gb)
        assert store is not None, "nothing is kept on disk"
        return store.entry(encoder.cache_key_fields(views))


def open_store(cache: str | None, cache_gb: float) -> Store | None:
    """Return the disk cache in a folder, limited to `cache_gb` gigabytes; None without a folder.

    Raises:
        WriteError: the folder is below a home folder that isn't known.
    """
    if cache is None:
        return None
    try:
        folder = Path(cache).expanduser()
    except RuntimeError as error:
        raise unusable(Path(cache), "there is no home folder") from error
    return Store(folder, int(1e9 * cache_gb))


def usable_cache(cache: str | None, cache_gb: float) -> str | None:
    """Return the folder of the disk cache after a check, before work begins, that it can be written.

    A folder that the user has named must be; without the usual one, as in a container that has no home folder, nothing
    is kept on disk. Processes of one job must agree, so that each needs its folder.

    Raises:
        WriteError: the folder can't be written.
    """
    alone = int(os.environ.get("WORLD_SIZE", "1")) < 2
    try:
        store = open_store(cache, cache_gb)
        if store is not None:
            store.check()
    except WriteError as error:
        if cache != USUAL_CACHE or not alone:
            raise
        warnings.warn(f"every run computes anew what could be kept: {error}", stacklevel=2)
        return None
    return cache


def _views(model: AdaptedCLIP, split: Split, augment: Augment, seed: int | None = None) -> AugmentedDataset:
    """Return the augmented dataset of a split."""
    return AugmentedDataset(split, transform_for(model.clip, augment), seed)


class TensorReader:
    """Reader that takes any number of rows at a time from an iterator of tensors.

    Args:
        parts: the tensors, `[n, ...]` each.
    """

    def __init__(self, parts: Iterator[Tensor]) -> None:
        self._parts = parts
        self._left: Tensor | None = None

    def read(self, count: int) -> Tensor:
        """Return the next `count` rows."""
        parts = [] if self._left is None else [self._left]
        while sum(map(len, parts)) < count:
            parts.append(next(self._parts))
        rows = torch.cat(parts)
        self._left = rows[count:]
        return rows[:count]
