"""Data sets in directories prepared by CoOp's instructions, a layout that much code of the field shares.

The instructions: https://github.com/KaiyangZhou/CoOp/blob/main/DATASETS.md (Zhou et al., IJCV 2022, arXiv:2109.01134).
Images keep the order of CoOp's lists, so that a seed draws CoOp's few shots. Class names are CoOp's, too. ImageNet and
its variants are in clipadapt.data.imagenet.

In all functions `home` is the folder that holds the data sets, and other paths are relative to it.
"""

import os
from collections.abc import Callable
from itertools import chain
from pathlib import Path

from pydantic import BaseModel, Field, NonNegativeInt, ValidationError

from clipadapt.data.folders import lazy_images
from clipadapt.data.labels import check_class_count, warn_of_ambiguous_names
from clipadapt.data.tasks import Source, Split
from clipadapt.errors import DataError, nearest
from clipadapt.files import FilePath
from clipadapt.paths import LocalPath

INSTRUCTIONS = "https://github.com/KaiyangZhou/CoOp/blob/main/DATASETS.md"
AIRCRAFT_LISTS = ("images_variant_train.txt", "images_variant_val.txt", "images_variant_test.txt")

Item = tuple[str, NonNegativeInt, str]
"""An image's path below the image folder, its label and its class name."""


class Lists(BaseModel):
    """The contents of a split file: the images of each split."""

    train: list[Item] = Field(min_length=1)
    val: list[Item]
    test: list[Item] = Field(min_length=1)


def split_file(
    name: str, home: FilePath, images: LocalPath, split: LocalPath, class_names: list[str] | None, templates: list[str]
) -> Source:
    """Read a data set whose splits are listed in one of CoOp's files, split_zhou_*.json.

    Args:
        name: The data set's name.
        home: The folder that holds all data sets.
        images: The folder that the listed paths are relative to.
        split: The file: `{"train": [[path, label, class name], …], "val": […], "test": […]}`.
        class_names: Class names in the order of the labels; None for the file's.
        templates: Sentences with {} for the class name.

    Raises:
        DataError: A folder or file is missing, the file has another form, or the number of class names differs from
            the number of classes.
    """
    folder, file = find_path(home, images, os.path.isdir), find_path(home, split, os.path.isfile)
    lists = read_lists(file)
    items = [lists.train, lists.val, lists.test]
    return make_source(
        name,
        folder,
        items,
        choose_class_names(name, read_class_names(lists, file), class_names),
        templates,
        class_names is None,
    )


def aircraft(
    name: str, home: FilePath, images: LocalPath, class_names: list[str] | None, templates: list[str]
) -> Source:
    """Read FGVC Aircraft (Maji et al., 2013, arXiv:1306.5151) by its own lists beside the image folder.

    The classes are those of variants.txt, the images those of images_variant_train.txt, -_val.txt and -_test.txt.

    Args:
        name: The data set's name.
        home: The folder that holds all data sets.
        images: The folder of the images; the lists are in the folder above.
        class_names: Class names in the order of variants.txt; None for the names there.
        templates: Sentences with {} for the class name.

    Raises:
        DataError: A folder or file is missing, a line has another form, or the number of class names differs from the
            number of classes.
    """
    folder, lists = find_path(home, images, os.path.isdir), Path(images).parent
    variants = read_lines(find_path(home, str(lists / "variants.txt"), os.path.isfile))
    labels = {variant: label for label, variant in enumerate(variants)}
    files = [find_path(home, str(lists / file), os.path.isfile) for file in AIRCRAFT_LISTS]
    items = [[parse_aircraft_line(line, labels, file) for line in read_lines(file)] for file in files]
    return make_source(
        name, folder, items, choose_class_names(name, variants, class_names), templates, class_names is None
    )


