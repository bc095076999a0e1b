"""Synthetic images that look like photographs to a JPEG encoder."""

import numpy as np
from PIL import Image

DETAIL = 8
"""Pixels between light and dark spots."""
GRAIN = 10
"""Standard deviation of the noise, out of 255."""


def draw(seed: int, width: int = 500, height: int = 375) -> Image.Image:
    """Draw a blurred pattern of random colours with noise; its JPEG is about as large as a photograph's of its size."""
    random = np.random.default_rng(seed)
    coarse = random.integers(0, 256, (height // DETAIL, width // DETAIL, 3), dtype=np.uint8)
    smooth = np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC), dtype=np.float32)
    grain = random.normal(0, GRAIN, (height, width, 1))
    return Image.fromarray((smooth + grain).clip(0, 255).astype(np.uint8))
