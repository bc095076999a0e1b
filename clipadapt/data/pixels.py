"""Pixels of every kind as upright 8-bit RGB, and images of which that leaves nothing to see."""

from contextlib import suppress
from typing import Any, BinaryIO

import numpy as np
from PIL import Image, ImageOps, TiffImagePlugin

from clipadapt.errors import DataError

DARK, BRIGHT = 16, 239
"""An image without a brighter value of 0 to 255 is nearly black; 12 bits in 16 go up to 15. Nearly white likewise."""

EXTRA_SAMPLES, BANDS, BITS, FORMAT = 338, 277, 258, 339
"""TIFF's tags: what bands beside the colours are, the number of bands, the bits of each, and their kind of numbers."""

SIGNED = 2
NUMBERS = {1: "whole numbers without sign", SIGNED: "whole numbers with a sign", 3: "floating-point numbers"}
MODES = {"I": (1, 32, 2), "F": (1, 32, 3)}
"""Pillow's modes of unknown range, with their bands, bits and kind of numbers."""

READ = (
    "images of 1, 3 or 4 bands with 8 bits, or 16 without sign, are read: save it so, scaled to the range of your "
    "data, or choose task.bands=[3,2,1] and task.value_range=[low,high]"
)
BIG_TIFF = 43


def apply_orientation(image: Image.Image) -> Image.Image:
    """Return the image rotated and flipped as its EXIF orientation says."""
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # a damaged EXIF block can raise anything, and the pixels are fine without it
        return image


def scale_to_eight_bits(image: Image.Image) -> Image.Image:
    """Convert a grey image of 0 to 65535 to 8 bits: 65535 becomes 255 (Pillow's own conversion clips)."""
    values = np.asarray(image).astype(np.uint32)
    return Image.fromarray(((values + 128) // 257).astype(np.uint8))


def is_sixteen_bits(image: Image.Image) -> bool:
    """Return whether an image's values are 0 to 65535, to which Pillow scales those of a PGM, whatever its maximum."""
    return image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PPM")


def check_mode(image: Image.Image) -> None:
    """Check that an image's pixels have a known range; raises DataError with their bands, bits and sign."""
    tags = getattr(image, "tag_v2", None)
    signed = tags is not None and SIGNED in tags.get(FORMAT, ())  # which Pillow reads as if they had none
    if signed or (image.mode in MODES and not is_sixteen_bits(image)):
        raise DataError(describe_numbers(*(MODES[image.mode] if tags is None else read_tags(tags))))


def describe_numbers(bands: int, bits: int, kind: int) -> str:
    """Return a sentence on an image whose numbers can't be read as colours."""
    plural = "" if bands == 1 else "s"
    numbers = NUMBERS.get(kind, "numbers of an unknown kind")
    return f"it has {bands} band{plural} of {bits}-bit {numbers}, whose range as colours isn't known; {READ}"


def read_tags(tags: Any) -> tuple[int, int, int]:
    """Return the bands, bits and kind of numbers that a TIFF's tags say."""
    return int(tags.get(BANDS, 1)), int(tags.get(BITS, (1,))[0]), int(tags.get(FORMAT, (1,))[0])


def describe_tiff(file: BinaryIO) -> str | None:
    """Return a sentence on the numbers of a TIFF that Pillow can't open; None if the file is none."""
    with suppress(Exception):  # whatever a damaged file makes of the tags
        file.seek(0)
        header = file.read(8)
        if header[:4] not in TiffImagePlugin.PREFIXES:
            return None
        header += file.read(8) if BIG_TIFF in header[2:4] else b""
        tags = TiffImagePlugin.ImageFileDirectory_v2(header)
        file.seek(tags.next)
        tags.load(file)
        return describe_numbers(*read_tags(tags)) if BANDS in tags or BITS in tags else None
    return None


def has_transparency(image: Image.Image) -> bool:
    """Return whether an image says how transparent its pixels are; a TIFF's fourth band is that only if it says so."""
    tags = getattr(image, "tag_v2", None)
    unsaid = image.format == "TIFF" and image.mode == "RGBA" and tags is not None and EXTRA_SAMPLES not in tags
    return image.has_transparency_data and not unsaid


def to_rgb(image: Image.Image) -> Image.Image:
    """Convert an image to upright 8-bit RGB.

    Grey, palette and CMYK images are converted, 16 bits scaled to 8, EXIF rotations applied; transparent images are
    composed on white.

    Raises:
        DataError: The pixels have a range that isn't known.
    """
    check_mode(image)
    transparent, deep = has_transparency(image), is_sixteen_bits(image)
    image = apply_orientation(image)
    if deep:
        image = scale_to_eight_bits(image)
    if transparent and image.has_transparency_data:
        layer = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer)
    return image.convert("RGB")


def may_vanish(image: Image.Image) -> bool:
    """Return whether the way to RGB may leave nothing to see of an image: transparency, or 16 bits for few values."""
    return has_transparency(image) or is_sixteen_bits(image)


def find_doubt(image: Image.Image) -> str | None:
    """Return why there is nothing to see in an RGB image, as a phrase; None if there is something."""
    ends = image.getextrema()
    lowest, highest = zip(*ends, strict=True)
    if lowest == highest and image.width * image.height > 1:
        return f"of one colour, {'white' if min(lowest) == 255 else 'black' if not max(highest) else f'RGB {lowest}'}"
    if max(highest) <= DARK:
        return f"nearly black, with no value above {max(highest)} of 255"
    if min(lowest) >= BRIGHT:
        return f"nearly white, with no value below {min(lowest)} of 255"
    return None
