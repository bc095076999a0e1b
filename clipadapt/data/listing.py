"""Files and folders below a folder: images in natural order, and what is left out, counted."""

import os
import re
import unicodedata
from collections import Counter
from pathlib import Path
from typing import NoReturn

from clipadapt.data.formats import PLUGINS, image_suffixes
from clipadapt.errors import join_names
from clipadapt.notices import notice

OF_THE_SYSTEM = frozenset({".ds_store", "thumbs.db", "desktop.ini", ".directory", ".localized"})
"""Files that systems put into folders, in lower case; they aren't counted as left out."""

HIDDEN = "hidden"
SHOWN_KINDS = 8

LeftOut = Counter[str]
"""Numbers of files left out, by the end of their names or `HIDDEN`; hidden folders by their names and a slash."""


def one_form(name: str) -> str:
    """Return a name in Unicode's composed form (NFC): systems write é as one character or as two."""
    return unicodedata.normalize("NFC", name)


def natural_order(name: str) -> tuple[list[str | int], str]:
    """Return a sort key that compares numbers by value: image2 before image10."""
    parts = re.split(r"(\d+)", name.casefold())
    return [int(part) if part.isdecimal() else part for part in parts], name


def is_hidden(name: str) -> bool:
    """Return whether a file or folder is hidden (.cache, .DS_Store) or the __MACOSX folder of an archive."""
    return name.startswith(".") or name == "__MACOSX"


def extension(name: str) -> str:
    """Return a file name's extension in lower case, with its dot."""
    return os.path.splitext(name)[1].lower()


def folders_in(folder: Path) -> list[Path]:
    """Return the visible folders in a folder, in natural order."""
    with os.scandir(folder) as entries:
        found = [entry.name for entry in entries if not is_hidden(entry.name) and entry.is_dir()]
    return [Path(folder) / name for name in sorted(found, key=natural_order)]


def holds_image(folder: Path) -> bool:
    """Return whether there is a visible image file in a folder or its subfolders."""
    for _, below, names in os.walk(folder, followlinks=False, onerror=raise_error):
        below[:] = [name for name in below if not is_hidden(name)]
        if any(why_left_out(name) is None for name in names):
            return True
    return False


def images_in(folder: str | Path, left_out: LeftOut | None = None) -> list[str]:
    """Return the image files in a folder and its subfolders, in natural order, without hidden and other files.

    Symbolic links are followed; a folder reached twice is read once.

    Args:
        folder: The folder.
        left_out: Counts the files and folders that are left out.
    """
    found: list[str] = []
    top, seen = os.path.join(folder, ""), set()
    for place, below, names in os.walk(top, followlinks=True, onerror=raise_error):
        here = os.stat(place)
        if (here.st_dev, here.st_ino) in seen:
            below.clear()
            continue
        seen.add((here.st_dev, here.st_ino))
        if left_out is not None:
            left_out.update(f"{name}/" for name in below if is_hidden(name))
            left_out.update(filter(None, map(why_left_out, names)))
        below[:] = [name for name in below if not is_hidden(name)]
        found += [os.path.join(place, name)[len(top) :] for name in names if why_left_out(name) is None]
    return [top + name for name in sorted(found, key=natural_order)]


def why_left_out(name: str) -> str | None:
    """Return what a file is counted as if it isn't read: the end of its name or `HIDDEN`.

    None is for an image, an empty text for a file of the system's, which isn't counted.
    """
    if name.lower() in OF_THE_SYSTEM:
        return ""
    if is_hidden(name):
        return HIDDEN
    return None if extension(name) in image_suffixes() else extension(name) or "without an ending"


def describe_left_out(left_out: LeftOut) -> str:
    """Return which files were left out and how many, the commonest first, with the package that reads some of them."""
    kinds = [describe_kind(kind, count) for kind, count in left_out.most_common()]
    wanted = sorted({PLUGINS[kind] for kind in left_out if kind in PLUGINS})
    advice = f" (pip install {' '.join(wanted)}, and they are read)" if wanted else ""
    return join_names(kinds, SHOWN_KINDS) + advice


def describe_kind(kind: str, count: int) -> str:
    """Return a phrase for files of one kind, such as "3 .txt" or "2 hidden files"."""
    if kind.endswith("/"):
        return f"{'the folder' if count == 1 else f'{count:,} folders'} {kind[:-1]}"
    if kind == HIDDEN:
        return f"{count:,} hidden file{'s' if count > 1 else ''}"
    return f"{count:,} {kind}"


def say_left_out(place: str | Path, left_out: LeftOut) -> None:
    """Tell which files below a folder are no images that can be read, if there are any."""
    if left_out:
        notice(f"not read in '{place}': {describe_left_out(left_out)}", stacklevel=3)


def raise_error(error: OSError) -> NoReturn:
    """Raise an error of os.walk, which would ignore a folder that can't be read."""
    raise error
