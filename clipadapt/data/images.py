"""Images as upright RGB, whatever their files hold, and sequences of them that are loaded when asked for."""

import hashlib
import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path
from typing import BinaryIO, Generic, TypeVar, overload

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from clipadapt.data.threads import in_threads
from clipadapt.errors import DataError

Item = TypeVar("Item")

ENDINGS = {"JPEG": b"\xff\xd9", "MPO": b"\xff\xd9", "PNG": b"IEND\xaeB`\x82", "GIF": b";", "WEBP": b""}
"""The last bytes of a whole file by format; files may go on after them, and WebP files are read whole to be opened."""


def upright(image: Image.Image) -> Image.Image:
    """The image turned as its EXIF orientation says."""
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # a damaged EXIF block can raise anything, and the pixels are fine without it
        return image


def eight_bits(image: Image.Image) -> Image.Image:
    """A 16-bit grey image as an 8-bit one: 65535 becomes 255 (Pillow's own conversion clips)."""
    values = np.asarray(image).astype(np.uint32)
    return Image.fromarray(((values + 128) // 257).astype(np.uint8))


def to_rgb(image: Image.Image) -> Image.Image:
    """The image as upright 8-bit RGB.

    Grey, palette and CMYK images are converted, 16 bits scaled to 8, EXIF rotations applied; what is transparent is
    laid on white.

    Raises:
        DataError: For 32-bit pixels, whose range isn't known.
    """
    image = upright(image)
    if image.mode.startswith("I;16"):
        image = eight_bits(image)
    if image.mode in ("I", "F"):
        raise DataError("its pixels are 32-bit numbers of unknown range; save it with 8 or 16 bits a channel")
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer)
    return image.convert("RGB")


def explain(path: str | Path, error: Exception) -> str:
    """One sentence on an image file that can't be read."""
    if isinstance(error, FileNotFoundError):
        gone = ", which is a link to a file that is gone" if os.path.islink(path) else ""
        return f"there is no image file '{path}'{gone}"
    if isinstance(error, Image.DecompressionBombError):
        reason = f"{bomb(error)}; make it smaller"
    elif isinstance(error, UnidentifiedImageError):
        empty = os.path.isfile(path) and not os.path.getsize(path)
        reason = "the file is empty" if empty else "it is not an image of a known format"
    elif isinstance(error, OSError) and error.strerror:
        reason = error.strerror
    else:
        reason = str(error)
    return f"the image '{path}' can't be read: {reason}"


def bomb(error: Image.DecompressionBombError) -> str:
    """In words, how large an image is that claims to be larger than is safe to unpack."""
    pixels = re.search(r"\d+", str(error))  # Pillow's own error tells of them in its text alone
    claimed = f"{int(pixels[0]):,}" if pixels else "too many"
    return f"it claims {claimed} pixels, and more than {Image.MAX_IMAGE_PIXELS:,} could fill the memory"


@contextmanager
def opened(path: str | Path, content: bytes | None = None) -> Iterator[tuple[BinaryIO, Image.Image]]:
    """An image file, and the image it holds, of which the header has been read.

    Args:
        path: Where it is; only its name, where it lies in another file.
        content: Of a file that lies in another one.

    Raises:
        DataError: For whatever goes wrong with the file, here or where it is used; it names the file.
    """
    try:
        with (
            open(path, "rb") if content is None else BytesIO(content) as file,
            Image.open(file) as image,  # by its path, Pillow garbles some rotated TIFFs
        ):
            limit, pixels = Image.MAX_IMAGE_PIXELS, image.width * image.height
            if limit is not None and pixels > limit:  # up to twice the limit, Pillow only warns
                raise Image.DecompressionBombError(f"{pixels} pixels")
            yield file, image
    except Exception as error:  # decoders of damaged files raise anything: OSError, SyntaxError, struct.error …
        raise DataError(explain(path, error)) from error


def open_image(path: str | Path, content: bytes | None = None) -> Image.Image:
    """Load an image file as upright RGB (see to_rgb); of an animation, the first frame. Arguments as of opened.

    Raises:
        DataError: For a file that is missing, no image, truncated or otherwise damaged, or that claims more pixels than
            PIL.Image.MAX_IMAGE_PIXELS; it names the file.
    """
    with opened(path, content) as (_, image):
        image.load()
        return to_rgb(image)


def verify_image(path: str | Path, content: bytes | None = None) -> None:
    """Check an image file by its header and its last bytes; decode it only where those don't tell that it is whole.

    Arguments as of opened.

    Raises:
        DataError: For a file that is missing, no image, cut short, or too large to unpack; it names the file.
    """
    with opened(path, content) as (file, image):
        ending = ENDINGS.get(image.format or "")
        if ending is None or not ends_with(file, ending):
            image.load()


def ends_with(file: BinaryIO, ending: bytes) -> bool:
    """Whether these are the last bytes of a file, which stays where it is read."""
    place = file.tell()
    file.seek(-len(ending), os.SEEK_END)
    found = file.read()
    file.seek(place)
    return found == ending


@dataclass(frozen=True)
class LazyImages(Sequence[Image.Image], Generic[Item]):
    """Images made from `items` by `load`, each time they are asked for.

    `verify` checks an item without loading it; `content` gives bytes that stand for an item's image, so that whoever
    keeps what was computed of it needn't load it. It holds items, not pixels, so it is cheap to hand to another
    process where `load` and `items` are.
    """

    items: Sequence[Item]
    load: Callable[[Item], Image.Image]
    verify: Callable[[Item], None] | None = None
    content: Callable[[Item], bytes] | None = None

    def __len__(self) -> int:
        """How many there are."""
        return len(self.items)

    @overload
    def __getitem__(self, index: int) -> Image.Image: ...

    @overload
    def __getitem__(self, index: slice) -> "LazyImages[Item]": ...

    def __getitem__(self, index: int | slice) -> "Image.Image | LazyImages[Item]":
        """Load one image, or take a slice without loading any."""
        if isinstance(index, slice):
            return replace(self, items=self.items[index])
        return self.load(self.items[index])

    def __iter__(self) -> Iterator[Image.Image]:
        """Load one after the other."""
        return map(self.load, self.items)

    def select(self, indices: Sequence[int]) -> "LazyImages[Item]":
        """The pictures at these indices, in their order."""
        return replace(self, items=[self.items[index] for index in indices])


def select(images: Sequence[Image.Image], indices: Sequence[int]) -> Sequence[Image.Image]:
    """The images at these indices, in their order, loaded no earlier than before."""
    if isinstance(images, LazyImages):
        return images.select(indices)
    return LazyImages(list(indices), images.__getitem__)


def fingerprints(images: Sequence[Image.Image]) -> list[bytes]:
    """16 bytes for each image that tell images of different content apart; several are looked at at once.

    Raises:
        DataError: For an image file that is missing or can't be read.
    """
    if isinstance(images, LazyImages) and images.content is not None:
        items, content = images.items, images.content
        return in_threads(lambda index: digest(content(items[index])), len(images))
    return in_threads(lambda index: digest(pixel_bytes(images[index])), len(images))


def fingerprinted(images: Sequence[Image.Image]) -> LazyImages[int]:
    """The images, what stands for each of them computed here, once for all that is made of them.

    Raises:
        DataError: For an image file that is missing or can't be read.
    """
    return LazyImages(range(len(images)), images.__getitem__, content=fingerprints(images).__getitem__)


def digest(content: bytes) -> bytes:
    """16 bytes for any content."""
    return hashlib.blake2b(content, digest_size=16).digest()


def pixel_bytes(image: Image.Image) -> bytes:
    """An image's size and pixels."""
    return repr((image.mode, image.size)).encode() + image.tobytes()


def file_bytes(path: str | Path) -> bytes:
    """An image file as it is.

    Raises:
        DataError: For a file that is missing or can't be read.
    """
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise DataError(explain(path, error)) from error
