"""Images as upright RGB, whatever their files hold, and sequences of them that are loaded when asked for."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Generic, TypeVar, overload

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from clipadapt.errors import UserError

Item = TypeVar("Item")


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
        UserError: For 32-bit pixels, whose range isn't known.
    """
    image = upright(image)
    if image.mode.startswith("I;16"):
        image = eight_bits(image)
    if image.mode in ("I", "F"):
        raise UserError("its pixels are 32-bit numbers of unknown range; save it with 8 or 16 bits a channel")
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer)
    return image.convert("RGB")


def explain(path: Path, error: Exception) -> str:
    """One sentence on an image file that can't be read."""
    reason = "it is not an image of a known format" if isinstance(error, UnidentifiedImageError) else str(error)
    return f"the image '{path}' can't be read: {reason}"


def open_image(path: str | Path) -> Image.Image:
    """Load an image file as upright RGB (see to_rgb); of an animation, the first frame.

    Raises:
        UserError: For a file that is missing, no image, truncated or otherwise damaged; it names the file.
    """
    try:
        with open(path, "rb") as file, Image.open(file) as image:  # by its path, Pillow garbles some rotated TIFFs
            image.load()
            return to_rgb(image)
    except FileNotFoundError:
        raise UserError(f"there is no image file '{path}'") from None
    except Exception as error:  # decoders of damaged files raise anything: OSError, SyntaxError, struct.error …
        raise UserError(explain(Path(path), error)) from error


def verify_image(path: str | Path) -> None:
    """Check an image file's header (and checksums, where its format has them) without decoding it.

    Raises:
        UserError: For a file that is missing or no image; it names the file.
    """
    try:
        with open(path, "rb") as file, Image.open(file) as image:
            image.verify()
    except FileNotFoundError:
        raise UserError(f"there is no image file '{path}'") from None
    except Exception as error:  # as in open_image
        raise UserError(explain(Path(path), error)) from error


@dataclass(frozen=True)
class Pictures(Sequence[Image.Image], Generic[Item]):
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
    def __getitem__(self, index: slice) -> "Pictures[Item]": ...

    def __getitem__(self, index: int | slice) -> "Image.Image | Pictures[Item]":
        """Load one image, or take a slice without loading any."""
        if isinstance(index, slice):
            return replace(self, items=self.items[index])
        return self.load(self.items[index])

    def __iter__(self) -> Iterator[Image.Image]:
        """Load one after the other."""
        return map(self.load, self.items)

    def select(self, indices: Sequence[int]) -> "Pictures[Item]":
        """The pictures at these indices, in their order."""
        return replace(self, items=[self.items[index] for index in indices])


def select(images: Sequence[Image.Image], indices: Sequence[int]) -> Sequence[Image.Image]:
    """The images at these indices, in their order, loaded no earlier than before."""
    if isinstance(images, Pictures):
        return images.select(indices)
    return Pictures(list(indices), images.__getitem__)


def faults(images: Sequence[Image.Image], decode: bool) -> list[str]:
    """What is wrong with images that come from files, a sentence each; several are looked at at once.

    Args:
        images: The images; only Pictures that can be verified are looked at.
        decode: Whether to decode each image whole, instead of reading its header only.
    """
    if not isinstance(images, Pictures) or images.verify is None:
        return []
    look: Callable[[Item], object] = images.load if decode else images.verify

    def fault(item: Item) -> str | None:
        try:
            look(item)
        except UserError as error:
            return str(error)
        return None

    with ThreadPoolExecutor() as threads:
        return [message for message in threads.map(fault, images.items) if message]


def fingerprints(images: Sequence[Image.Image]) -> list[bytes]:
    """16 bytes for each image that tell images of different content apart; several are looked at at once.

    Raises:
        UserError: For an image file that is missing or can't be read.
    """
    with ThreadPoolExecutor() as threads:
        if isinstance(images, Pictures) and images.content is not None:
            return [digest(content) for content in threads.map(images.content, images.items)]
        return list(threads.map(lambda index: digest(pixel_bytes(images[index])), range(len(images))))


def digest(content: bytes) -> bytes:
    """16 bytes for any content."""
    return hashlib.blake2b(content, digest_size=16).digest()


def pixel_bytes(image: Image.Image) -> bytes:
    """An image's size and pixels."""
    return repr((image.mode, image.size)).encode() + image.tobytes()


def file_bytes(path: str | Path) -> bytes:
    """An image file as it is.

    Raises:
        UserError: For a file that is missing or can't be read.
    """
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise UserError(explain(Path(path), error)) from error
