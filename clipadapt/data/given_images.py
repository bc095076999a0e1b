"""Images that a user names by a file, a folder or a pattern."""

import glob
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from clipadapt.data.broken import SHOWN, broken_message, describe_doubts, inspect
from clipadapt.data.folders import lazy_images
from clipadapt.data.formats import describe_suffixes
from clipadapt.data.listing import LeftOut, images_in, natural_order, say_left_out, why_left_out
from clipadapt.errors import DataError, UserError, join_names
from clipadapt.notices import notice
from clipadapt.paths import checked_path, irregular

Answers = TypeVar("Answers")


def find_images(given: str) -> list[str]:
    """Return the paths of the image files of a file, a folder (with its subfolders) or a pattern, in natural order.

    A file is taken whatever its name. Of a folder or pattern, files that aren't images are counted and told.

    Raises:
        UserError: There are no image files.
    """
    place, left_out = checked_path(given, "images"), LeftOut()
    if os.path.isfile(place):
        return [str(place)]
    if (kind := irregular(place)) not in (None, "a folder"):
        raise UserError(f"images={given} is {kind}, and images are read from files")
    found = images_in(place, left_out) if os.path.isdir(place) else match(place, left_out)
    if not found:
        raise UserError(
            f"there are no images at {given} (a file, a folder or a pattern; read are {describe_suffixes()})"
        )
    say_left_out(given, left_out)
    return found


def match(pattern: Path, left_out: LeftOut) -> list[str]:
    """Return the image files that match a pattern, in natural order; counts the other files that match.

    Brackets that match nothing stand for themselves: 'my [2023]*/*.png' has the images in 'my [2023] photos'.
    """
    text = as_pattern(pattern)
    matching = glob.glob(text, recursive=True) or glob.glob(text.replace("[", "[[]"), recursive=True)
    files = [path for path in matching if not os.path.isdir(path)]
    reasons = {path: why_left_out(os.path.basename(path)) for path in files}
    left_out.update(filter(None, reasons.values()))
    return sorted((path for path, reason in reasons.items() if reason is None), key=natural_order)


def as_pattern(path: Path) -> str:
    """Return a path as a pattern in which names that exist, such as 'photos [2023]', stand for themselves."""
    known = Path()
    parts = list(path.parts)
    while parts and os.path.lexists(known / parts[0]):
        known /= parts.pop(0)
    return os.path.join(glob.escape(str(known)), *parts) if str(known) != "." else os.path.join(*parts)


def find_errors(paths: Sequence[str], decode: bool) -> dict[str, str]:
    """Return a message for each image file that can't be read, by its path, and warn of those with nothing to see.

    Args:
        paths: The files.
        decode: Whether to decode each; otherwise only headers and last bytes are checked.

    Raises:
        DataError: None of several files can be read, or the only one can't.
    """
    images = lazy_images(paths)
    found = inspect(images, decode)
    if len(found.broken) == len(paths):
        raise DataError(broken_message([*found.broken.values()], "there is nothing to predict", ""))
    for text in describe_doubts(images, found.doubtful):
        notice(text)
    return {paths[index]: text for index, text in found.broken.items()}


def answer_readable(
    paths: Sequence[str], answer: Callable[[Sequence[str]], Answers], start: Callable[[int], object]
) -> tuple[Answers, dict[str, str]]:
    """Return the answers to the images that can be read, in their order, and a message for each other one by its path.

    Headers and last bytes are checked first. All images are decoded only if one turns out to be broken inside.

    Args:
        paths: The image files.
        answer: Answers images, and raises DataError if one can't be read.
        start: Called with the number of images before they are answered, again if they are for a second time.

    Raises:
        DataError: No image can be read.
    """
    errors = find_errors(paths, decode=False)
    start(len(paths) - len(errors))
    try:
        return answer([path for path in paths if path not in errors]), errors
    except DataError:
        errors = find_errors(paths, decode=True)
        start(len(paths) - len(errors))
        return answer([path for path in paths if path not in errors]), errors


def tell_left_out(errors: Mapping[str, str], count: int) -> None:
    """Warn of the broken ones of `count` images, which are left out."""
    if errors:
        shown = join_names([*errors.values()], SHOWN)
        are = "is" if len(errors) == 1 else "are"
        notice(f"{len(errors):,} of {count:,} images {are} broken, and left out: {shown}")
