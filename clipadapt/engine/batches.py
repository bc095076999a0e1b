"""Which images make up which step, the same for any number of processes."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Part:
    """What one process computes at once of a step's batch.

    Attributes:
        indices: of the images; one image that doesn't count where this process has none.
        weight: factor on the mean loss that makes the average over processes, summed over parts, the batch's mean.
    """

    indices: list[int]
    weight: float


@dataclass(frozen=True)
class Batches:
    """Batches of a support set, drawn anew every epoch.

    Attributes:
        count: number of images.
        batch_size: images of one step, over all processes; the last batch of an epoch may be smaller.
        accumulate: parts that a process computes its share of a batch in.
        seed: of the order.
        rank: of this process.
        processes: their number.
    """

    count: int
    batch_size: int
    accumulate: int
    seed: int
    rank: int = 0
    processes: int = 1

    def __len__(self) -> int:
        """Steps of an epoch."""
        return -(-self.count // self.batch_size)

    def shares(self) -> list[float]:
        """Share of the support set that each step of an epoch sees."""
        sizes = [min(self.batch_size, self.count - first) for first in range(0, self.count, self.batch_size)]
        return [size / self.count for size in sizes]

    def epoch(self, epoch: int) -> Iterator[list[Part]]:
        """The steps of an epoch, each as its parts."""
        generator = torch.Generator().manual_seed(mix(self.seed, epoch))
        order = torch.randperm(self.count, generator=generator).tolist()
        for first in range(0, self.count, self.batch_size):
            batch = order[first : first + self.batch_size]
            yield [self._part(batch[part :: self.accumulate], len(batch)) for part in range(self.accumulate)]

    def _part(self, images: list[int], batch: int) -> Part:
        own = images[self.rank :: self.processes]
        return Part(own or [0], len(own) * self.processes / batch)


def mix(*numbers: int) -> int:
    """One seed from several numbers; neighbours give unrelated ones."""
    mixed = 0
    for number in numbers:
        mixed = ((mixed ^ number) * 6364136223846793005 + 1442695040888963407) % 2**63
        mixed ^= mixed >> 29
    return mixed
