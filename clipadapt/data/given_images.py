"""Images that a user names by a file, a folder or a pattern."""

import glob
import os
from pathlib import Path

from clipadapt.data.formats import describe_suffixes
from clipadapt.data.listing import LeftOut, images_in, natural_order, say_left_out, why_left_out
from clipadapt.errors import UserError
from clipadapt.paths import checked_path, irregular


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
    """Return the image files that match a pattern, in natural order; counts the other files that match."""
    files = [path for path in glob.glob(as_pattern(pattern), recursive=True) if not os.path.isdir(path)]
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
