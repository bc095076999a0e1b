"""Images as callers have them: paths, bytes, PIL images, arrays, and tensors that the backbone's transform made."""

from collections.abc import Iterable, Mapping
from io import IOBase
from os import PathLike
from pathlib import Path
from typing import IO, Any

import numpy as np
from PIL import Image
from torch import Tensor

from clipadapt.data.images import check_sides, digest, file_bytes, open_image, pixel_bytes
from clipadapt.data.pixels import to_rgb
from clipadapt.errors import DataError, UserError
from clipadapt.notices import notice

Picture = str | Path | bytes | IO[bytes] | Image.Image | np.ndarray | Tensor
BYTES = bytes | bytearray | memoryview
KINDS = "a path, the bytes of a file, a PIL image, an array of 8-bit pixels [height, width, 3] or a tensor"

UNNAMED = "(its bytes)"
"""Name of an image that is given as bytes, for messages."""

MARGIN = 0.5
"""Distance of pixels outside of black and white that is allowed, as a share of the range between them."""

EDGE = 0.1
"""Pixels that come so near to 0 and 1, and not beyond, were not normalised."""

CONTRAST = 0.5
"""Pixels from 0 to 1 that differ by more were probably not normalised: few images have only greys between."""


def as_list(pictures: Picture | Iterable[Picture]) -> list[Any]:
    """Return one picture or several as a list.

    Raises:
        UserError: it is neither a picture nor pictures one after the other, or there are none.
    """
    if isinstance(pictures, str | PathLike | Image.Image | IOBase | BYTES) or is_single(pictures):
        return [pictures]
    if hasattr(pictures, "read"):  # an open file of another library, such as a temporary one
        return [pictures]
    if isinstance(pictures, Mapping) or not isinstance(pictures, Iterable) or is_number(pictures):
        raise UserError(f"images must be {KINDS}, or a list of them, and not of the type {type(pictures).__name__}")
    found = list(pictures)
    if not found:
        raise UserError("there are no images to classify")
    return found


def is_single(pictures: Any) -> bool:
    """Return whether an array (`[height, width]` or with channels) or a tensor (`[3, height, width]`) is one image."""
    if isinstance(pictures, np.ndarray):
        return pictures.ndim in (2, 3)
    return isinstance(pictures, Tensor) and pictures.ndim == 3


def is_number(pictures: Any) -> bool:
    """Return whether an array or a tensor is a single number, which can't be iterated over."""
    return isinstance(pictures, np.ndarray | Tensor) and pictures.ndim == 0


def to_image(picture: Any) -> Image.Image:
    """Return a path, a file's bytes, an open file, a PIL image or an array as upright RGB (see `to_rgb`).

    Raises:
        UserError: it is something else, or an image that can't be read.
    """
    if isinstance(picture, str | PathLike):
        return open_image(Path(picture))
    if isinstance(picture, np.ndarray):
        picture = from_array(picture)
    if (content := read_bytes(picture)) is not None:
        return open_image(UNNAMED, content)
    if not isinstance(picture, Image.Image):
        raise UserError(f"an image must be {KINDS}, and one is of the type {type(picture).__name__}")
    try:
        check_sides(picture)
        return to_rgb(picture)
    except Exception as error:  # Pillow raises anything for an image that was closed, or whose file is damaged
        raise DataError(f"a PIL image can't be read: {error}") from error


def read_bytes(picture: Any) -> bytes | None:
    """Return the bytes of a picture that is given as bytes or as an open file; None if it is neither.

    An open file is read from its beginning, and left as it was.
    """
    if isinstance(picture, BYTES):
        return bytes(picture)
    if isinstance(picture, Image.Image) or not hasattr(picture, "read"):
        return None
    try:
        place = picture.tell()
        picture.seek(0)
        content = picture.read()
        picture.seek(place)
    except (OSError, ValueError, AttributeError) as error:  # a closed file, or one that can't be read twice
        raise DataError(f"an open file of an image can't be read: {error}") from error
    if not isinstance(content, bytes):
        raise UserError("an image is given as a file of text: open it in binary mode, as open(path, 'rb')")
    return content


def from_array(pixels: np.ndarray) -> Image.Image:
    """Return an array `[height, width]`, `[height, width, 3]` or `[height, width, 4]` of 8-bit pixels as an image.

    Raises:
        UserError: it has another shape or other numbers.
    """
    channels = pixels.shape[2:] or (1,)
    if pixels.dtype != np.uint8 or pixels.ndim not in (2, 3) or channels not in ((1,), (3,), (4,)) or not pixels.size:
        raise UserError(
            "an array must be of 8-bit pixels [height, width, 3], from 0 to 255 in RGB, and one is of "
            f"{pixels.dtype} {list(pixels.shape)}"
        )
    return Image.fromarray(np.ascontiguousarray(pixels[..., 0] if pixels.shape[2:] == (1,) else pixels))


def content_digest(picture: Any, image: Image.Image) -> bytes:
    """Return a hash of a picture's content; `image` is what `to_image` made of it."""
    if isinstance(picture, str | PathLike):
        return digest(file_bytes(Path(picture)))
    content = read_bytes(picture)
    return digest(pixel_bytes(image) if content is None else content)


def check_pixels(pixels: Tensor, size: tuple[int, int], preprocess: Mapping[str, Any]) -> Tensor:
    """Return a tensor of preprocessed pixels `[3, height, width]`, after checking it.

    Args:
        pixels: the tensor.
        size: height and width of the images that the backbone reads.
        preprocess: the backbone's preprocessing; `mean` and `std` of each channel normalise pixels from 0 to 1.

    Raises:
        UserError: it has another shape, whole numbers, values that aren't finite, or those of pixels that weren't
            normalised.
    """
    shape = [3, *size]
    if list(pixels.shape) != shape:
        raise UserError(f"a tensor must be pixels {shape} as the backbone reads them, and one is {list(pixels.shape)}")
    if not pixels.is_floating_point():
        raise UserError(
            f"a tensor must be preprocessed by the backbone's transform, and one is of {pixels.dtype}: give 8-bit "
            "pixels as an array [height, width, 3]"
        )
    if not bool(pixels.isfinite().all()):
        raise UserError("a tensor of pixels holds values that are not finite (NaN or infinity)")
    check_range(float(pixels.min()), float(pixels.max()), preprocess)
    return pixels


def check_range(lowest: float, highest: float, preprocess: Mapping[str, Any]) -> None:
    """Check that the lowest and highest value of a tensor may be those of normalised pixels.

    Those that may be, and are probably not, are noted.

    Raises:
        UserError: They can't be.
    """
    colours = [*zip(preprocess["mean"], preprocess["std"], strict=True)]
    black, white = min(-mean / std for mean, std in colours), max((1 - mean) / std for mean, std in colours)
    beyond = MARGIN * (white - black)
    shares = lowest >= 0 and highest <= 1 and black < -EDGE
    plain = shares and lowest < EDGE and highest > 1 - EDGE
    if plain or lowest < black - beyond or highest > white + beyond:
        raise UserError(
            f"a tensor must be normalised by the backbone's transform, to values from {black:.2f} (black) to "
            f"{white:.2f} (white), and one has values from {lowest:.3g} to {highest:.3g}: apply it, or give a PIL image"
        )
    if shares and highest - lowest > CONTRAST:
        notice(
            f"a tensor has values from {lowest:.3g} to {highest:.3g}, as pixels have that aren't normalised by the "
            "backbone's transform: apply it, or give a PIL image",
            stacklevel=5,
        )
