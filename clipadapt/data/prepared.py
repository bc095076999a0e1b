"""Data sets in directories prepared as CoOp's instructions say, the layout that the field's code shares.

The instructions: https://github.com/KaiyangZhou/CoOp/blob/main/DATASETS.md (Zhou et al., IJCV 2022, arXiv:2109.01134).
Images keep the order of CoOp's lists, so that a seed draws CoOp's few shots. Class names are CoOp's, too. ImageNet and
its variants are in clipadapt.data.imagenet.

In all of them `home` is the folder that holds the data sets, and what else is a path counts from there.
"""

from collections.abc import Callable
from itertools import chain
from pathlib import Path

from pydantic import BaseModel, Field, NonNegativeInt, ValidationError

from clipadapt.data.folders import pictures
from clipadapt.data.labels import check_other_number, warn_of_ambiguous_names
from clipadapt.data.tasks import Source, Split
from clipadapt.errors import DataError, nearest
from clipadapt.files import FilePath

INSTRUCTIONS = "https://github.com/KaiyangZhou/CoOp/blob/main/DATASETS.md"
AIRCRAFT_LISTS = ("images_variant_train.txt", "images_variant_val.txt", "images_variant_test.txt")

Item = tuple[str, NonNegativeInt, str]
"""An image's path below the image folder, its label and its class name."""


class Lists(BaseModel):
    """The form of a split file: the images of each split."""

    train: list[Item] = Field(min_length=1)
    val: list[Item]
    test: list[Item] = Field(min_length=1)


def split_file(
    name: str, home: FilePath, images: str, split: str, class_names: list[str] | None, templates: list[str]
) -> Source:
    """A data set whose splits are listed in a file of CoOp's, split_zhou_*.json.

    Args:
        name: What it is called.
        home: The folder that holds all data sets.
        images: The folder that the listed paths count from.
        split: The file: `{"train": [[path, label, class name], …], "val": […], "test": […]}`.
        class_names: In the order of the labels; None for the file's.
        templates: Sentences with {} for the class name.

    Raises:
        DataError: For a folder or file that is missing, a file of another form, or class names of another number.
    """
    folder, file = existing(home, images, Path.is_dir), existing(home, split, Path.is_file)
    lists = read_lists(file)
    items = [lists.train, lists.val, lists.test]
    return source(name, folder, items, named(name, names_in(lists, file), class_names), templates, class_names is None)


def aircraft(name: str, home: FilePath, images: str, class_names: list[str] | None, templates: list[str]) -> Source:
    """FGVC Aircraft (Maji et al., 2013, arXiv:1306.5151), by its own lists beside the image folder.

    The classes are those of variants.txt, the images those of images_variant_train.txt, -_val.txt and -_test.txt.

    Args:
        name: What it is called.
        home: The folder that holds all data sets.
        images: The folder of the images; the lists are in the folder above.
        class_names: In the order of variants.txt; None for those there.
        templates: Sentences with {} for the class name.

    Raises:
        DataError: For a folder or file that is missing, a line of another form, or class names of another number.
    """
    folder, lists = existing(home, images, Path.is_dir), Path(images).parent
    variants = lines(existing(home, str(lists / "variants.txt"), Path.is_file))
    labels = {variant: label for label, variant in enumerate(variants)}
    files = [existing(home, str(lists / file), Path.is_file) for file in AIRCRAFT_LISTS]
    items = [[aircraft_of(line, labels, file) for line in lines(file)] for file in files]
    return source(name, folder, items, named(name, variants, class_names), templates, class_names is None)


def source(
    name: str, folder: Path, items: list[list[Item]], class_names: list[str], templates: list[str], namesakes: bool
) -> Source:
    """A data set of a training, a validation and a test list; an empty validation list counts as none."""
    train, validation, test = (
        Split(pictures([f"{folder}/{path}" for path, _, _ in some]), [label for _, label, _ in some]) for some in items
    )
    return Source(
        name, class_names, templates, train, validation if len(validation) else None, {"test": test}, namesakes
    )


def existing(home: str, path: str, is_there: Callable[[Path], bool]) -> Path:
    """A file or folder of a data set.

    Args:
        home: The folder that holds all data sets.
        path: From there.
        is_there: What it must be: Path.is_dir or Path.is_file.

    Raises:
        DataError: Where it is missing, the data set's own folder, or the home; it says which.
    """
    root = home_folder(home)
    for part, there in ((Path(*Path(path).parts[:1]), Path.is_dir), (Path(path), is_there)):
        if not there(root / part):
            raise DataError(f"'{root}' has no {part.as_posix()}: {INSTRUCTIONS} says how it is prepared")
    return root / path


def home_folder(home: str) -> Path:
    """The folder that holds all data sets.

    Raises:
        DataError: Where it is missing.
    """
    root = Path(home).expanduser()
    if not home or not root.is_dir():
        raise DataError(
            f"there is no folder of data sets '{home}': name yours by the variable CLIPADAPT_DATA, or as data.home=…"
        )
    return root


def lines(file: Path) -> list[str]:
    """The lines of a text file that hold anything, without the spaces around them.

    Raises:
        DataError: For a file that can't be read.
    """
    try:
        found = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"'{file}' can't be read: {error}") from error
    return [line.strip() for line in found if line.strip()]


def read_lists(file: Path) -> Lists:
    """A split file.

    Raises:
        DataError: For a file that can't be read or has another form; it says where.
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


def names_in(lists: Lists, file: Path) -> list[str]:
    """The class names of a split file, in the order of their labels.

    Raises:
        DataError: For a label of two names, or one that is left out.
    """
    names: dict[int, str] = {}
    for _, label, name in chain(lists.train, lists.val, lists.test):
        if names.setdefault(label, name) != name:
            raise DataError(f"'{file}' has two names for label {label}: '{names[label]}' and '{name}'")
    if max(names) >= len(names):
        raise DataError(f"'{file}' has labels up to {max(names)}, but only {len(names)} of them: count them from 0")
    return [names[label] for label in range(len(names))]


def named(name: str, own: list[str], given: list[str] | None) -> list[str]:
    """The class names that were given for a data set, or else its own; it warns of those that CLIP doesn't tell apart.

    Raises:
        DataError: For names of another number than the classes.
    """
    check_other_number(name, given, len(own))
    names = own if given is None else given
    warn_of_ambiguous_names(name, names)
    return names


def aircraft_of(line: str, labels: dict[str, int], file: Path) -> Item:
    """What a line of FGVC Aircraft's lists, "0034309 737-300", says.

    Raises:
        DataError: For a variant that isn't known.
    """
    number, _, variant = line.partition(" ")
    if variant not in labels:
        raise DataError(f"'{file}' has '{line}', and variants.txt no '{variant}': {nearest(variant, labels)}")
    return f"{number}.jpg", labels[variant], variant
