"""Images as callers have them: paths, PIL images, arrays of pixels, and tensors that the backbone's transform made."""

from collections.abc import Iterable, Mapping
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor

from clipadapt.data.images import check_sides, digest, file_bytes, open_image, pixel_bytes, to_rgb
from clipadapt.errors import DataError, UserError

Picture = str | Path | Image.Image | np.ndarray | Tensor
KINDS = "a path, a PIL image, an array of 8-bit pixels [height, width, 3] or a tensor"


def as_list(pictures: Picture | Iterable[Picture]) -> list[Any]:
    """Return one picture or several as a list.

    Raises:
        UserError: it is neither a picture nor pictures one after the other, or there are none.
    """
    if isinstance(pictures, str | PathLike | Image.Image | bytes | bytearray) or is_single(pictures):
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
    """Return a path, a PIL image or an array as upright RGB (see `to_rgb`).

    Raises:
        UserError: it is something else, or an image that can't be read.
    """
    if isinstance(picture, str | PathLike):
        return open_image(Path(picture))
    if isinstance(picture, np.ndarray):
        picture = from_array(picture)
    if isinstance(picture, bytes | bytearray):
        raise UserError("an image is given as bytes: open a file's bytes with PIL.Image.open(io.BytesIO(…))")
    if not isinstance(picture, Image.Image):
        raise UserError(f"an image must be {KINDS}, and one is of the type {type(picture).__name__}")
    try:
        check_sides(picture)
        return to_rgb(picture)
    except Exception as error:  # Pillow raises anything for an image that was closed, or whose file is damaged
        raise DataError(f"a PIL image can't be read: {error}") from error


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
    return digest(file_bytes(Path(picture)) if isinstance(picture, str | PathLike) else pixel_bytes(image))


def check_pixels(pixels: Tensor, size: tuple[int, int]) -> Tensor:
    """Return a tensor of preprocessed pixels `[3, height, width]`, after checking it.

    Args:
        pixels: the tensor.
        size: height and width of the images that the backbone reads.

    Raises:
        UserError: it has another shape, whole numbers, or values that aren't finite.
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
    return pixels
