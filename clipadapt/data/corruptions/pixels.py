"""Helpers of all corruptions: pixels as numbers, and the scale of lengths that are given for images of 224 pixels."""

import math

import numpy as np
from PIL import Image

SIDE = 224
Random = np.random.Generator


def to_unit(image: Image.Image) -> np.ndarray:
    """Return an image's pixels `[height, width, 3]`, or `[height, width]` of a grey one, between 0 and 1."""
    return np.asarray(image, dtype=np.float32) / 255


def from_unit(pixels: np.ndarray) -> Image.Image:
    """Return the image of pixels between 0 and 1, clipped to that range."""
    return Image.fromarray((255 * pixels.clip(0, 1)).round().astype(np.uint8))


def scale(image: Image.Image) -> float:
    """Return the size of a pixel of an image of 224, in pixels of this image, by the shorter side."""
    return min(image.size) / SIDE


def zoom(image: Image.Image, factor: float) -> Image.Image:
    """Enlarge the centre of an image to the image's size, by linear interpolation.

    As in ImageNet-C's code: the centre has whole pixels, its first and last pixels keep their values when it is
    enlarged, and the excess is cropped.
    """
    left, top = (crop_bounds(side, factor) for side in image.size)
    return image.resize(image.size, Image.Resampling.BILINEAR, box=(left[0], top[0], left[1], top[1]))


def crop_bounds(side: int, factor: float) -> tuple[float, float]:
    """Return the start and end, in pixels, of the part of a side that `zoom` shows."""
    kept = math.ceil(side / factor)
    enlarged = round(kept * factor)
    pixel = (kept - 1) / (enlarged - 1) if kept > 1 else 1.0
    start = (side - kept) // 2 + (enlarged - side) // 2 * pixel + (1 - pixel) / 2
    return start, start + side * pixel
