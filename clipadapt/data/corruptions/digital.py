"""ImageNet-C's digital corruptions."""

import io

import numpy as np
from PIL import Image

from clipadapt.data.corruptions.pixels import Random, from_unit, scale, unit


def contrast(image: Image.Image, share: float, random: Random) -> Image.Image:
    """A share of each channel's distance from its mean."""
    pixels = unit(image)
    mean = pixels.mean(axis=(0, 1))
    return from_unit(mean + share * (pixels - mean))


def elastic_transform(image: Image.Image, setting: tuple[float, float, float], random: Random) -> Image.Image:
    """A random affine map that shifts three corners around the middle, and then a smooth displacement of each pixel.

    Args:
        image: what is distorted.
        setting: how far pixels are displaced before that is smoothed, the deviation by which it is smoothed, and how
            far corners are shifted at most, in pixels of an image of 224.
        random: draws both.
    """
    displacement, smoothness, shift = (length * scale(image) for length in setting)
    pixels = unit(image)
    grid = np.indices(pixels.shape[:2])
    middle, around = np.array(pixels.shape[:2]) / 2, np.array([[1, 1], [-1, 1], [-1, -1]])
    corners = middle + 74 * scale(image) * around
    shifted = corners + random.uniform(-shift, shift, corners.shape)
    back = np.linalg.solve(np.column_stack([shifted, np.ones(3)]), corners)
    mapped = sampled(pixels, np.tensordot(back[:2].T, grid, axes=1) + back[2, :, None, None], "mirror")
    # Noise of coarser pixels is left with more when it is smoothed by as much: hence the scale once more.
    steps = displacement * scale(image) * smoothed(random.uniform(-1, 1, grid.shape), smoothness)
    return from_unit(sampled(mapped, grid + steps, "reflect"))


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


def sampled(pixels: np.ndarray, places: np.ndarray, rim: str) -> np.ndarray:
    """Pixels `[height, width, 3]` at places `[2, height, width]`, by linear interpolation.

    Args:
        pixels: of an image.
        places: row and column of each.
        rim: how the image goes on beyond its rim, in words of scipy.ndimage.
    """
    from scipy.ndimage import map_coordinates

    channels = [map_coordinates(pixels[..., channel], places, order=1, mode=rim) for channel in range(3)]
    return np.stack(channels, axis=-1)


def smoothed(fields: np.ndarray, deviation: float) -> np.ndarray:
    """Fields `[fields, height, width]`, mirrored at the rim, after a Gaussian blur; a wide one costs no more."""
    from scipy.fft import dctn, idctn

    down, right = (np.exp(-((np.pi * deviation * np.arange(side) / side) ** 2) / 2) for side in fields.shape[1:])
    frequencies = dctn(fields, axes=(1, 2)) * np.outer(down, right)
    smooth: np.ndarray = idctn(frequencies, axes=(1, 2))
    return smooth
