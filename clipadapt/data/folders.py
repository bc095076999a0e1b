"""Image folders as people keep them: one folder a class, with or without train, val and test folders around them."""

import os
import re
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, NoReturn

from clipadapt.data.images import LazyImages, file_bytes, open_image, verify_image
from clipadapt.data.tasks import UNLABELLED, Split
from clipadapt.errors import DataError, nearest
from clipadapt.files import IMAGE_SUFFIXES

SPLIT_NAMES = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}


class ImageFolder(NamedTuple):
    """What an image folder holds: its splits are "train", and "val" and "test" where it has such folders."""

    class_names: list[str]
    splits: dict[str, Split]


def extensions() -> list[str]:
    """Extensions of the files that are read."""
    return sorted(extension[1:] for extension in IMAGE_SUFFIXES)


def natural_order(name: str) -> tuple[list[str | int], str]:
    """A key that sorts names as people count: image2 before image10."""
    parts = re.split(r"(\d+)", name.casefold())
    return [int(part) if part.isdecimal() else part for part in parts], name


def is_hidden(name: str) -> bool:
    """Whether a file or folder isn't the user's own: .cache, .DS_Store, and what macOS adds to an archive."""
    return name.startswith(".") or name == "__MACOSX"


def folders_in(folder: Path) -> list[Path]:
    """The folders in a folder that aren't hidden, in natural order."""
    found = [path for path in folder.iterdir() if path.is_dir() and not is_hidden(path.name)]
    return sorted(found, key=lambda path: natural_order(path.name))


def images_in(folder: Path) -> list[str]:
    """The image files in a folder and the folders below it, in natural order; hidden and other files are left out.

    A folder that links lead to again is read once.
    """
    found = []
    top, seen = os.path.join(folder, ""), set()
    for place, below, names in os.walk(top, followlinks=True, onerror=stop):
        here = os.stat(place)
        if (here.st_dev, here.st_ino) in seen:
            below.clear()
            continue
        seen.add((here.st_dev, here.st_ino))
        below[:] = [name for name in below if not is_hidden(name)]
        images = [name for name in names if not is_hidden(name) and extension(name) in IMAGE_SUFFIXES]
        found += [os.path.join(place, name)[len(top) :] for name in images]
    return [top + name for name in sorted(found, key=natural_order)]


def stop(error: OSError) -> NoReturn:
    """Raise what os.walk would pass over: a folder that can't be read."""
    raise error


def extension(name: str) -> str:
    """A file name's extension, with its dot, in small letters."""
    return os.path.splitext(name)[1].lower()


def split_folders(root: Path) -> dict[str, Path]:
    """The train, val and test folders of a root; empty where the root's folders are the classes themselves.

    A folder named so is a class when classes stand beside it and it has no folders of its own.

    Raises:
        DataError: For val or test folders without a train folder, or two folders for one split.
    """
    children = folders_in(root)
    named = [child for child in children if child.name.lower() in SPLIT_NAMES]
    others = [child for child in children if child not in named]
    if not named or (others and not any(folders_in(child) for child in named)):
        return {}
    found: dict[str, Path] = {}
    for child in named:
        split = SPLIT_NAMES[child.name.lower()]
        if split in found:
            raise DataError(f"'{root}' has two folders for one split: {found[split].name} and {child.name}; keep one")
        found[split] = child
    if "train" not in found:
        raise DataError(f"'{root}' has a {named[0].name} folder but no train folder beside it")
    ignored = [child.name for child in others if images_in(child)]
    if ignored:
        warnings.warn(f"'{root}' has a train folder, so its {', '.join(ignored)} is not read", stacklevel=4)
    return found


def class_folders(folder: Path) -> dict[str, list[str]]:
    """The image files of each class folder, in natural order.

    Raises:
        DataError: Where there is no class folder, or one has no images (it is named).
    """
    classes = {child.name: images_in(child) for child in folders_in(folder)}
    if not classes:
        held = "holds images but no class folders" if images_in(folder) else "is empty"
        raise DataError(f"the image folder '{folder}' {held}: put the images of each class in a folder of its name")
    bare = [name for name, files in classes.items() if not files]
    if bare:
        raise DataError(
            f"in '{folder}' these class folders have no images: {', '.join(bare)} (read are {', '.join(extensions())})"
        )
    return classes


def pictures(files: Sequence[str]) -> LazyImages[str]:
    """Image files, loaded when asked for."""
    return LazyImages(files, open_image, verify_image, file_bytes)


def labelled(files: dict[str, list[str]], class_names: list[str]) -> Split:
    """The files of each class as a split."""
    numbers = {name: number for number, name in enumerate(class_names)}
    pairs = [(path, numbers[name]) for name, paths in files.items() for path in paths]
    return Split(pictures([path for path, _ in pairs]), [label for _, label in pairs])


def further_split(folder: Path, class_names: list[str], first: str = "the train folder") -> Split:
    """A validation or test folder as a split; raises DataError when it has classes that the `first` lacks."""
    files = class_folders(folder)
    unknown = [name for name in files if name not in class_names]
    if unknown:
        advice = f": {nearest(unknown[0], class_names)}" if len(unknown) == 1 else ""
        raise DataError(f"'{folder}' has classes that {first} lacks: {', '.join(unknown)}{advice}")
    return labelled(files, class_names)


def read_folder(root: Path, class_names: list[str] | None = None) -> ImageFolder:
    """Find the splits, classes and image files under a root, without opening any image.

    Args:
        root: The folder.
        class_names: Of images without labels, in folders that mean nothing; None where each folder is a class.

    Raises:
        DataError: For a root that is missing, a file, empty, of one class or not to be read, and whatever its parts
            raise.
    """
    if not root.exists():
        raise DataError(f"there is no image folder '{root}'")
    if not root.is_dir():
        raise DataError(f"'{root}' is a file: name the folder that the images are in")
    try:
        return read_splits(root) if class_names is None else read_unlabelled(root, class_names)
    except PermissionError as error:
        raise DataError(f"'{error.filename}' may not be read by this user") from error
    except OSError as error:
        raise DataError(f"'{error.filename}' can't be read: {error.strerror}") from error


def read_splits(root: Path) -> ImageFolder:
    """read_folder's work on a folder that exists."""
    further = split_folders(root)
    pool = further.pop("train", root)
    files = class_folders(pool)
    if len(files) < 2:
        raise DataError(f"the image folder '{pool}' has one class, {next(iter(files))}; a task needs at least two")
    names = list(files)
    splits = {split: further_split(folder, names) for split, folder in further.items()}
    return ImageFolder(names, {"train": labelled(files, names), **splits})


def read_unlabelled(root: Path, class_names: list[str]) -> ImageFolder:
    """read_folder's work on a folder of images without labels, which may have a test folder with one folder a class."""
    test = next((child for child in folders_in(root) if SPLIT_NAMES.get(child.name.lower()) == "test"), None)
    tested = () if test is None else os.path.join(test, "")
    files = [path for path in images_in(root) if not path.startswith(tested)]
    if not files:
        raise DataError(f"'{root}' has no images to learn from (read are {', '.join(extensions())})")
    splits = {"train": Split(pictures(files), [UNLABELLED] * len(files))}
    if test is not None:
        splits["test"] = further_split(test, class_names, "data.class_names")
    return ImageFolder(class_names, splits)