def make_source(
    name: str,
    folder: Path,
    items: list[list[Item]],
    class_names: list[str],
    templates: list[str],
    allow_duplicate_names: bool,
) -> Source:
    """Return a source of a training, a validation and a test list; an empty validation list counts as none."""
    train, validation, test = (
        Split(lazy_images([f"{folder}/{path}" for path, _, _ in some]), [label for _, label, _ in some])
        for some in items
    )
    return Source(
        name,
        class_names,
        templates,
        train,
        validation if len(validation) else None,
        {"test": test},
        allow_duplicate_names,
    )


def find_path(home: str, path: str, is_there: Callable[[Path], bool]) -> Path:
    """Return the path of a file or folder of a data set, after checking that it exists.

    Args:
        home: The folder that holds all data sets.
        path: The path relative to `home`.
        is_there: The check that it must pass: os.path.isdir or os.path.isfile.

    Raises:
        DataError: The path, the data set's own folder or `home` is missing; the message says which.
    """
    root = home_folder(home)
    for part, there in ((Path(*Path(path).parts[:1]), os.path.isdir), (Path(path), is_there)):
        if not there(root / part):
            raise DataError(f"'{root}' has no {part.as_posix()}: {INSTRUCTIONS} says how it is prepared")
    return root / path


def home_folder(home: str) -> Path:
    """Return the folder that holds all data sets, after checking that it exists.

    Raises:
        DataError: The folder is missing.
    """
    root = Path(home).expanduser()
    if not home or not os.path.isdir(root):
        raise DataError(
            f"there is no folder of data sets '{home}': name yours by the variable CLIPADAPT_DATA, or as data.home=…"
        )
    return root


def read_lines(file: Path) -> list[str]:
    """Return the non-empty lines of a text file, stripped of spaces.

    Raises:
        DataError: The file can't be read.
    """
    try:
        found = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"'{file}' can't be read: {error}") from error
    return [line.strip() for line in found if line.strip()]


def read_lists(file: Path) -> Lists:
    """Read and validate a split file.

    Raises:
        DataError: The file can't be read or has another form; the message says where.
    """
    try:
        return Lists.model_validate_json(file.read_bytes())
    except OSError as error:
        raise DataError(f"'{file}' can't be read: {error}") from error
    except ValidationError as error:
        first = error.errors()[0]
        place = "".join(f"[{part!r}]" for part in first["loc"])
        raise DataError(
            f"'{file}' is no split file, {{'train': [[path, label, class name], …], 'val': …, 'test': …}}: "
            f"{place}{': ' if place else ''}{first['msg']}"
        ) from None


def read_class_names(lists: Lists, file: Path) -> list[str]:
    """Return the class names of a split file, in the order of their labels.

    Raises:
        DataError: A label has two names, or a label is left out.
    """
    names: dict[int, str] = {}
    for _, label, name in chain(lists.train, lists.val, lists.test):
        if names.setdefault(label, name) != name:
            raise DataError(f"'{file}' has two names for label {label}: '{names[label]}' and '{name}'")
    if max(names) >= len(names):
        raise DataError(f"'{file}' has labels up to {max(names)}, but only {len(names)} of them: count them from 0")
    return [names[label] for label in range(len(names))]


def choose_class_names(name: str, own: list[str], given: list[str] | None) -> list[str]:
    """Return the given class names, or else the data set's own; warn of names that CLIP can't distinguish.

    Raises:
        DataError: The number of names differs from the number of classes.
    """
    check_class_count(name, given, len(own))
    names = own if given is None else given
    warn_of_ambiguous_names(name, names)
    return names


def parse_aircraft_line(line: str, labels: dict[str, int], file: Path) -> Item:
    """Return the item of a line of FGVC Aircraft's lists, "0034309 737-300".

    Raises:
        DataError: The variant isn't in variants.txt.
    """
    number, _, variant = line.partition(" ")
    if variant not in labels:
        raise DataError(f"'{file}' has '{line}', and variants.txt no '{variant}': {nearest(variant, labels)}")
    return f"{number}.jpg", labels[variant], variant
