"""Image files decoded as upright RGB, and sequences of images that are loaded on access."""

import hashlib
import logging
import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path
from typing import BinaryIO, Generic, TypeVar, overload

from PIL import Image, UnidentifiedImageError

from clipadapt.data import formats
from clipadapt.data.pixels import check_mode, describe_tiff, may_vanish, to_rgb
from clipadapt.data.threads import map_in_threads
from clipadapt.errors import DataError
from clipadapt.paths import irregular, shorten, why_unusable

Item = TypeVar("Item")

logging.getLogger("PIL").addHandler(logging.NullHandler())  # its words on damaged files are in our errors

ENDINGS = {"JPEG": b"\xff\xd9", "MPO": b"\xff\xd9", "PNG": b"IEND\xaeB`\x82", "GIF": b";", "WEBP": b""}
"""The last bytes of a whole file by format; WebP files have none, since opening one reads all of it."""


MAX_RATIO = 1_000
"""A long side over a short one; resized to a short side of 336 pixels, such an image has 113 million."""


def check_sides(image: Image.Image) -> None:
    """Check that an image has pixels and isn't so thin that resizing its short side would fill the memory.

    Raises:
        DataError: It has no pixels, or one side is much longer than the other.
    """
    short, long = sorted(image.size)
    if short < 1:
        raise DataError("it has no pixels")
    if long > MAX_RATIO * short:
        raise DataError(f"one side is {long // short:,} times as long as the other, and {MAX_RATIO:,} are possible")


def explain_error(path: str | Path, error: Exception, content: bytes | None = None) -> str:
    """Return one sentence that says why an image file can't be read; arguments as in `open_checked`."""
    if reason := why_unusable(str(path).replace("{", "")):
        return f"the image '{shorten(str(path))}' can't be read: {reason}"
    if isinstance(error, FileNotFoundError):
        gone = ", which is a link to a file that is gone" if os.path.islink(path) else ""
        return f"there is no image file '{path}'{gone}"
    if isinstance(error, Image.DecompressionBombError):
        reason = f"{describe_bomb(error)}; make it smaller"
    elif isinstance(error, UnidentifiedImageError):
        reason = explain_unknown(path, content)
    elif isinstance(error, OSError) and error.strerror:
        reason = error.strerror
    else:
        reason = str(error)
    return f"the image '{path}' can't be read: {reason}"


def explain_unknown(path: str | Path, content: bytes | None) -> str:
    """Return why Pillow knows no format for a file: it is empty, a TIFF of other numbers, or no image."""
    if content is None and os.path.isfile(path) and not os.path.getsize(path):
        return "the file is empty"
    with suppress(OSError), BytesIO(content) if content is not None else open(path, "rb") as file:
        if found := describe_tiff(file):
            return found
    package = formats.PLUGINS.get(os.path.splitext(path)[1].lower())
    return f"pip install {package} reads such files" if package else "it is not an image of a known format"


def describe_bomb(error: Image.DecompressionBombError) -> str:
    """Return a phrase that says how many pixels an image claims that is larger than is safe to decode."""
    pixels = re.search(r"\d+", str(error))  # Pillow's error has the number only in its text
    claimed = f"{int(pixels[0]):,}" if pixels else "too many"
    return f"it claims {claimed} pixels, and more than {Image.MAX_IMAGE_PIXELS:,} could fill the memory"


def check_regular(path: str | Path) -> None:
    """Check that an image file is no pipe, socket, device or folder; raises DataError, without opening it."""
    if kind := irregular(path):
        raise DataError(f"the image '{path}' can't be read: it is {kind}, and no file")


@contextmanager
def open_checked(path: str | Path, content: bytes | None = None) -> Iterator[tuple[BinaryIO, Image.Image]]:
    """Open an image file and its image, reading only the header; any error becomes a DataError.

    Args:
        path: The file; only a name for messages if `content` is given.
        content: The file's bytes, for a file inside another one.

    Raises:
        DataError: The file can't be opened, or decoding it in the caller's `with` block fails; names the file.
    """
    if content is None:
        check_regular(path)
    try:
        with (
            open(path, "rb") if content is None else BytesIO(content) as file,
            Image.open(file) as image,  # by its path, Pillow garbles some rotated TIFFs
        ):
            limit, pixels = Image.MAX_IMAGE_PIXELS, image.width * image.height
            if limit is not None and pixels > limit:  # up to twice the limit, Pillow only warns
                raise Image.DecompressionBombError(f"{pixels} pixels")
            check_sides(image)
            yield file, image
    except Exception as error:  # decoders of damaged files raise anything: OSError, SyntaxError, struct.error …
        raise DataError(explain_error(path, error, content)) from error


