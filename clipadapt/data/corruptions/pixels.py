"""What all corruptions share: pixels as numbers, and lengths that are given for images of 224 pixels."""

import math

import numpy as np
from PIL import Image

SIDE = 224
Random = np.random.Generator


def unit(image: Image.Image) -> np.ndarray:
    """Pixels `[height, width, 3]`, of a grey image `[height, width]`, between 0 and 1."""
    return np.asarray(image, dtype=np.float32) / 255


def from_unit(pixels: np.ndarray) -> Image.Image:
    """The image of pixels between 0 and 1; what lies beyond is clipped."""
    return Image.fromarray((255 * pixels.clip(0, 1)).round().astype(np.uint8))


def scale(image: Image.Image) -> float:
    """What a pixel of an image of 224 measures in this one, by the shorter side."""
    return min(image.size) / SIDE


def magnified(image: Image.Image, factor: float) -> Image.Image:
    """The middle of an image, enlarged to its size by linear interpolation.

    As in ImageNet-C's code: the middle has whole pixels, the first and last of them remain so when it is enlarged, and
    what is then too much is cut off.
    """
    left, top = (part_of(side, factor) for side in image.size)
    return image.resize(image.size, Image.Resampling.BILINEAR, box=(left[0], top[0], left[1], top[1]))


def part_of(side: int, factor: float) -> tuple[float, float]:
    """Where the part of a side that `magnified` shows starts and ends, in pixels."""
    kept = math.ceil(side / factor)
    enlarged = round(kept * factor)
    pixel = (kept - 1) / (enlarged - 1) if kept > 1 else 1.0
    start = (side - kept) // 2 + (enlarged - side) // 2 * pixel + (1 - pixel) / 2
    return start, start + side * pixel
