"""Views of images, in two steps: what reads an image ahead, in any process, and what makes pixels on the device."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from PIL import Image
from torch import Tensor
from torchvision import transforms
from torchvision.transforms.v2 import functional

SHARE_OF_AREA = (0.08, 1.0)
RATIOS = (3 / 4, 4 / 3)


class Transform(Protocol):
    """How images are seen."""

    @property
    def recipe(self) -> str:
        """What the pixels depend on beside the image and the seed, in words."""

    def read(self, image: Image.Image) -> Tensor:
        """What of an RGB image the views need."""

    def pixels(self, images: Sequence[Tensor], seeds: Sequence[int], device: torch.device) -> Tensor:
        """A view `[B, 3, height, width]` of each of B images that were read."""


@dataclass(frozen=True)
class CentreCrop:
    """The one view that the backbone's own transform makes of an image."""

    transform: Callable[[Image.Image], Tensor]
    recipe: str = "centre crop"

    def read(self, image: Image.Image) -> Tensor:
        """Pixels `[3, height, width]`."""
        return self.transform(image)

    def pixels(self, images: Sequence[Tensor], seeds: Sequence[int], device: torch.device) -> Tensor:
        """The pixels, stacked on the device."""
        return torch.stack([*images]).to(device, non_blocking=True)


class RandomCrops:
    """The random views CoOp trains on: a crop of 8 to 100 % of the area, resized; half of them mirrored; normalised.

    What is read is the whole image, so that one reading serves any number of views; crops are made where the images
    are. A seed gives the same view on every device, up to rounding.

    Args:
        preprocess: How the backbone sees images: `size` (a side, or height and width), `mean` and `std` of each
            channel, and `interpolation` (as "bicubic").
    """

    def __init__(self, preprocess: Mapping[str, Any]) -> None:
        sides = preprocess["size"]
        self.size = [sides, sides] if isinstance(sides, int) else list(sides)
        self.interpolation = transforms.InterpolationMode(preprocess["interpolation"])
        self.mean, self.std = list(preprocess["mean"]), list(preprocess["std"])
        self.recipe = f"random crops of {SHARE_OF_AREA} of the area, sides {RATIOS}, mirrored or not"

    def read(self, image: Image.Image) -> Tensor:
        """All of it, `[3, height, width]` in bytes."""
        return functional.pil_to_tensor(image)

    def pixels(self, images: Sequence[Tensor], seeds: Sequence[int], device: torch.device) -> Tensor:
        """A view `[B, 3, height, width]` of each of B images `[3, height, width]` in bytes."""
        views = [
            self._view(image.to(device, non_blocking=True), seed) for image, seed in zip(images, seeds, strict=True)
        ]
        return functional.normalize(torch.stack(views).clamp(0, 1), self.mean, self.std)

    def _view(self, image: Tensor, seed: int) -> Tensor:
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)  # torch.manual_seed would set the GPU's numbers too
            box = transforms.RandomResizedCrop.get_params(image, list(SHARE_OF_AREA), list(RATIOS))
            mirrored = bool(torch.rand(1) < 0.5)
        top, left, height, width = box
        crop = image[:, top : top + height, left : left + width].float() / 255
        view = functional.resize(crop, self.size, self.interpolation, antialias=True)
        return view.flip(-1) if mirrored else view
