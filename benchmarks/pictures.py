"""Photograph-like images that need no download."""

import numpy as np
from PIL import Image

DETAIL = 8
"""Pixels from one light or dark spot to the next."""
GRAIN = 10
"""Deviation of the noise on top, out of 255."""


def draw(seed: int, width: int = 500, height: int = 375) -> Image.Image:
    """A blurred pattern of random colours with some noise; as a JPEG about as large as a photograph of its size."""
    random = np.random.default_rng(seed)
    coarse = random.integers(0, 256, (height // DETAIL, width // DETAIL, 3), dtype=np.uint8)
    smooth = np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC), dtype=np.float32)
    grain = random.normal(0, GRAIN, (height, width, 1))
    return Image.fromarray((smooth + grain).clip(0, 255).astype(np.uint8))
