"""ImageNet-C's noise."""

import numpy as np
from PIL import Image

from clipadapt.data.corruptions.pixels import Random, from_unit, to_unit


def gaussian_noise(image: Image.Image, deviation: float, random: Random) -> Image.Image:
    """Add Gaussian noise; `deviation` as a share of white."""
    pixels = to_unit(image)
    return from_unit(pixels + random.normal(scale=deviation, size=pixels.shape))


def shot_noise(image: Image.Image, photons: float, random: Random) -> Image.Image:
    """Apply Poisson noise, with `photons` photons at white."""
    return from_unit(random.poisson(to_unit(image) * photons) / photons)


def impulse_noise(image: Image.Image, share: float, random: Random) -> Image.Image:
    """Turn a share of all values black or white."""
    pixels = to_unit(image)
    hit = random.random(pixels.shape) < share
    return from_unit(np.where(hit, random.integers(0, 2, pixels.shape), pixels))
