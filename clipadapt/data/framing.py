"""Framing of images: which bands are colours, and the square that the backbone sees of an image."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from PIL import Image, ImageColor

from clipadapt.data.bands import Bands
from clipadapt.data.images import LazyImages, open_image
from clipadapt.data.inputs import to_image
from clipadapt.data.tasks import Split, Task
from clipadapt.errors import DataError

Resize = Literal["crop", "pad", "squash"]
LOST, LOOKED_AT = 0.5, 16
"""Share of an image outside the centre crop that is worth a note, and how many support images are looked at."""


@dataclass(frozen=True)
class Framing:
    """Change of images that aren't square into squares, before the backbone's preprocessing and before random crops.

    Attributes:
        resize: "crop" leaves it to the backbone's centre crop of the shorter side; "pad" adds `pad_colour` to the
            shorter side; "squash" stretches the shorter side.
        pad_colour: A colour that Pillow knows, such as "white" or "#7a7468".
        bands: The bands that are colours, and their range; None for images of known colours.

    Raises:
        DataError: An unknown colour.
    """

    resize: Resize = "crop"
    pad_colour: str = "#7a7468"
    bands: Bands | None = None

    def __post_init__(self) -> None:
        """Check the colour."""
        try:
            ImageColor.getrgb(self.pad_colour)
        except ValueError as error:
            raise DataError(
                f"task.pad_colour={self.pad_colour!r} is no colour: give a name, such as white, or '#rrggbb'"
            ) from error

    def __call__(self, image: Image.Image) -> Image.Image:
        """Return an RGB image as it is to be seen: the same, or one whose sides are those of the longer side."""
        side = max(image.size)
        if self.resize == "crop" or image.width == image.height:
            return image
        if self.resize == "squash":
            return image.resize((side, side), Image.Resampling.BICUBIC)
        square = Image.new("RGB", (side, side), self.pad_colour)
        square.paste(image, ((side - image.width) // 2, (side - image.height) // 2))
        return square

    def read(self, picture: Any) -> Image.Image:
        """Return a picture, of the kinds of `to_image`, as RGB as it is to be seen; raises UserError."""
        return self(to_image(picture) if self.bands is None else self.bands.read(picture))

    def task(self, task: Task) -> Task:
        """Return a task whose images are all seen in this way.

        Raises:
            DataError: Bands are to be chosen of images that are no files.
        """
        if self.resize == "crop" and self.bands is None:
            return task
        pool = None if task.pool is None else self.split(task.pool)
        tests = {name: self.split(test) for name, test in task.tests.items()}
        return replace(
            task, support=self.split(task.support), validation=self.split(task.validation), tests=tests, pool=pool
        )

    def split(self, split: Split) -> Split:
        """Return a split whose images are seen in this way; none is loaded."""
        return replace(split, images=self._images(split.images))

    def _images(self, images: Sequence[Image.Image]) -> LazyImages[Any]:
        lazy: LazyImages[Any] = (
            images if isinstance(images, LazyImages) else LazyImages(range(len(images)), images.__getitem__)
        )
        content = None if lazy.content is None else FramedContent(lazy.content, repr(self).encode())
        if self.bands is None or not len(lazy):
            return replace(lazy, load=FramedLoad(lazy.load, self), content=content)
        if lazy.load is not open_image:
            raise DataError("task.bands and task.value_range are for image files, in folders or listed in tables")
        return replace(lazy, load=FramedLoad(self.bands.open, self), verify=self.bands.verify, content=content)


CROPPED = Framing()
"""The backbone's own centre crop."""


@dataclass(frozen=True)
class FramedLoad:
    """Loader of an item's image that frames it."""

    load: Callable[[Any], Image.Image]
    framing: Framing

    def __call__(self, item: Any) -> Image.Image:
        """Load an item's image as it is to be seen."""
        return self.framing(self.load(item))


@dataclass(frozen=True)
class FramedContent:
    """Bytes that identify an item's image as it is to be seen."""

    content: Callable[[Any], bytes]
    recipe: bytes

    def __call__(self, item: Any) -> bytes:
        """Return the item's bytes and the way in which it is seen."""
        return self.content(item) + self.recipe


def crop_note(split: Split) -> str | None:
    """Return a note if the centre crop of most images leaves out over half of them; reads some of the images."""
    some = [split.images[index] for index in range(0, len(split), max(1, len(split) // LOOKED_AT))]
    cut = [image for image in some if 1 - min(image.size) / max(image.size) > LOST]
    if 2 * len(cut) <= len(some):
        return None
    return (
        f"the centre crop leaves out over half of {len(cut)} of {len(some)} images looked at, which are long and thin: "
        "task.resize=pad or task.resize=squash shows all of each"
    )