def open_image(path: str | Path, content: bytes | None = None) -> Image.Image:
    """Load an image file as upright RGB (see `to_rgb`), an animation's first frame. Arguments as in `open_checked`.

    Raises:
        DataError: The file is missing, no image, truncated or otherwise damaged, or claims more pixels than
            PIL.Image.MAX_IMAGE_PIXELS; the message names the file.
    """
    with open_checked(path, content) as (_, image):
        image.load()
        return to_rgb(image)


def verify_image(path: str | Path, content: bytes | None = None) -> bool:
    """Check an image file by its header and last bytes; decode it only if these don't show that it is whole.

    Arguments as in `open_checked`. Returns whether its conversion to RGB may leave nothing to see (see `may_vanish`).

    Raises:
        DataError: The file is missing, no image, truncated, or too large to decode; the message names the file.
    """
    with open_checked(path, content) as (file, image):
        check_mode(image)
        ending = ENDINGS.get(image.format or "")
        if ending is None or not ends_with(file, ending):
            image.load()
        return may_vanish(image)


def ends_with(file: BinaryIO, ending: bytes) -> bool:
    """Return whether a file ends with these bytes; the read position is restored."""
    place = file.tell()
    file.seek(-len(ending), os.SEEK_END)
    found = file.read()
    file.seek(place)
    return found == ending


@dataclass(frozen=True)
class LazyImages(Sequence[Image.Image], Generic[Item]):
    """Images that `load` makes from `items` on each access.

    `verify` checks an item without decoding it, and may return whether its image should be looked at. `content` returns
    bytes that identify an item's image, so that a cache of its features needn't load it. Only the items are stored, no
    pixels, so a LazyImages pickles to another process as fast as `load` and `items` do.
    """

    items: Sequence[Item]
    load: Callable[[Item], Image.Image]
    verify: Callable[[Item], object] | None = None
    content: Callable[[Item], bytes] | None = None

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.items)

    @overload
    def __getitem__(self, index: int) -> Image.Image: ...

    @overload
    def __getitem__(self, index: slice) -> "LazyImages[Item]": ...

    def __getitem__(self, index: int | slice) -> "Image.Image | LazyImages[Item]":
        """Load one image, or return a slice without loading any."""
        if isinstance(index, slice):
            return replace(self, items=self.items[index])
        return self.load(self.items[index])

    def __iter__(self) -> Iterator[Image.Image]:
        """Load the images one after the other."""
        return map(self.load, self.items)

    def select(self, indices: Sequence[int]) -> "LazyImages[Item]":
        """Return the images at these indices, in their order, without loading any."""
        return replace(self, items=[self.items[index] for index in indices])


def select(images: Sequence[Image.Image], indices: Sequence[int]) -> Sequence[Image.Image]:
    """Return the images at these indices, in their order, without loading any."""
    if isinstance(images, LazyImages):
        return images.select(indices)
    return LazyImages(list(indices), images.__getitem__)


def fingerprints(images: Sequence[Image.Image]) -> list[bytes]:
    """Return a hash of 16 bytes for each image's content; several images are read at once.

    Raises:
        DataError: An image file is missing or can't be read.
    """
    if isinstance(images, LazyImages) and images.content is not None:
        items, content = images.items, images.content
        return map_in_threads(lambda index: digest(content(items[index])), len(images))
    return map_in_threads(lambda index: digest(pixel_bytes(images[index])), len(images))


def with_fingerprints(images: Sequence[Image.Image]) -> LazyImages[int]:
    """Return the images with their hashes computed once, in advance.

    Raises:
        DataError: An image file is missing or can't be read.
    """
    return LazyImages(range(len(images)), images.__getitem__, content=fingerprints(images).__getitem__)


def digest(content: bytes) -> bytes:
    """Return a hash of 16 bytes."""
    return hashlib.blake2b(content, digest_size=16).digest()


def pixel_bytes(image: Image.Image) -> bytes:
    """Return an image's mode, size and pixels as bytes."""
    return repr((image.mode, image.size)).encode() + image.tobytes()


def file_bytes(path: str | Path) -> bytes:
    """Read an image file's bytes.

    Raises:
        DataError: The file is missing or can't be read.
    """
    check_regular(path)
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise DataError(explain_error(path, error)) from error
