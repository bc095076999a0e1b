"""Random views of training images."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from PIL import Image
from torchvision import transforms

SHARE_OF_AREA = (0.08, 1.0)


def training_views(preprocess: Mapping[str, Any]) -> Callable[[Image.Image], torch.Tensor]:
    """The random view CoOp trains on: a crop of 8 to 100 % of the area, resized; half of them mirrored; normalised.

    It draws from torch's global random numbers.

    Args:
        preprocess: How the backbone sees images: `size` (a side, or height and width), `mean` and `std` of each
            channel, and `interpolation` (as "bicubic").

    Returns:
        A function from an RGB image to a tensor [3, height, width].
    """
    return transforms.Compose(
        [
            transforms.RandomResizedCrop(
                preprocess["size"],
                scale=SHARE_OF_AREA,
                interpolation=transforms.InterpolationMode(preprocess["interpolation"]),
            ),
            transforms.RandomHorizontalFlip(),
            transforms.ToTensor(),
            transforms.Normalize(preprocess["mean"], preprocess["std"]),
        ]
    )
