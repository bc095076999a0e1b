"""Image folders: one folder per class, with or without train, val and test folders around them."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from clipadapt.data.formats import describe_suffixes
from clipadapt.data.images import LazyImages, file_bytes, open_image, verify_image
from clipadapt.data.listing import (
    LeftOut,
    describe_left_out,
    folders_in,
    images_in,
    is_hidden,
    one_form,
    say_left_out,
    why_left_out,
)
from clipadapt.data.splits import find_splits, group_by_split, split_kind, splits_by_class
from clipadapt.data.tasks import UNLABELLED, Split
from clipadapt.errors import DataError, join_names, nearest
from clipadapt.notices import notice
from clipadapt.paths import shorten, why_unusable

ClassFiles = dict[str, list[str]]
"""The image files of each class by its name."""


class ImageFolder(NamedTuple):
    """The contents of an image folder; the splits are "train", and "val" and "test" if it has such folders."""

    class_names: list[str]
    splits: dict[str, Split]


class Layout(NamedTuple):
    """Instructions to find the splits of a folder.

    `splits` is false if all folders in it are classes; `folders` are names of folders by their splits, None for a usual
    name.
    """

    splits: bool = True
    folders: Mapping[str, str | None] = MappingProxyType({})


USUAL = Layout()
BESIDE = "image files beside the class folders"
SHOWN_CLASSES = 10


def class_folders(folder: Path, left_out: LeftOut) -> ClassFiles:
    """Return the image files of each class folder, in natural order; counts what is left out.

    Folders whose names are the same text in two forms of Unicode are one class.

    Raises:
        DataError: There is no class folder, or one without images; the message names it.
    """
    classes: ClassFiles = {}
    for child in folders_in(folder):
        classes.setdefault(one_form(check_name(child)), []).extend(images_in(child, left_out))
    count_beside(folder, left_out)
    if not classes:
        held = "holds images but no class folders" if images_in(folder) else "is empty"
        raise DataError(f"the image folder '{folder}' {held}: put the images of each class in a folder of its name")
    bare = [name for name, files in classes.items() if not files]
    if bare:
        held = f"; not read are {describe_left_out(left_out)}" if left_out else ""
        shown, read = join_names(bare, SHOWN_CLASSES), describe_suffixes()
        raise DataError(f"in '{folder}' these class folders have no images: {shown} (read are {read}{held})")
    return classes


def count_beside(folder: Path, left_out: LeftOut) -> None:
    """Count the hidden folders and the images that lie beside class folders."""
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir():
                left_out.update([f"{entry.name}/"] if is_hidden(entry.name) else [])
            elif why_left_out(entry.name) is None:
                left_out[BESIDE] += 1


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


def read_split(folder: Path, class_names: list[str], left_out: LeftOut, first: str = "the train folder") -> Split:
    """Return a validation or test folder as a split; raises DataError for classes that `first` lacks."""
    return label_known(folder, class_folders(folder, left_out), class_names, first)


def label_known(folder: Path, files: ClassFiles, class_names: list[str], first: str) -> Split:
    """Return the files of each class as a split; raises DataError for classes of `folder` that `first` lacks."""
    unknown = [name for name in files if name not in class_names]
    if unknown:
        advice = f": {nearest(unknown[0], class_names)}" if len(unknown) == 1 else ""
        raise DataError(f"'{folder}' has classes that {first} lacks: {join_names(unknown, SHOWN_CLASSES)}{advice}")
    return label_files(files, class_names)


def read_folder(root: Path, class_names: list[str] | None = None, layout: Layout = USUAL) -> ImageFolder:
    """Find the splits, classes and image files under a root, without opening any image.

    Args:
        root: The folder.
        class_names: The class names, if the images have no labels and the folders are not classes; else None.
        layout: How to find the splits.

    Raises:
        DataError: The root is missing, a file, empty, of one class, or can't be read; or one of its folders is
            not as described.
    """
    if not os.path.exists(root):
        raise DataError(f"there is no image folder '{root}'")
    if not os.path.isdir(root):
        raise DataError(f"'{root}' is a file: name the folder that the images are in")
    left_out = LeftOut()
    try:
        if class_names is None:
            found = read_splits(root, layout, left_out)
        else:
            found = read_unlabelled(root, [*map(one_form, class_names)], left_out)
    except PermissionError as error:
        raise DataError(f"'{error.filename}' may not be read by this user") from error
    except OSError as error:
        raise DataError(f"'{error.filename}' can't be read: {error.strerror}") from error
    say_left_out(root, left_out)
    return found


def read_splits(root: Path, layout: Layout, left_out: LeftOut) -> ImageFolder:
    """Read a folder that exists and has one folder per class, or split folders with one folder per class."""
    further = find_splits(root, layout.folders) if layout.splits else {}
    if not further and layout.splits and (inner := splits_by_class(root)):
        return read_by_class(root, group_by_split(inner), left_out)
    if further and "train" not in further:
        return read_test_only(further, left_out)
    pool = further.pop("train", root)
    files = class_folders(pool, left_out)
    names = list(files)
    splits = {split: read_split(folder, names, left_out) for split, folder in further.items()}
    return ImageFolder(names, {"train": label_files(files, names), **splits})


def read_by_class(root: Path, inner: Mapping[str, Sequence[str]], left_out: LeftOut) -> ImageFolder:
    """Read class folders that hold split folders: cat/train, cat/test.

    Args:
        root: The folder of the class folders.
        inner: The names of each split's folders.
        left_out: Counts what is left out.
    """
    shown = ", ".join(name for names in inner.values() for name in names)
    notice(f"the class folders of '{root}' hold {shown}, which are taken for splits", stacklevel=4)
    places = {one_form(check_name(child)): child for child in folders_in(root)}
    splits = {}
    for part, folders in inner.items():
        files = {
            name: [path for split in folders for path in images_in(place / split, left_out)]
            for name, place in places.items()
        }
        splits[part] = label_files(files, [*places])
    return ImageFolder([*places], splits)


def read_test_only(folders: dict[str, Path], left_out: LeftOut) -> ImageFolder:
    """Read split folders without a train folder: nothing to learn from, and the classes of the test folder."""
    names = list(class_folders(folders["test"], LeftOut()))
    splits = {split: read_split(folder, names, left_out, "the test folder") for split, folder in folders.items()}
    return ImageFolder(names, {"train": Split(lazy_images([]), []), **splits})


def read_unlabelled(root: Path, class_names: list[str], left_out: LeftOut) -> ImageFolder:
    """Read a folder of images without labels, which may have a test folder with one folder per class."""
    test = next((child for child in folders_in(root) if split_kind(child.name) == "test"), None)
    tested = () if test is None else os.path.join(test, "")
    files = [path for path in images_in(root, left_out) if not path.startswith(tested)]
    if not files:
        raise DataError(f"'{root}' has no images to learn from (read are {describe_suffixes()})")
    splits = {"train": Split(lazy_images(files), [UNLABELLED] * len(files))}
    if test is not None:
        splits["test"] = read_split(test, class_names, LeftOut(), "data.class_names")
    return ImageFolder(class_names, splits)
