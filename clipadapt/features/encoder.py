"""Images on their way to the cut: what can't change is computed once, in batches of fixed size, and found again."""

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
from clipadapt.features.cache import CacheEntry, LookupResult
from clipadapt.model import AdaptedCLIP

MICRO_BATCH = 64
"""What is kept is encoded in batches of this size, the last one filled up: its values depend on nothing else."""
WRITTEN_MB, WRITTEN_SECONDS = 64, 10.0
"""What was computed is written to disk when it is so much or took so long: no more is lost when a run is stopped."""

Item = tuple[int, int]
"""Numbers of an image and of one of its views."""


class AugmentedDataset(Dataset[Tensor]):
    """Views of labelled images; item (i, v) is view v of image i, the same whoever asks for it.

    Args:
        images: labelled images.
        transform: how they are seen.
        seed: of the views; None where they shall depend on nothing but the image's content and their number, so that
            whoever meets the image elsewhere finds the same views.
    """

    def __init__(self, images: Split, transform: Transform, seed: int | None = None) -> None:
        self.images = images
        self.transform = transform
        self.seed = seed
        self._contents: list[bytes] = []

    def __getitem__(self, index: int) -> Tensor:
        """What the views of an image are made from."""
        return self.transform.read(self.images.images[index])

    def __len__(self) -> int:
        """Number of images."""
        return len(self.images)

    @property
    def contents(self) -> list[bytes]:
        """16 bytes for the content of each image."""
        if not self._contents:
            self._contents = fingerprints(self.images.images)
        return self._contents

    def read(self, batches: Sequence[Sequence[int]], workers: int) -> Iterator[list[Tensor]]:
        """What the views of batches of images are made from, read ahead by worker processes."""
        loader = DataLoader(
            self,
            batch_sampler=batches,  # type: ignore[arg-type]
            num_workers=min(workers, len(batches)),
            collate_fn=list,
            generator=torch.Generator(),  # the loader draws from it; the run's random numbers stay as they are
        )
        return iter(loader)

    def pixels(self, read: Sequence[Tensor], items: Sequence[Item], device: torch.device) -> Tensor:
        """Pixels `[B, 3, height, width]` of these views, given what was read of their images."""
        return self.transform.pixels(read, [self._seed(*item) for item in items], device)

    def _seed(self, index: int, view: int) -> int:
        if self.seed is not None:
            return seeds.hash_seed(self.seed, index, view)
        return seeds.view_seed(self.contents[index], view)

    def keys(self, items: Sequence[Item]) -> list[bytes]:
        """A key for each view, the same for images of the same content."""
        return [digest(self.contents[index] + view.to_bytes(8, "little")) for index, view in items]


@dataclass(frozen=True)
class Encoder:
    """Computes activations at a model's image cut, or finds those that were kept.

    Attributes:
        model: whose frozen part computes them.
        workers: processes that read images.
        autocast: the context of the run's forward passes.
        rank, processes: which share of what several processes need this one computes.
        wait: returns when all processes have called it.
        update: told how many images were encoded, or found.
    """

    model: AdaptedCLIP
    workers: int
    autocast: Callable[[], AbstractContextManager[Any]] = nullcontext
    rank: int = 0
    processes: int = 1
    wait: Callable[[], object] = lambda: None
    update: Callable[[int], object] = lambda count: None

    def cache_key_fields(self, views: AugmentedDataset) -> Mapping[str, Any]:
        """What activations depend on beside the images."""
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
        """Activations of these views, in micro-batches of fixed size."""
        clip = self.model.clip
        batches = in_batches(items)
        once = [list(dict.fromkeys(index for index, _ in batch)) for batch in batches]
        for batch, indices, read in zip(batches, once, views.read(once, self.workers), strict=True):
            images = dict(zip(indices, read, strict=True))
            pixels = views.pixels([images[index] for index, _ in batch], batch, clip.device).to(clip.dtype)
            filled = torch.cat([pixels, pixels.new_zeros(MICRO_BATCH - len(pixels), *pixels.shape[1:])])
            with self.autocast():
                values = self.model.prefix(filled)
            yield values[: len(batch)]
            self.update(len(batch))

    def find(self, views: AugmentedDataset, items: Sequence[Item], entry: CacheEntry, shared: bool) -> LookupResult:
        """Activations of these views from a shelf, those that aren't there computed and put there before.

        Args:
            views: of the images.
            items: the views.
            entry: where they are kept.
            shared: whether all processes ask for the same, so that each computes a part.
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
        if found.missing:  # another process failed, writes elsewhere, or made room for something else
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
        """Compute the views at these places and write them, now and then."""
        done, pending, since = 0, [], time.monotonic()
        for values in self.compute(views, [items[place] for place in places]):
            pending.append(values)
            megabytes = sum(x.numel() * x.element_size() for x in pending) / 1e6
            count = sum(map(len, pending))
            if done + count < len(places) and megabytes < WRITTEN_MB and time.monotonic() - since < WRITTEN_SECONDS:
                continue
            entry.write([keys[place] for place in places[done : done + count]], torch.cat(pending).cpu())
            done, pending, since = done + count, [], time.monotonic()


def in_batches(items: Sequence[Item]) -> list[list[Item]]:
    """Items in micro-batches."""
    return [list(items[first : first + MICRO_BATCH]) for first in range(0, len(items), MICRO_BATCH)]
