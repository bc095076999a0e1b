"""Images of many bands, of signed and of floating-point numbers: which bands are colours, and which range they have."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, TiffImagePlugin

from clipadapt.data.images import check_regular, check_sides, explain_error, file_bytes, open_checked
from clipadapt.data.inputs import UNNAMED, read_bytes
from clipadapt.errors import DataError, UserError

RANGES = {"uint8": (0, 255), "uint16": (0, 65535)}
"""Ranges of numbers that are known."""
COLOURS = 3
HOW = "task.bands=[3,2,1] for three of them, or one: task.bands=[4]"


@dataclass(frozen=True)
class Bands:
    """Choice of bands as colours, and of the range of their values.

    Attributes:
        bands: Three bands as red, green and blue, or one as grey; the first is 1, as GDAL counts. None for all of an
            image with three bands or one.
        value_range: The values that become black and white, such as [0, 10000]; beyond, values are clipped, and those
            that are no numbers are black. None for that of whole numbers of 8 or 16 bits without sign.

    Raises:
        DataError: Other numbers of bands, or a range whose ends aren't in order.
    """

    bands: Sequence[int] | None = None
    value_range: Sequence[float] | None = None

    def __post_init__(self) -> None:
        """Check the bands and the range."""
        if self.bands is not None and (len(self.bands) not in (1, COLOURS) or min(self.bands) < 1):
            raise DataError(f"task.bands={[*self.bands]} does not fit: bands count from 1: {HOW}")
        ends = self.value_range
        if ends is not None and (len(ends) != 2 or not 0 < ends[1] - ends[0] < math.inf):
            raise DataError(
                f"task.value_range={[*ends]} does not fit: it must be the values of black and white, as in [0,10000]"
            )

    def open(self, path: str | Path) -> Image.Image:
        """Load an image file as 8-bit RGB.

        Raises:
            DataError: The file is missing, damaged or no image, or lacks the bands; the message names the file.
        """
        check_regular(path)
        return self.decode(path, file_bytes(path))

    def decode(self, path: str | Path, content: bytes) -> Image.Image:
        """Return the image of a file's bytes as 8-bit RGB; arguments and errors as of `open`."""
        if content[:4] not in TiffImagePlugin.PREFIXES:
            with open_checked(path, content) as (_, image):
                return self.image(np.asarray(image))
        try:
            return self.image(read_tiff(content))
        except Exception as error:  # decoders of damaged files raise anything
            raise DataError(explain_error(path, error, content)) from error

    def verify(self, path: str | Path) -> bool:
        """Check an image file by decoding it; returns that there may be nothing to see in it. Errors as of `open`."""
        self.open(path)
        return True

    def read(self, picture: Any) -> Image.Image:
        """Return a path, a file's bytes, an open file, a PIL image or an array `[height, width, bands]` as 8-bit RGB.

        Raises:
            UserError: It is something else, or an image that can't be read.
        """
        content = read_bytes(picture)
        if content is not None:
            return self.decode(UNNAMED, content)
        if isinstance(picture, str | Path):
            return self.open(picture)
        if not isinstance(picture, Image.Image | np.ndarray):
            raise UserError(
                "an image must be a path, the bytes of a file, a PIL image or an array [height, width, bands] for a "
                f"run with task.bands or task.value_range, and one is of the type {type(picture).__name__}"
            )
        return self.image(np.asarray(picture))

    def image(self, values: np.ndarray) -> Image.Image:
        """Return values `[height, width]` or `[height, width, bands]` as 8-bit RGB.

        Raises:
            DataError: The image lacks the bands, or they or their range have to be chosen.
        """
        values = values[..., None] if values.ndim == 2 else values
        if values.ndim != COLOURS:
            raise DataError(f"it has the shape {list(values.shape)}, and no bands of height and width")
        low, high = self._range(values)
        chosen = values[..., self._places(values.shape[-1])].astype(np.float64)
        shares = np.nan_to_num((chosen - low) / (high - low), nan=0.0, posinf=1.0, neginf=0.0).clip(0, 1)
        image = Image.fromarray(np.repeat(np.rint(255 * shares).astype(np.uint8), COLOURS // shares.shape[-1], axis=-1))
        check_sides(image)
        return image

    def _places(self, count: int) -> list[int]:
        """Return the places of the chosen bands of an image with so many."""
        if self.bands is None and count not in (1, COLOURS):
            raise DataError(f"it has {count} bands: choose {HOW}")
        places = range(count) if self.bands is None else [band - 1 for band in self.bands]
        if max(places) >= count:
            raise DataError(f"it has {count} {'band' if count == 1 else 'bands'}, and no band {max(places) + 1}")
        return [*places]

    def _range(self, values: np.ndarray) -> Sequence[float]:
        """Return the values that become black and white."""
        if self.value_range is not None:
            return self.value_range
        if str(values.dtype) not in RANGES:
            raise DataError(
                f"it has numbers of the kind {values.dtype}: give the values of black and white with "
                "task.value_range=[low,high]"
            )
        return RANGES[str(values.dtype)]


def read_tiff(content: bytes) -> np.ndarray:
    """Return the values `[height, width]` or `[height, width, bands]` of a TIFF's first image.

    Raises:
        DataError: tifffile isn't installed, or the image claims too many pixels.
    """
    try:
        from tifffile import TiffFile
    except ImportError:
        raise DataError("bands of a TIFF are read by the library tifffile: pip install 'clipadapt[tiff]'") from None
    with TiffFile(BytesIO(content)) as file:
        series = file.series[0]
        height, width = (series.shape[series.axes.index(axis)] for axis in "YX")
        if Image.MAX_IMAGE_PIXELS is not None and height * width > Image.MAX_IMAGE_PIXELS:
            raise Image.DecompressionBombError(f"{height * width} pixels")
        values: np.ndarray = series.asarray(maxworkers=1)
        axes = [series.axes.index(axis) for axis in "YX"]
        return np.moveaxis(values, axes, range(2))
