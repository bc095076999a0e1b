"""ImageNet-C's noise."""

import numpy as np
from PIL import Image

from clipadapt.data.corruptions.pixels import Random, from_unit, unit


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
