"""Images on their way to the cut: computed once and kept where they can't change, anew every epoch where they do."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from clipadapt.classifier import Classifier
from clipadapt.data.tasks import Split
from clipadapt.engine.batches import mix

MICRO_BATCH = 64
"""What is kept is encoded in batches of this size, the last one filled up: its values depend on nothing else."""

Transform = Callable[[Image.Image], Tensor]


class Views(Dataset[tuple[Tensor, int]]):
    """Views of labelled images; item (i, v) is view v of image i, the same whoever asks for it.

    Args:
        images: labelled images.
        transform: image to pixels; may draw from torch's random numbers.
        seed: of the views.
    """

    def __init__(self, images: Split, transform: Transform, seed: int = 0) -> None:
        self.images = images
        self.transform = transform
        self.seed = seed

    def __getitem__(self, item: tuple[int, int]) -> tuple[Tensor, int]:
        """Pixels `[3, height, width]` and label."""
        index, view = item
        image, label = self.images[index]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(mix(self.seed, index, view))
            return self.transform(image), label

    def load(self, batches: list[list[tuple[int, int]]], workers: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Pixels `[B, 3, height, width]` and labels `[B]` of batches of items, read ahead by worker processes."""
        return iter(DataLoader(self, batch_sampler=batches, num_workers=min(workers, len(batches))))


@dataclass(frozen=True)
class Kept:
    """Activations that can't change.

    Attributes:
        values: activation at the cut of every view of every image, `[views, N, ...]`.
        labels: class indices, `[N]`.
        start: name of the cut.
    """

    values: Tensor
    labels: Tensor
    start: str

    def feed(self, batches: list[list[int]], epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Activations and labels of batches of images; every epoch has the next of the kept views."""
        views = self.values[epoch % len(self.values)]
        for batch in batches:
            indices = torch.tensor(batch, device=views.device)
            yield views[indices], self.labels[indices]


@dataclass(frozen=True)
class Fresh:
    """Images read, and where the transform is random augmented, anew every epoch.

    Attributes:
        views: of the images.
        device: where they are needed.
        workers: processes that read them.
        cycle: number of views that the epochs go round; None for new ones every epoch.
        start: name of what it yields.
    """

    views: Views
    device: torch.device
    workers: int
    cycle: int | None = None
    start: str = "pixels"

    def feed(self, batches: list[list[int]], epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Pixels and labels of batches of images."""
        view = epoch % self.cycle if self.cycle else epoch
        items = [[(index, view) for index in batch] for batch in batches]
        for pixels, labels in self.views.load(items, self.workers):
            yield pixels.to(self.device, non_blocking=True), labels.to(self.device, non_blocking=True)


def size_mb(classifier: Classifier, count: int, views: int) -> float:
    """Megabytes that the activations at the classifier's image cut take, of so many images with so many views."""
    shape = activation_shape(classifier)
    return views * count * torch.Size(shape).numel() * classifier.clip.dtype.itemsize / 1e6


def activation_shape(classifier: Classifier) -> tuple[int, ...]:
    """Shape of one image's activation at the image cut."""
    sides = classifier.clip.preprocess["size"]
    height, width = (sides, sides) if isinstance(sides, int) else sides
    blank = torch.zeros(1, 3, height, width, device=classifier.clip.device)
    return tuple(classifier.prefix(blank).shape[1:])


def encode(classifier: Classifier, views: Views, count: int, numbers: Sequence[int], workers: int) -> Kept:
    """Compute the activations at the image cut of the views with these numbers, of `count` images."""
    kept = [list(prefixes(classifier, views, [(i, number) for i in range(count)], workers)) for number in numbers]
    values = torch.stack([torch.cat([values for values, _ in view]) for view in kept])
    return Kept(values, torch.cat([labels for _, labels in kept[0]]), classifier.image_cut)


def prefixes(
    classifier: Classifier, views: Views, items: list[tuple[int, int]], workers: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """Activations at the image cut and labels of these views, in micro-batches of fixed size."""
    batches = [items[first : first + MICRO_BATCH] for first in range(0, len(items), MICRO_BATCH)]
    for pixels, labels in views.load(batches, workers):
        filled = torch.cat([pixels, pixels.new_zeros(MICRO_BATCH - len(pixels), *pixels.shape[1:])])
        values = classifier.prefix(filled.to(classifier.clip.device, classifier.clip.dtype))[: len(pixels)]
        yield values, labels.to(classifier.clip.device)
