"""ImageNet-C's blurs; lengths are pixels of an image of 224."""

from functools import partial

import numpy as np
from PIL import Image, ImageFilter

from clipadapt.data.corruptions.pixels import Random, from_unit, scale, to_unit, zoom


def gaussian_blur(image: Image.Image, deviation: float, random: Random) -> Image.Image:
    """Blur an image by a Gaussian; `deviation` in pixels of an image of 224."""
    return image.filter(ImageFilter.GaussianBlur(deviation * scale(image)))


def defocus_blur(image: Image.Image, setting: tuple[int, float], random: Random) -> Image.Image:
    """Spread each point over a disk, as a lens out of focus does.

    Args:
        image: the clean image.
        setting: the disk's radius, and the deviation of a blur of the disk's rim.
        random: not used.
    """
    from scipy.ndimage import gaussian_filter

    radius, rim = setting
    axis = np.arange(-max(radius, 8), max(radius, 8) + 1)
    grid = np.stack(np.meshgrid(axis, axis, indexing="ij"), axis=-1)
    inside = ((grid**2).sum(axis=-1) <= radius**2).astype(float)
    disk = gaussian_filter(inside, rim, mode="mirror", radius=1 if radius <= 8 else 2)
    return from_unit(convolve_points(to_unit(image), grid.reshape(-1, 2) * scale(image), disk.ravel(), "reflect"))


def glass_blur(image: Image.Image, setting: tuple[float, int, int], random: Random) -> Image.Image:
    """Overwrite pixels with neighbours, as frosted glass does, with a Gaussian blur before and after.

    Args:
        image: the clean image.
        setting: the blurs' deviation, the largest distance to a neighbour, and the number of rounds.
        random: chooses the pixels.
    """
    from scipy.ndimage import gaussian_filter

    deviation, reach, rounds = setting
    blurred = partial(gaussian_filter, sigma=(deviation * scale(image),) * 2 + (0,), mode="nearest")
    pixels = blurred(to_unit(image))
    for _ in range(rounds):
        places = draw_neighbours(pixels.shape[:2], reach, scale(image), random)
        pixels = pixels.reshape(-1, 3)[places].reshape(pixels.shape)
    return from_unit(blurred(pixels))


def motion_blur(image: Image.Image, setting: tuple[int, float], random: Random) -> Image.Image:
    """Give each point a trail, at a random angle within 45 degrees of the horizontal.

    Args:
        image: the clean image.
        setting: half the trail's length, and the deviation of the half of a Gaussian by which it fades.
        random: draws the angle.
    """
    return from_unit(add_trail(to_unit(image), *setting, random.uniform(-45, 45), scale(image)))


def zoom_blur(image: Image.Image, setting: tuple[int, float], random: Random) -> Image.Image:
    """Return the mean of an image and of its centre at several magnifications, the first of which is 1.

    Args:
        image: the clean image.
        setting: the number of magnifications, and the step from one to the next.
        random: not used.
    """
    count, step = setting
    zoomed = sum(to_unit(zoom(image, 1 + step * number)) for number in range(count))
    return from_unit((to_unit(image) + zoomed) / (count + 1))


def add_trail(pixels: np.ndarray, radius: int, deviation: float, angle: float, share: float) -> np.ndarray:
    """Give each point a trail as ImageMagick's motion blur does: half a Gaussian, in steps of whole pixels of 224.

    Args:
        pixels: `[height, width, channels]`.
        radius: the trail has twice as many steps, and its start.
        deviation: the Gaussian's, in steps.
        angle: in degrees, from left to right and then downwards; the trail points the other way.
        share: the size of a pixel of 224, in pixels of this image.
    """
    steps = np.arange(2 * radius + 1)
    direction = np.sin(np.deg2rad(angle)), np.cos(np.deg2rad(angle))
    whole = np.ceil(np.outer(steps, direction) - 0.5)
    return convolve_points(pixels, -share * whole, np.exp(-(steps**2) / (2 * deviation**2)), "edge")


def convolve_points(pixels: np.ndarray, steps: np.ndarray, weights: np.ndarray, rim: str) -> np.ndarray:
    """Convolve pixels with a kernel of weighted points; points between pixels are interpolated linearly.

    Args:
        pixels: `[height, width, channels]`.
        steps: the points' offsets `[points, 2]`, down and to the right.
        weights: the points' weights `[points]`, of any sum.
        rim: the padding mode, as in numpy.pad.
    """
    from scipy.signal import fftconvolve

    reach = int(np.ceil(np.abs(steps).max()))
    axis = np.arange(-reach, reach + 1)[:, None]
    down, right = (np.clip(1 - np.abs(axis - step), 0, 1) for step in steps.T)
    kernel = ((down * weights) @ right.T / weights.sum()).astype(np.float32)
    padded = np.pad(pixels, ((reach, reach), (reach, reach), (0, 0)), rim)  # type: ignore[call-overload]
    spread_out: np.ndarray = fftconvolve(padded, kernel[..., None], mode="valid", axes=(0, 1))
    return spread_out


def draw_neighbours(size: tuple[int, int], reach: int, share: float, random: Random) -> np.ndarray:
    """Return, for each pixel, the index of the pixel it takes its value from; all but a rim take a neighbour's.

    Pixels are overwritten from last to first, and one that was overwritten passes on its new value. Neighbours are
    those of ImageNet-C's code: up to `reach` before, and up to `reach - 1` behind; fractions of a pixel are rounded at
    random.

    Args:
        size: height and width.
        reach: in pixels of 224.
        share: the size of a pixel of 224, in pixels of this image.
        random: chooses the neighbours.

    Returns:
        Indices `[height * width]` into the flattened image.
    """
    height, width = size
    rim = int(np.ceil(reach * share))
    place = np.arange(height * width)
    inner = place.reshape(size)[rim + 1 : height - rim + 1, rim + 1 : width - rim + 1].ravel()
    steps = share * random.integers(-reach, reach, (2, len(inner)))
    down, right = np.floor(steps + random.random(steps.shape)).astype(int)
    source = place.copy()
    source[inner] = (inner // width + down).clip(0, height - 1) * width + (inner % width + right).clip(0, width - 1)
    passed_on = source > place
    while passed_on.any():
        neighbour = source[passed_on]
        source[passed_on], passed_on[passed_on] = source[neighbour], passed_on[neighbour]
    return source
