"""Views of images in two steps: a CPU step that any process can run ahead, and one that makes pixels on the device."""

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from PIL import Image
from torch import Tensor

from clipadapt.data.tasks import Augment
from clipadapt.postponed import DYNAMO, postponed_function

with postponed_function(*DYNAMO):
    from torchvision import transforms
    from torchvision.transforms import functional

SHARE_OF_AREA = (0.08, 1.0)
RATIOS = (3 / 4, 4 / 3)


class Transform(Protocol):
    """The interface of a transform from images to views."""

    @property
    def recipe(self) -> str:
        """A text that identifies the transform in a cache key: all that pixels depend on besides the image and seed."""

    def read(self, image: Image.Image) -> Tensor:
        """Return the part of an RGB image that the views need."""

    def pixels(self, images: Sequence[Tensor], seeds: Sequence[int], device: torch.device) -> Tensor:
        """Return one view `[B, 3, height, width]` of each of B images that `read` returned."""


@dataclass(frozen=True)
class CentreCrop:
    """The backbone's own transform, which makes one view of an image."""

    transform: Callable[[Image.Image], Tensor]
    recipe: str = "centre crop"

    def read(self, image: Image.Image) -> Tensor:
        """Return the pixels `[3, height, width]`."""
        return self.transform(image)

    def pixels(self, images: Sequence[Tensor], seeds: Sequence[int], device: torch.device) -> Tensor:
        """Stack the pixels on the device; seeds are not used."""
        return torch.stack([*images]).to(device, non_blocking=True)


class RandomCrops:
    """Random views as in CoOp's training: a crop of 8 to 100 % of the area, resized; half of them mirrored; normalised.

    `read` returns the whole image, which serves any number of views; crops are made on the device that the images are
    on. A seed gives the same view on every device, up to rounding, and the same crop whether views are mirrored or not.

    Args:
        preprocess: The backbone's preprocessing: `size` (a side, or height and width), `mean` and `std` of each
            channel, and `interpolation` (for example "bicubic").
        mirror: Whether half of the views are mirrored.
    """

    def __init__(self, preprocess: Mapping[str, Any], mirror: bool = True) -> None:
        sides = preprocess["size"]
        self.size = [sides, sides] if isinstance(sides, int) else list(sides)
        self.interpolation = transforms.InterpolationMode(preprocess["interpolation"])
        self.mean, self.std = list(preprocess["mean"]), list(preprocess["std"])
        self.mirror = mirror
        mirrored = "mirrored or not" if mirror else "not mirrored"
        self.recipe = f"random crops of {SHARE_OF_AREA} of the area, sides {RATIOS}, {mirrored}"

    def read(self, image: Image.Image) -> Tensor:
        """Return the whole image, `[3, height, width]` in bytes."""
        return functional.pil_to_tensor(image)

    def pixels(self, images: Sequence[Tensor], seeds: Sequence[int], device: torch.device) -> Tensor:
        """Return one view `[B, 3, height, width]` of each of B images `[3, height, width]` in bytes."""
        views = [
            self._view(image.to(device, non_blocking=True), seed) for image, seed in zip(images, seeds, strict=True)
        ]
        return functional.normalize(torch.stack(views).clamp(0, 1), self.mean, self.std)

    def _view(self, image: Tensor, seed: int) -> Tensor:
        with seeded(seed):
            box = transforms.RandomResizedCrop.get_params(image, list(SHARE_OF_AREA), list(RATIOS))
            mirrored = draw_mirrored()
        top, left, height, width = box
        crop = image[:, top : top + height, left : left + width].float() / 255
        view = functional.resize(crop, self.size, self.interpolation, antialias=True)
        return view.flip(-1) if self.mirror and mirrored else view


@dataclass(frozen=True)
class MirroredCentreCrop(CentreCrop):
    """The backbone's own transform; half of the views are mirrored."""

    recipe: str = "centre crop, mirrored or not"

    def pixels(self, images: Sequence[Tensor], seeds: Sequence[int], device: torch.device) -> Tensor:
        """Stack the pixels on the device, mirrored or not as each one's seed draws it."""
        views = [image.flip(-1) if is_mirrored(seed) else image for image, seed in zip(images, seeds, strict=True)]
        return super().pixels(views, seeds, device)


def transform_for(clip: Any, augment: Augment) -> Transform:
    """Return the transform that makes the views of support images; `clip` is the backbone."""
    if augment == "none":
        return CentreCrop(clip.transform)
    if augment == "mirror":
        return MirroredCentreCrop(clip.transform)
    return RandomCrops(clip.preprocess, mirror=augment == "crop_mirror")


DRAWING = threading.Lock()
"""Held while numbers are drawn by a seed."""


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Draw by a seed; outside the context, random numbers go on as if nothing had been drawn.

    Threads that draw wait for one another, since torch's generator is one for the whole process.
    """
    with DRAWING, torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would seed the GPU's generator too
        yield


def draw_mirrored() -> bool:
    """Draw whether a view is mirrored."""
    return bool(torch.rand(1) < 0.5)


def is_mirrored(seed: int) -> bool:
    """Return whether the view of a seed is mirrored."""
    with seeded(seed):
        return draw_mirrored()
