"""Encoding of images up to the image cut, in micro-batches of fixed size, with a disk cache."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from clipadapt.data import seeds
from clipadapt.data.images import digest, fingerprints
from clipadapt.data.tasks import Split
from clipadapt.data.transforms import Transform
from clipadapt.errors import UserError
from clipadapt.features.cache import CacheEntry, LookupResult
from clipadapt.model import AdaptedCLIP

MICRO_BATCH = 64
"""Images per forward pass; the last batch is padded, so that an activation doesn't depend on the number of images."""
WRITTEN_MB, WRITTEN_SECONDS = 64, 10.0
"""Size and time after which computed activations are written to disk: a stopped run loses no more than that."""

Item = tuple[int, int]
"""Indices of an image and of one of its views."""


class AugmentedDataset(Dataset[Tensor | UserError]):
    """Augmented views of labelled images; item (i, v) is view v of image i, the same in every process.

    Args:
        images: labelled images.
        transform: the augmentation.
        seed: seed of the views; if None, views are seeded by the image's content and the view's index, so that the
            same image has the same views in every data set.
    """

    def __init__(self, images: Split, transform: Transform, seed: int | None = None) -> None:
        self.images = images
        self.transform = transform
        self.seed = seed
        self._contents: list[bytes] = []

    def __getitem__(self, index: int) -> Tensor | UserError:
        """Read an image as the transform needs it; return the error for an image that can't be read.

        A worker process would send back an error that is raised as the text of its traceback.
        """
        try:
            return self.transform.read(self.images.images[index])
        except UserError as error:
            return error

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.images)

    @property
    def contents(self) -> list[bytes]:
        """Return a hash of each image's content, 16 bytes each."""
        if not self._contents:
            self._contents = fingerprints(self.images.images)
        return self._contents

    def read(self, batches: Sequence[Sequence[int]], workers: int) -> Iterator[list[Tensor]]:
        """Yield batches of images as the transform needs them, read ahead by worker processes.

        Raises:
            UserError: an image can't be read.
        """
        loader = DataLoader(
            self,
            batch_sampler=batches,  # type: ignore[arg-type]
            num_workers=min(workers, len(batches)),
            collate_fn=list,
            generator=torch.Generator(),  # so that the loader draws nothing from the run's random numbers
        )
        return map(without_errors, loader)

    def pixels(self, read: Sequence[Tensor], items: Sequence[Item], device: torch.device) -> Tensor:
        """Return the pixels `[B, 3, height, width]` of these views, given their images from `read`."""
        return self.transform.pixels(read, [self._seed(*item) for item in items], device)

    def _seed(self, index: int, view: int) -> int:
        if self.seed is not None:
            return seeds.hash_seed(self.seed, index, view)
        return seeds.view_seed(self.contents[index], view)

    def keys(self, items: Sequence[Item]) -> list[bytes]:
        """Return a cache key for each view, the same for images of the same content."""
        return [digest(self.contents[index] + view.to_bytes(8, "little")) for index, view in items]


@dataclass(frozen=True)
class Encoder:
    """Encoder of images up to a model's image cut, with lookup of cached activations.

    Attributes:
        model: the model whose frozen part computes the activations.
        workers: number of processes that read images.
        autocast: the context of the run's forward passes.
        rank, processes: rank of this process and number of processes, which share the encoding.
        wait: barrier; returns when all processes have called it.
        update: called with the number of images that were encoded or found in the cache.
    """

    model: AdaptedCLIP
    workers: int
    autocast: Callable[[], AbstractContextManager[Any]] = nullcontext
    rank: int = 0
    processes: int = 1
    wait: Callable[[], object] = lambda: None
    update: Callable[[int], object] = lambda count: None

    def cache_key_fields(self, views: AugmentedDataset) -> Mapping[str, Any]:
        """Return all that activations depend on beside the images."""
        clip = self.model.clip
        return {
            "backbone": clip.fingerprint,
            "tower": self.model.image.name,
            "point": self.model.image_cut,
            "views": views.transform.recipe,
            "numbers": str(clip.dtype),
            "device": clip.device.type,
            "batch": MICRO_BATCH,
            "torch": torch.__version__,
        }

    def compute(self, views: AugmentedDataset, items: Sequence[Item]) -> Iterator[Tensor]:
        """Encode these views; yield their activations in micro-batches.

        An image whose views follow each other is read once.
        """
        clip = self.model.clip
        batches = in_batches(items)
        needed = [list(dict.fromkeys(index for index, _ in batch)) for batch in batches]
        new = [[i for i in some if i not in before] for before, some in zip([[], *needed], needed, strict=False)]
        images: dict[int, Tensor] = {}
        for batch, indices, read in zip(batches, new, views.read(new, self.workers), strict=True):
            images = {i: images[i] for i, _ in batch if i in images} | dict(zip(indices, read, strict=True))
            pixels = views.pixels([images[index] for index, _ in batch], batch, clip.device).to(clip.dtype)
            filled = torch.cat([pixels, pixels.new_zeros(MICRO_BATCH - len(pixels), *pixels.shape[1:])])
            with self.autocast():
                values = self.model.prefix(filled)
            yield values[: len(batch)]
            self.update(len(batch))

    def find(self, views: AugmentedDataset, items: Sequence[Item], entry: CacheEntry, shared: bool) -> LookupResult:
        """Look up the activations of these views in a cache entry; encode and write the missing ones first.

        Args:
            views: augmented dataset of the images.
            items: image and view indices.
            entry: the cache entry.
            shared: whether all processes look up the same views, so that each encodes a part of the missing ones.
        """
        keys = views.keys(items)
        found = entry.find(keys)
        if found.rows:
            self.update(len(found.rows))
        mine = [p for p in found.missing if not shared or p // MICRO_BATCH % self.processes == self.rank]
        self._put(views, items, keys, mine, entry)
        if shared:
            self.wait()
        found = entry.find(keys) if found.missing else found
        if found.missing:  # another process failed, has another cache folder, or removed the rows to make room
            self._put(views, items, keys, found.missing, entry)
            found = entry.find(keys)
        return found

    def _put(
        self,
        views: AugmentedDataset,
        items: Sequence[Item],
        keys: Sequence[bytes],
        places: Sequence[int],
        entry: CacheEntry,
    ) -> None:
        """Encode the items at these positions; write the activations to the entry each time enough have gathered."""
        done, pending, since = 0, [], time.monotonic()
        for values in self.compute(views, [items[place] for place in places]):
            pending.append(values)
            megabytes = sum(x.numel() * x.element_size() for x in pending) / 1e6
            count = sum(map(len, pending))
            if done + count < len(places) and megabytes < WRITTEN_MB and time.monotonic() - since < WRITTEN_SECONDS:
                continue
            entry.write([keys[place] for place in places[done : done + count]], torch.cat(pending).cpu())
            done, pending, since = done + count, [], time.monotonic()


def without_errors(batch: Sequence[Tensor | UserError]) -> list[Tensor]:
    """Return a batch of images; raises the error of one that can't be read."""
    for image in batch:
        if isinstance(image, UserError):
            raise image
    return [image for image in batch if isinstance(image, Tensor)]


def in_batches(items: Sequence[Item]) -> list[list[Item]]:
    """Split items into micro-batches."""
    return [list(items[first : first + MICRO_BATCH]) for first in range(0, len(items), MICRO_BATCH)]
