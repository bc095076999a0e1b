"""Sampling of batches: the same images in each step, for any number of processes."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from clipadapt.data.seeds import hash_seed


@dataclass(frozen=True)
class MicroBatch:
    """One process's share of a micro-batch.

    Attributes:
        indices: indices of the images; if this process has none, the first image, with weight 0.
        weight: factor on the mean loss such that the average over processes, summed over micro-batches, is the mean
            loss of the batch.
    """

    indices: list[int]
    weight: float


@dataclass(frozen=True)
class BatchSampler:
    """Sampler of a support set's batches, reshuffled every epoch.

    Attributes:
        count: number of images.
        batch_size: images of one step, over all processes; the last batch of an epoch may be smaller.
        gradient_accumulation_steps: number of micro-batches that a batch is split into.
        seed: seed of the order.
        rank: rank of this process.
        processes: number of processes.
        most: upper bound on the steps of an epoch, which then leaves images out; None for no bound.
        weights: weights `[count]` with which an epoch's images are drawn, with replacement; None takes each once.
    """

    count: int
    batch_size: int
    gradient_accumulation_steps: int
    seed: int
    rank: int = 0
    processes: int = 1
    most: int | None = None
    weights: torch.Tensor | None = None

    def __len__(self) -> int:
        """Return the number of steps of an epoch."""
        return len(self._starts())

    def shares(self) -> list[float]:
        """Return the share of an epoch's images in each of its steps."""
        sizes = [min(self.batch_size, self.count - first) for first in self._starts()]
        return [size / sum(sizes) for size in sizes]

    def _starts(self) -> range:
        """Return the position in an epoch's order of each step's first image."""
        return range(0, self.count, self.batch_size)[: self.most]

    def epoch(self, epoch: int) -> Iterator[list[MicroBatch]]:
        """Yield the steps of an epoch, each as a list of this process's micro-batches."""
        generator = torch.Generator().manual_seed(hash_seed(self.seed, epoch))
        order = self._draw(generator).tolist()
        for first in self._starts():
            batch = order[first : first + self.batch_size]
            yield [
                self._part(batch[part :: self.gradient_accumulation_steps], len(batch))
                for part in range(self.gradient_accumulation_steps)
            ]

    def _draw(self, generator: torch.Generator) -> torch.Tensor:
        if self.weights is None:
            return torch.randperm(self.count, generator=generator)
        return torch.multinomial(self.weights, self.count, replacement=True, generator=generator)

    def _part(self, images: list[int], batch: int) -> MicroBatch:
        own = images[self.rank :: self.processes]
        return MicroBatch(own or [0], len(own) * self.processes / batch)
