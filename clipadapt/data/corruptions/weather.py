"""ImageNet-C's weather without frost; lengths are pixels of an image of 224."""

import numpy as np
from PIL import Image

from clipadapt.data.corruptions.blur import add_trail
from clipadapt.data.corruptions.pixels import Random, from_unit, scale, to_unit, zoom


def snow(
    image: Image.Image, setting: tuple[float, float, float, float, int, float, float], random: Random
) -> Image.Image:
    """Add flakes in two directions to a paler image: magnified noise above a threshold, with a trail.

    Args:
        image: the clean image.
        setting: the noise's mean and deviation, its magnification, the threshold, half the length of the trails and
            the deviation by which they fade, and the share of the clean image.
        random: draws the noise and the angle.
    """
    mean, deviation, size, threshold, radius, fading, share = setting
    width, height = (round(side / scale(image)) for side in image.size)
    noise = Image.fromarray(random.normal(mean, deviation, (height, width)).astype(np.float32))
    layer = np.asarray(zoom(noise, size))
    flakes = Image.fromarray(np.where(layer < threshold, 0, layer.clip(0, 1))).resize(image.size, Image.Resampling.BOX)
    falling = add_trail(np.asarray(flakes)[..., None], radius, fading, random.uniform(-135, -45), scale(image))
    pixels = to_unit(image)
    pale = np.maximum(pixels, 1.5 * to_unit(image.convert("L"))[..., None] + 0.5)
    return from_unit(share * pixels + (1 - share) * pale + falling + falling[::-1, ::-1])


def fog(image: Image.Image, setting: tuple[float, float], random: Random) -> Image.Image:
    """Add clouds to an image, and darken all of it to its original brightest value.

    Args:
        image: the clean image.
        setting: the brightness of the clouds, as a share of white, and the decay of their detail.
        random: draws the clouds.
    """
    amount, fading = setting
    pixels = to_unit(image)
    height, width = pixels.shape[:2]
    clouds = plasma(max(height, width), fading, random)[:height, :width, None]
    return from_unit((pixels + amount * clouds) * pixels.max() / (pixels.max() + amount))


def brightness(image: Image.Image, added: float, random: Random) -> Image.Image:
    """Add to the value channel of HSV."""
    hue, saturation, value = image.convert("HSV").split()
    brighter = value.point([min(255, round(level + 255 * added)) for level in range(256)])
    return Image.merge("HSV", (hue, saturation, brighter)).convert("RGB")


def plasma(side: int, fading: float, random: Random) -> np.ndarray:
    """Return a tileable plasma fractal in [0, 1] by the diamond-square algorithm (Fournier et al., CACM 1982).

    Args:
        side: the least side; the result's is the next power of two.
        fading: the noise amplitude is divided by the square of this each time the cells halve.
        random: draws the noise.
    """
    heights, amplitude = np.zeros((1, 1)), 1.0

    def between(*neighbours: np.ndarray) -> np.ndarray:
        return sum(neighbours) / 4 + amplitude * random.uniform(-1, 1, heights.shape)

    while len(heights) < side:
        below, right = np.roll(heights, -1, axis=0), np.roll(heights, -1, axis=1)
        centres = between(heights, below, right, np.roll(below, -1, axis=1))
        finer = np.empty((2 * len(heights), 2 * len(heights)))
        finer[::2, ::2], finer[1::2, 1::2] = heights, centres
        finer[::2, 1::2] = between(heights, right, centres, np.roll(centres, 1, axis=0))
        finer[1::2, ::2] = between(heights, below, centres, np.roll(centres, 1, axis=1))
        heights, amplitude = finer, amplitude / fading**2
    return (heights - heights.min()) / max(np.ptp(heights), np.finfo(float).tiny)
