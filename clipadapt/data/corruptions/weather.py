"""ImageNet-C's weather but for frost; lengths are pixels of an image of 224."""

import numpy as np
from PIL import Image

from clipadapt.data.corruptions.blur import trailed
from clipadapt.data.corruptions.pixels import Random, from_unit, magnified, scale, unit


def snow(
    image: Image.Image, setting: tuple[float, float, float, float, int, float, float], random: Random
) -> Image.Image:
    """Flakes in two directions over a paler image: magnified noise, where it is above a threshold, with a trail.

    Args:
        image: what it snows on.
        setting: the noise's mean and deviation, its magnification, the threshold, half the length of the trails and
            the deviation by which they fade, and the share of the image as it was.
        random: draws the noise and the angle.
    """
    mean, deviation, size, threshold, radius, fading, share = setting
    width, height = (round(side / scale(image)) for side in image.size)
    noise = Image.fromarray(random.normal(mean, deviation, (height, width)).astype(np.float32))
    layer = np.asarray(magnified(noise, size))
    flakes = Image.fromarray(np.where(layer < threshold, 0, layer.clip(0, 1))).resize(image.size, Image.Resampling.BOX)
    falling = trailed(np.asarray(flakes)[..., None], radius, fading, random.uniform(-135, -45), scale(image))
    pixels = unit(image)
    pale = np.maximum(pixels, 1.5 * unit(image.convert("L"))[..., None] + 0.5)
    return from_unit(share * pixels + (1 - share) * pale + falling + falling[::-1, ::-1])


def fog(image: Image.Image, setting: tuple[float, float], random: Random) -> Image.Image:
    """Clouds added to an image, and all of it darkened to what was its brightest value.

    Args:
        image: what it is foggy in.
        setting: how bright the clouds are, in shares of white, and by how much their detail fades.
        random: draws the clouds.
    """
    amount, fading = setting
    pixels = unit(image)
    height, width = pixels.shape[:2]
    clouds = plasma(max(height, width), fading, random)[:height, :width, None]
    return from_unit((pixels + amount * clouds) * pixels.max() / (pixels.max() + amount))


def brightness(image: Image.Image, added: float, random: Random) -> Image.Image:
    """More of HSV's value."""
    hue, saturation, value = image.convert("HSV").split()
    brighter = value.point([min(255, round(level + 255 * added)) for level in range(256)])
    return Image.merge("HSV", (hue, saturation, brighter)).convert("RGB")


def plasma(side: int, fading: float, random: Random) -> np.ndarray:
    """A plasma fractal between 0 and 1 by the diamond-square algorithm (Fournier et al., CACM 1982), that tiles.

    Args:
        side: it is at least so large: the next power of two.
        fading: at half the size, what is added at random is smaller by the square of this.
        random: draws it.
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
