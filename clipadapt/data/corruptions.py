"""Corrupted test images (Hendrycks & Dietterich, ICLR 2019, arXiv:1903.12261): kinds of ImageNet-C's, five severities.

Severities have the values of its code (github.com/hendrycks/robustness, ImageNet-C/create_c/make_imagenet_c.py; there
`gaussian_blur` is an extra), for images of 224 pixels. Larger images are cropped to that first, as there; on smaller
ones blurs are narrower in proportion. The kinds that need pictures of frost or snow, or displace pixels, are left out:
read a prepared ImageNet-C as a folder.
"""

import io
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Annotated, Literal

import numpy as np
from annotated_types import Interval
from PIL import Image, ImageFilter, ImageOps

from clipadapt.data.images import Pictures, fingerprints
from clipadapt.data.tasks import Split

SIDE = 224
Random = np.random.Generator


def gaussian_noise(image: Image.Image, deviation: float, random: Random) -> Image.Image:
    """Noise of one deviation, in shares of white."""
    pixels = unit(image)
    return from_unit(pixels + random.normal(scale=deviation, size=pixels.shape))


def shot_noise(image: Image.Image, photons: float, random: Random) -> Image.Image:
    """Poisson noise, with so many photons where the image is white."""
    return from_unit(random.poisson(unit(image) * photons) / photons)


def impulse_noise(image: Image.Image, share: float, random: Random) -> Image.Image:
    """A share of all values turned black or white."""
    pixels = unit(image)
    hit = random.random(pixels.shape) < share
    return from_unit(np.where(hit, random.integers(0, 2, pixels.shape), pixels))


def gaussian_blur(image: Image.Image, deviation: float, random: Random) -> Image.Image:
    """A blur of so many pixels' deviation in an image of 224."""
    return image.filter(ImageFilter.GaussianBlur(deviation * min(image.size) / SIDE))


def brightness(image: Image.Image, added: float, random: Random) -> Image.Image:
    """More of HSV's value."""
    hue, saturation, value = image.convert("HSV").split()
    brighter = value.point([min(255, round(level + 255 * added)) for level in range(256)])
    return Image.merge("HSV", (hue, saturation, brighter)).convert("RGB")


def contrast(image: Image.Image, share: float, random: Random) -> Image.Image:
    """A share of each channel's distance from its mean."""
    pixels = unit(image)
    mean = pixels.mean(axis=(0, 1))
    return from_unit(mean + share * (pixels - mean))


def pixelate(image: Image.Image, share: float, random: Random) -> Image.Image:
    """So much of the resolution, with pixels as boxes."""
    width, height = image.size
    small = max(1, int(width * share)), max(1, int(height * share))
    return image.resize(small, Image.Resampling.BOX).resize(image.size, Image.Resampling.BOX)


def jpeg_compression(image: Image.Image, quality: float, random: Random) -> Image.Image:
    """What a JPEG file of a quality keeps."""
    file = io.BytesIO()
    image.save(file, "JPEG", quality=int(quality))
    return Image.open(file).convert("RGB")


Name = Literal[
    "gaussian_noise",
    "shot_noise",
    "impulse_noise",
    "gaussian_blur",
    "brightness",
    "contrast",
    "pixelate",
    "jpeg_compression",
]
Corruption = Callable[[Image.Image, float, Random], Image.Image]
CORRUPTIONS: Mapping[Name, tuple[Corruption, Sequence[float]]] = {
    "gaussian_noise": (gaussian_noise, (0.08, 0.12, 0.18, 0.26, 0.38)),
    "shot_noise": (shot_noise, (60, 25, 12, 5, 3)),
    "impulse_noise": (impulse_noise, (0.03, 0.06, 0.09, 0.17, 0.27)),
    "gaussian_blur": (gaussian_blur, (1, 2, 3, 4, 6)),
    "brightness": (brightness, (0.1, 0.2, 0.3, 0.4, 0.5)),
    "contrast": (contrast, (0.4, 0.3, 0.2, 0.1, 0.05)),
    "pixelate": (pixelate, (0.6, 0.5, 0.4, 0.3, 0.25)),
    "jpeg_compression": (jpeg_compression, (25, 18, 15, 10, 7)),
}


def unit(image: Image.Image) -> np.ndarray:
    """Pixels `[height, width, 3]` between 0 and 1."""
    return np.asarray(image, dtype=np.float32) / 255


def from_unit(pixels: np.ndarray) -> Image.Image:
    """The image of pixels between 0 and 1; what lies beyond is clipped."""
    return Image.fromarray((255 * pixels.clip(0, 1)).round().astype(np.uint8))


@dataclass(frozen=True)
class Corrupted:
    """Images seen through a corruption; pickles as the images do.

    Attributes:
        images: the clean ones.
        name: of the corruption.
        severity: 1 to 5.
    """

    images: Sequence[Image.Image]
    name: Name
    severity: int

    def __call__(self, index: int) -> Image.Image:
        """One image; noise is drawn anew for each, and always the same."""
        apply, values = CORRUPTIONS[self.name]
        image = self.images[index]
        cropped = ImageOps.fit(image, (SIDE, SIDE), Image.Resampling.BILINEAR) if min(image.size) > SIDE else image
        random = np.random.default_rng([zlib.crc32(self.name.encode()), self.severity, index])
        return apply(cropped, values[self.severity - 1], random)


def corrupted(split: Split, name: Name, severity: Annotated[int, Interval(ge=1, le=5)]) -> Split:
    """A split's images, corrupted when they are asked for.

    Args:
        split: clean images.
        name: of the corruption.
        severity: from 1 to 5.
    """
    clean = fingerprints(split.images)
    content = partial(described, clean, name, severity)
    return replace(split, images=Pictures(range(len(split)), Corrupted(split.images, name, severity), content=content))


def described(clean: Sequence[bytes], name: str, severity: int, index: int) -> bytes:
    """What stands for a corrupted image: the clean one's content, and what was done to it."""
    return clean[index] + repr((name, severity, index)).encode()
