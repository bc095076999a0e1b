"""Which images make up which step, the same for any number of processes."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from clipadapt.data.seeds import hash_seed


@dataclass(frozen=True)
class MicroBatch:
    """What one process computes at once of a step's batch.

    Attributes:
        indices: of the images; one image that doesn't count where this process has none.
        weight: factor on the mean loss that makes the average over processes, summed over parts, the batch's mean.
    """

    indices: list[int]
    weight: float


@dataclass(frozen=True)
class BatchSampler:
    """Batches of a support set, drawn anew every epoch.

    Attributes:
        count: number of images.
        batch_size: images of one step, over all processes; the last batch of an epoch may be smaller.
        gradient_accumulation_steps: parts that a process computes its share of a batch in.
        seed: of the order.
        rank: of this process.
        processes: their number.
        most: steps of an epoch at the most, which then leaves images out; None: no limit.
    """

    count: int
    batch_size: int
    gradient_accumulation_steps: int
    seed: int
    rank: int = 0
    processes: int = 1
    most: int | None = None

    def __len__(self) -> int:
        """Steps of an epoch."""
        return len(self._starts())

    def shares(self) -> list[float]:
        """Share of an epoch's images that each of its steps sees."""
        sizes = [min(self.batch_size, self.count - first) for first in self._starts()]
        return [size / sum(sizes) for size in sizes]

    def _starts(self) -> range:
        """Where in an epoch's order its steps begin."""
        return range(0, self.count, self.batch_size)[: self.most]

    def epoch(self, epoch: int) -> Iterator[list[MicroBatch]]:
        """The steps of an epoch, each as its parts."""
        generator = torch.Generator().manual_seed(hash_seed(self.seed, epoch))
        order = torch.randperm(self.count, generator=generator).tolist()
        for first in self._starts():
            batch = order[first : first + self.batch_size]
            yield [
                self._part(batch[part :: self.gradient_accumulation_steps], len(batch))
                for part in range(self.gradient_accumulation_steps)
            ]

    def _part(self, images: list[int], batch: int) -> MicroBatch:
        own = images[self.rank :: self.processes]
        return MicroBatch(own or [0], len(own) * self.processes / batch)
