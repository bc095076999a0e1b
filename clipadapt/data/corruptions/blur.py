"""ImageNet-C's blurs; lengths are pixels of an image of 224."""

from functools import partial

import numpy as np
from PIL import Image, ImageFilter

from clipadapt.data.corruptions.pixels import Random, from_unit, magnified, scale, unit


def gaussian_blur(image: Image.Image, deviation: float, random: Random) -> Image.Image:
    """A blur of so many pixels' deviation in an image of 224."""
    return image.filter(ImageFilter.GaussianBlur(deviation * scale(image)))


def defocus_blur(image: Image.Image, setting: tuple[int, float], random: Random) -> Image.Image:
    """A disk in place of each point, as of a lens out of focus.

    Args:
        image: what is blurred.
        setting: the disk's radius, and the deviation of a blur of the disk's rim.
        random: not used.
    """
    from scipy.ndimage import gaussian_filter

    radius, rim = setting
    axis = np.arange(-max(radius, 8), max(radius, 8) + 1)
    grid = np.stack(np.meshgrid(axis, axis, indexing="ij"), axis=-1)
    inside = ((grid**2).sum(axis=-1) <= radius**2).astype(float)
    disk = gaussian_filter(inside, rim, mode="mirror", radius=1 if radius <= 8 else 2)
    return from_unit(spread(unit(image), grid.reshape(-1, 2) * scale(image), disk.ravel(), "reflect"))


def glass_blur(image: Image.Image, setting: tuple[float, int, int], random: Random) -> Image.Image:
    """Pixels overwritten by others nearby, as behind frosted glass, with a Gaussian blur before and after.

    Args:
        image: what is blurred.
        setting: the blurs' deviation, how far away a pixel is taken from, and how often.
        random: chooses the pixels.
    """
    from scipy.ndimage import gaussian_filter

    deviation, reach, rounds = setting
    blurred = partial(gaussian_filter, sigma=(deviation * scale(image),) * 2 + (0,), mode="nearest")
    pixels = blurred(unit(image))
    for _ in range(rounds):
        places = overwritten(pixels.shape[:2], reach, scale(image), random)
        pixels = pixels.reshape(-1, 3)[places].reshape(pixels.shape)
    return from_unit(blurred(pixels))


def motion_blur(image: Image.Image, setting: tuple[int, float], random: Random) -> Image.Image:
    """A trail of each point, at an angle within 45 degrees of the horizontal.

    Args:
        image: what is blurred.
        setting: half the trail's length, and the deviation of the half of a Gaussian by which it fades.
        random: draws the angle.
    """
    return from_unit(trailed(unit(image), *setting, random.uniform(-45, 45), scale(image)))


def zoom_blur(image: Image.Image, setting: tuple[int, float], random: Random) -> Image.Image:
    """The mean of an image and of its middle at several magnifications, of which the first is 1.

    Args:
        image: what is blurred.
        setting: the number of magnifications, and the step from one to the next.
        random: not used.
    """
    count, step = setting
    zoomed = sum(unit(magnified(image, 1 + step * number)) for number in range(count))
    return from_unit((unit(image) + zoomed) / (count + 1))


def trailed(pixels: np.ndarray, radius: int, deviation: float, angle: float, share: float) -> np.ndarray:
    """Pixels with a trail, as ImageMagick's motion blur leaves it: half a Gaussian, in steps of whole pixels of 224.

    Args:
        pixels: `[height, width, channels]`.
        radius: the trail has twice as many steps, and its start.
        deviation: of the Gaussian, in steps.
        angle: in degrees, from left to right and then downwards; the trail points the other way.
        share: a pixel of 224 in these.
    """
    steps = np.arange(2 * radius + 1)
    direction = np.sin(np.deg2rad(angle)), np.cos(np.deg2rad(angle))
    whole = np.ceil(np.outer(steps, direction) - 0.5)
    return spread(pixels, -share * whole, np.exp(-(steps**2) / (2 * deviation**2)), "edge")


def spread(pixels: np.ndarray, steps: np.ndarray, weights: np.ndarray, rim: str) -> np.ndarray:
    """Pixels whose light goes to several places; between pixels it is shared by linear interpolation.

    Args:
        pixels: `[height, width, channels]`.
        steps: to the places, `[places, 2]`, down and to the right.
        weights: how much of the light goes there, in proportion, `[places]`.
        rim: how the image goes on beyond its rim, in words of numpy.pad.
    """
    from scipy.signal import fftconvolve

    reach = int(np.ceil(np.abs(steps).max()))
    axis = np.arange(-reach, reach + 1)[:, None]
    down, right = (np.clip(1 - np.abs(axis - step), 0, 1) for step in steps.T)
    kernel = ((down * weights) @ right.T / weights.sum()).astype(np.float32)
    padded = np.pad(pixels, ((reach, reach), (reach, reach), (0, 0)), rim)  # type: ignore[call-overload]
    spread_out: np.ndarray = fftconvolve(padded, kernel[..., None], mode="valid", axes=(0, 1))
    return spread_out


def overwritten(size: tuple[int, int], reach: int, share: float, random: Random) -> np.ndarray:
    """Whose value each pixel has, once all but a rim are overwritten by a neighbour, one after another from the last.

    A neighbour that was overwritten before passes on what it then has. Neighbours are those of ImageNet-C's code: up to
    `reach` before, and up to `reach - 1` behind; fractions of a pixel are rounded at random.

    Args:
        size: height and width.
        reach: in pixels of 224.
        share: a pixel of 224 in these.
        random: chooses the neighbours.

    Returns:
        Places `[height * width]`, counted along the rows.
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
