"""Image folders: one folder per class, with or without train, val and test folders around them."""

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, NoReturn

from clipadapt.data.images import LazyImages, file_bytes, open_image, verify_image
from clipadapt.data.tasks import UNLABELLED, Split
from clipadapt.errors import DataError, nearest
from clipadapt.files import IMAGE_SUFFIXES
from clipadapt.notices import notice
from clipadapt.paths import shorten, why_unusable

SPLIT_NAMES = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}


class ImageFolder(NamedTuple):
    """The contents of an image folder; the splits are "train", and "val" and "test" if it has such folders."""

    class_names: list[str]
    splits: dict[str, Split]


def extensions() -> list[str]:
    """Return the extensions of image files, without their dots."""
    return sorted(extension[1:] for extension in IMAGE_SUFFIXES)


def natural_order(name: str) -> tuple[list[str | int], str]:
    """Return a sort key that compares numbers by value: image2 before image10."""
    parts = re.split(r"(\d+)", name.casefold())
    return [int(part) if part.isdecimal() else part for part in parts], name


def is_hidden(name: str) -> bool:
    """Return whether a file or folder is hidden (.cache, .DS_Store) or the __MACOSX folder of an archive."""
    return name.startswith(".") or name == "__MACOSX"


def folders_in(folder: Path) -> list[Path]:
    """Return the visible folders in a folder, in natural order."""
    found = [path for path in folder.iterdir() if path.is_dir() and not is_hidden(path.name)]
    return sorted(found, key=lambda path: natural_order(path.name))


def images_in(folder: Path) -> list[str]:
    """Return the image files in a folder and its subfolders, in natural order, without hidden and other files.

    Symbolic links are followed; a folder reached twice is read once.
    """
    found = []
    top, seen = os.path.join(folder, ""), set()
    for place, below, names in os.walk(top, followlinks=True, onerror=raise_error):
        here = os.stat(place)
        if (here.st_dev, here.st_ino) in seen:
            below.clear()
            continue
        seen.add((here.st_dev, here.st_ino))
        below[:] = [name for name in below if not is_hidden(name)]
        images = [name for name in names if not is_hidden(name) and extension(name) in IMAGE_SUFFIXES]
        found += [os.path.join(place, name)[len(top) :] for name in images]
    return [top + name for name in sorted(found, key=natural_order)]


def raise_error(error: OSError) -> NoReturn:
    """Raise an error of os.walk, which would ignore a folder that can't be read."""
    raise error


def extension(name: str) -> str:
    """Return a file name's extension in lower case, with its dot."""
    return os.path.splitext(name)[1].lower()


def split_folders(root: Path) -> dict[str, Path]:
    """Return the train, val and test folders of a root, or nothing if the folders in it are classes.

    A folder with such a name counts as a class if other folders stand beside it and it has no subfolders.

    Raises:
        DataError: There is a val folder without a train or a test folder, a test folder beside other folders of
            images but no train folder, or two folders for one split.
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
    ignored = [child.name for child in others if images_in(child)]
    if "train" not in found and (ignored or "test" not in found):
        raise DataError(f"'{root}' has a {named[0].name} folder but no train folder beside it")
    if ignored:
        notice(f"'{root}' has a train folder, so its {', '.join(ignored)} is not read", stacklevel=4)
    return found


def class_folders(folder: Path) -> dict[str, list[str]]:
    """Return the image files of each class folder, in natural order.

    Raises:
        DataError: There is no class folder, or one without images; the message names it.
    """
    classes = {check_name(child): images_in(child) for child in folders_in(folder)}
    if not classes:
        held = "holds images but no class folders" if images_in(folder) else "is empty"
        raise DataError(f"the image folder '{folder}' {held}: put the images of each class in a folder of its name")
    bare = [name for name, files in classes.items() if not files]
    if bare:
        raise DataError(
            f"in '{folder}' these class folders have no images: {', '.join(bare)} (read are {', '.join(extensions())})"
        )
    return classes


def check_name(folder: Path) -> str:
    """Return a folder's name, which is a class name, after checking that it is UTF-8; raises DataError otherwise."""
    if why_unusable(folder.name):
        raise DataError(
            f"the folder '{shorten(folder.name)}' in '{folder.parent}' has a name that isn't UTF-8: rename it"
        )
    return folder.name


