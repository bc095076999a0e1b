"""ImageNet-C's corruptions of test images (Hendrycks & Dietterich, ICLR 2019, arXiv:1903.12261), at five severities.

Formulas and severities are those of its code (github.com/hendrycks/robustness, ImageNet-C/create_c/make_imagenet_c.py;
there `gaussian_blur` is an extra), for images of 224 pixels. Larger images are first cropped to that as there; on
smaller ones, which it doesn't take, blurs, flakes and displacements are smaller in proportion. Frost is left out, since
it needs photographs of frost; it is in the published images, which `data=imagenet_c` reads.

Differences from that code, beside the random draws:

- the result is rounded to 8 bits, there truncated; the intermediate images of snow, glass and motion blur are truncated
  only there
- `defocus_blur` keeps the brightness; there its two highest severities add 1 %, as their disks reach their array's rim
- `elastic_transform` smooths by a whole Gaussian, there by one cut off at three deviations
- `gaussian_blur` is Pillow's, made of box blurs; `brightness` is added to 8-bit HSV
- the images are not saved as JPEG of quality 85, as the published ones are

Some properties may surprise, and are the same there: the pixels of `glass_blur` are overwritten, not swapped. A higher
severity isn't always further from the clean image, pixel by pixel: the first two of `elastic_transform` shift the whole
image, the others ripple it; successive severities of `glass_blur`, `snow` and `fog` may be about as far.
"""

import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Annotated, Any, Literal

import numpy as np
from annotated_types import Interval
from PIL import Image

from clipadapt.data.corruptions.blur import defocus_blur, gaussian_blur, glass_blur, motion_blur, zoom_blur
from clipadapt.data.corruptions.digital import contrast, elastic_transform, jpeg_compression, pixelate
from clipadapt.data.corruptions.noise import gaussian_noise, impulse_noise, shot_noise
from clipadapt.data.corruptions.pixels import SIDE, Random
from clipadapt.data.corruptions.weather import brightness, fog, snow
from clipadapt.data.images import LazyImages, fingerprints
from clipadapt.data.tasks import Split

Name = Literal[
    "gaussian_noise",
    "shot_noise",
    "impulse_noise",
    "defocus_blur",
    "glass_blur",
    "motion_blur",
    "zoom_blur",
    "snow",
    "fog",
    "brightness",
    "contrast",
    "elastic_transform",
    "pixelate",
    "jpeg_compression",
    "gaussian_blur",
]
SHORTER = 256
Corruption = Callable[[Image.Image, Any, Random], Image.Image]
CORRUPTIONS: Mapping[Name, tuple[Corruption, Sequence[Any]]] = {
    "gaussian_noise": (gaussian_noise, (0.08, 0.12, 0.18, 0.26, 0.38)),
    "shot_noise": (shot_noise, (60, 25, 12, 5, 3)),
    "impulse_noise": (impulse_noise, (0.03, 0.06, 0.09, 0.17, 0.27)),
    "defocus_blur": (defocus_blur, ((3, 0.1), (4, 0.5), (6, 0.5), (8, 0.5), (10, 0.5))),
    "glass_blur": (glass_blur, ((0.7, 1, 2), (0.9, 2, 1), (1, 2, 3), (1.1, 3, 2), (1.5, 4, 2))),
    "motion_blur": (motion_blur, ((10, 3), (15, 5), (15, 8), (15, 12), (20, 15))),
    "zoom_blur": (zoom_blur, ((12, 0.01), (16, 0.01), (11, 0.02), (13, 0.02), (11, 0.03))),
    "snow": (
        snow,
        (
            (0.1, 0.3, 3, 0.5, 10, 4, 0.8),
            (0.2, 0.3, 2, 0.5, 12, 4, 0.7),
            (0.55, 0.3, 4, 0.9, 12, 8, 0.7),
            (0.55, 0.3, 4.5, 0.85, 12, 8, 0.65),
            (0.55, 0.3, 2.5, 0.85, 12, 12, 0.55),
        ),
    ),
    "fog": (fog, ((1.5, 2), (2, 2), (2.5, 1.7), (2.5, 1.5), (3, 1.4))),
    "brightness": (brightness, (0.1, 0.2, 0.3, 0.4, 0.5)),
    "contrast": (contrast, (0.4, 0.3, 0.2, 0.1, 0.05)),
    "elastic_transform": (
        elastic_transform,
        (
            (488, 170.8, 24.4),
            (488, 19.52, 48.8),
            (12.2, 2.44, 4.88),
            (17.08, 2.44, 4.88),
            (29.28, 2.44, 4.88),
        ),
    ),
    "pixelate": (pixelate, (0.6, 0.5, 0.4, 0.3, 0.25)),
    "jpeg_compression": (jpeg_compression, (25, 18, 15, 10, 7)),
    "gaussian_blur": (gaussian_blur, (1, 2, 3, 4, 6)),
}
"""The function of each corruption, and its settings at the five severities; in the paper's order, the extra last."""


def centre_crop(image: Image.Image) -> Image.Image:
    """Resize to a shorter side of 256 (bilinear) and crop the central 224 pixels; smaller images are unchanged."""
    if min(image.size) <= SIDE:
        return image
    from torchvision.transforms.functional import center_crop, resize

    return center_crop(resize(image, SHORTER), [SIDE, SIDE])


@dataclass(frozen=True)
class Corrupted:
    """A function from an index to a corrupted image; pickles as the images do.

    Attributes:
        images: the clean images.
        name: the corruption.
        severity: from 1 to 5.
    """

    images: Sequence[Image.Image]
    name: Name
    severity: int

    def __call__(self, index: int) -> Image.Image:
        """Return one corrupted image; its noise depends on the corruption, the severity and the index."""
        apply, values = CORRUPTIONS[self.name]
        image = self.images[index]
        random = np.random.default_rng([zlib.crc32(self.name.encode()), self.severity, index])
        return apply(centre_crop(image), values[self.severity - 1], random)


def corrupted(split: Split, name: Name, severity: Annotated[int, Interval(ge=1, le=5)]) -> Split:
    """Return a split whose images are corrupted on access.

    Args:
        split: the clean images.
        name: the corruption.
        severity: from 1 to 5.
    """
    clean = fingerprints(split.images)
    content = partial(content_key, clean, name, severity)
    return replace(
        split, images=LazyImages(range(len(split)), Corrupted(split.images, name, severity), content=content)
    )


def content_key(clean: Sequence[bytes], name: str, severity: int, index: int) -> bytes:
    """Return bytes that identify a corrupted image: the clean image's hash, and the corruption."""
    return clean[index] + repr((name, severity, index)).encode()
