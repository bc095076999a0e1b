"""ImageNet-C's digital corruptions."""

import io

import numpy as np
from PIL import Image

from clipadapt.data.corruptions.pixels import Random, from_unit, scale, to_unit


def contrast(image: Image.Image, share: float, random: Random) -> Image.Image:
    """Scale each channel's distance from its mean by `share`."""
    pixels = to_unit(image)
    mean = pixels.mean(axis=(0, 1))
    return from_unit(mean + share * (pixels - mean))


def elastic_transform(image: Image.Image, setting: tuple[float, float, float], random: Random) -> Image.Image:
    """Apply a random affine map that shifts three corners around the centre, then a smooth random displacement.

    Args:
        image: the clean image.
        setting: the largest displacement before smoothing, the deviation of the smoothing, and the largest shift of a
            corner, in pixels of an image of 224.
        random: draws the shifts and displacements.
    """
    displacement, smoothness, shift = (length * scale(image) for length in setting)
    pixels = to_unit(image)
    grid = np.indices(pixels.shape[:2])
    middle, around = np.array(pixels.shape[:2]) / 2, np.array([[1, 1], [-1, 1], [-1, -1]])
    corners = middle + 74 * scale(image) * around
    shifted = corners + random.uniform(-shift, shift, corners.shape)
    back = np.linalg.solve(np.column_stack([shifted, np.ones(3)]), corners)
    mapped = interpolate(pixels, np.tensordot(back[:2].T, grid, axes=1) + back[2, :, None, None], "mirror")
    # The same smoothing leaves more of the noise when pixels are coarser: hence the scale once more.
    steps = displacement * scale(image) * smooth_fields(random.uniform(-1, 1, grid.shape), smoothness)
    return from_unit(interpolate(mapped, grid + steps, "reflect"))


def pixelate(image: Image.Image, share: float, random: Random) -> Image.Image:
    """Reduce the resolution to a share of it, with box-shaped pixels."""
    width, height = image.size
    small = max(1, int(width * share)), max(1, int(height * share))
    return image.resize(small, Image.Resampling.BOX).resize(image.size, Image.Resampling.BOX)


def jpeg_compression(image: Image.Image, quality: float, random: Random) -> Image.Image:
    """Compress an image as JPEG of this quality."""
    file = io.BytesIO()
    image.save(file, "JPEG", quality=int(quality))
    return Image.open(file).convert("RGB")


def interpolate(pixels: np.ndarray, places: np.ndarray, rim: str) -> np.ndarray:
    """Interpolate pixels `[height, width, 3]` linearly at positions `[2, height, width]`.

    Args:
        pixels: the image.
        places: the row and column of each position.
        rim: the padding mode, as in scipy.ndimage.
    """
    from scipy.ndimage import map_coordinates

    channels = [map_coordinates(pixels[..., channel], places, order=1, mode=rim) for channel in range(3)]
    return np.stack(channels, axis=-1)


def smooth_fields(fields: np.ndarray, deviation: float) -> np.ndarray:
    """Blur fields `[fields, height, width]` by a Gaussian, mirrored at the rim; the cost is the same for any width."""
    from scipy.fft import dctn, idctn

    down, right = (np.exp(-((np.pi * deviation * np.arange(side) / side) ** 2) / 2) for side in fields.shape[1:])
    frequencies = dctn(fields, axes=(1, 2)) * np.outer(down, right)
    smooth: np.ndarray = idctn(frequencies, axes=(1, 2))
    return smooth