def lazy_images(files: Sequence[str]) -> LazyImages[str]:
    """Return image files as images that are loaded on access."""
    return LazyImages(files, open_image, verify_image, file_bytes)


def label_files(files: dict[str, list[str]], class_names: list[str]) -> Split:
    """Return the files of each class as a split."""
    numbers = {name: number for number, name in enumerate(class_names)}
    pairs = [(path, numbers[name]) for name, paths in files.items() for path in paths]
    return Split(lazy_images([path for path, _ in pairs]), [label for _, label in pairs])


def read_split(folder: Path, class_names: list[str], first: str = "the train folder") -> Split:
    """Return a validation or test folder as a split; raises DataError for classes that `first` lacks."""
    files = class_folders(folder)
    unknown = [name for name in files if name not in class_names]
    if unknown:
        advice = f": {nearest(unknown[0], class_names)}" if len(unknown) == 1 else ""
        raise DataError(f"'{folder}' has classes that {first} lacks: {', '.join(unknown)}{advice}")
    return label_files(files, class_names)


def read_folder(root: Path, class_names: list[str] | None = None) -> ImageFolder:
    """Find the splits, classes and image files under a root, without opening any image.

    Args:
        root: The folder.
        class_names: The class names, if the images have no labels and the folders are not classes; else None.

    Raises:
        DataError: The root is missing, a file, empty, of one class, or can't be read; or one of its folders is
            not as described.
    """
    if not os.path.exists(root):
        raise DataError(f"there is no image folder '{root}'")
    if not os.path.isdir(root):
        raise DataError(f"'{root}' is a file: name the folder that the images are in")
    try:
        return read_splits(root) if class_names is None else read_unlabelled(root, class_names)
    except PermissionError as error:
        raise DataError(f"'{error.filename}' may not be read by this user") from error
    except OSError as error:
        raise DataError(f"'{error.filename}' can't be read: {error.strerror}") from error


def read_splits(root: Path) -> ImageFolder:
    """Read a folder that exists and has one folder per class, or split folders with one folder per class."""
    further = split_folders(root)
    if further and "train" not in further:
        return read_test_only(further)
    pool = further.pop("train", root)
    files = class_folders(pool)
    if len(files) < 2:
        raise DataError(f"the image folder '{pool}' has one class, {next(iter(files))}; a task needs at least two")
    names = list(files)
    splits = {split: read_split(folder, names) for split, folder in further.items()}
    return ImageFolder(names, {"train": label_files(files, names), **splits})


def read_test_only(folders: dict[str, Path]) -> ImageFolder:
    """Read split folders without a train folder: nothing to learn from, and the classes of the test folder."""
    names = list(class_folders(folders["test"]))
    splits = {split: read_split(folder, names, "the test folder") for split, folder in folders.items()}
    return ImageFolder(names, {"train": Split(lazy_images([]), []), **splits})


def read_unlabelled(root: Path, class_names: list[str]) -> ImageFolder:
    """Read a folder of images without labels, which may have a test folder with one folder per class."""
    test = next((child for child in folders_in(root) if SPLIT_NAMES.get(child.name.lower()) == "test"), None)
    tested = () if test is None else os.path.join(test, "")
    files = [path for path in images_in(root) if not path.startswith(tested)]
    if not files:
        raise DataError(f"'{root}' has no images to learn from (read are {', '.join(extensions())})")
    splits = {"train": Split(lazy_images(files), [UNLABELLED] * len(files))}
    if test is not None:
        splits["test"] = read_split(test, class_names, "data.class_names")
    return ImageFolder(class_names, splits)
