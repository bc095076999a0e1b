"""Names of splits as people write them, and the folders of splits below the folder of a data set."""

import re
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path

from clipadapt.data.listing import folders_in, holds_image, images_in, one_form
from clipadapt.errors import DataError, join_names, nearest
from clipadapt.notices import notice

EITHER = "eval"
"""A split to evaluate on: the test split, or the validation split beside one."""

NAMES = {
    **dict.fromkeys(("train", "training", "trn"), "train"),
    **dict.fromkeys(("val", "valid", "validate", "validation", "dev", "devel", "development"), "val"),
    **dict.fromkeys(("test", "testing", "tst", "holdout", "heldout"), "test"),
    **dict.fromkeys(("eval", "evaluate", "evaluation"), EITHER),
}
"""Usual names of splits, in lower case."""

FILLERS = frozenset({"set", "split", "data", "dataset", "folder", "image", "images", "img", "imgs", "photo", "photos"})
"""Words beside the name of a split: train_images, Test Set."""

KEYS = {"train": "train", "val": "validation", "test": "test"}
"""The setting below `data` that names the folder of a split."""

MAX_SHOWN = 5
CHOICE = "say which is which with data.train=…, data.validation=… and data.test=…"


def split_kind(name: str) -> str | None:
    """Return which split a name stands for ("train", "val", "test" or `EITHER`); None for another name."""
    parts = [word for word in re.split(r"[\W\d_]+", one_form(name).casefold()) if word and word not in FILLERS]
    word = "".join(parts)
    return NAMES.get(word) or NAMES.get(word.removesuffix("set"))


def group_by_split(names: Iterable[str]) -> dict[str, list[str]]:
    """Return the names that stand for each split, without those that stand for none.

    A usual name goes before one with other words in it: beside train, train_old is no split.
    """
    found: dict[str, dict[bool, list[str]]] = {}
    for name in names:
        if (kind := split_kind(name)) is not None:
            found.setdefault(kind, {}).setdefault(one_form(name).casefold() in NAMES, []).append(name)
    groups = {kind: by_form.get(True) or by_form[False] for kind, by_form in found.items()}
    if EITHER in groups:
        part = "val" if "test" in groups and "val" not in groups else "test"
        groups[part] = [*groups.get(part, []), *groups.pop(EITHER)]
    return groups


def find_splits(root: Path, given: Mapping[str, str | None]) -> dict[str, Path]:
    """Return the train, val and test folders of a root, or nothing if the folders in it are classes.

    A folder with such a name counts as a class if other folders stand beside it and it has no subfolders. Folders that
    all hold folders of the same names are splits, too.

    Args:
        root: The folder.
        given: The folder of each split as the user named it; None for a usual name.

    Raises:
        DataError: It can't be told which folders are splits, two are of one split, or there is no train folder.
    """
    children = folders_in(root)
    if any(given.values()):
        return named_by_user(root, children, given)
    groups = group_by_split(child.name for child in children)
    usual = {name for names in groups.values() for name in names}
    named = [child for child in children if child.name in usual]
    others = [child for child in children if child not in named]
    if not named or (others and not any(folders_in(child) for child in named)):
        return alike_folders(root, children)
    found = {part: root / only_one(root, names) for part, names in groups.items()}
    check_others(root, found, others)
    return found


def named_by_user(root: Path, children: Collection[Path], given: Mapping[str, str | None]) -> dict[str, Path]:
    """Return the folders of splits that the user named, and those with usual names for the other splits."""
    names = [child.name for child in children]
    for name in filter(None, given.values()):
        if name not in names:
            raise DataError(f"'{root}' has no folder '{name}' for a split: {nearest(name, names)}")
    rest = [name for name in names if name not in given.values()]
    usual = {part: only_one(root, found) for part, found in group_by_split(rest).items() if not given.get(part)}
    return {part: root / name for part, name in (usual | {**given}).items() if name}


def only_one(root: Path, names: list[str]) -> str:
    """Return the only one of several folders that may be a split; raises DataError if there are two."""
    if len(names) > 1:
        raise DataError(f"'{root}' has two folders for one split: {names[0]} and {names[1]}; keep one, or {CHOICE}")
    return names[0]


def check_others(root: Path, found: Mapping[str, Path], others: Collection[Path]) -> None:
    """Check that folders beside those of splits aren't classes, and tell that they aren't read.

    Raises:
        DataError: They may be classes, or there is no train folder.
    """
    ignored = [child for child in others if holds_image(child)]
    names = join_names([child.name for child in ignored], MAX_SHOWN)
    part, first = next(iter(found.items()))
    if ignored and not are_alike([*found.values()]) and not are_alike([first, *ignored]):
        raise DataError(
            f"'{root}' has the folder {first.name} with folders in it, and beside it {names}: if {first.name} is a "
            f"split, data.{KEYS[part]}={first.name} takes it for one; if all are classes, data.splits=false"
        )
    if "train" not in found and (ignored or "test" not in found):
        only = f", only {names}" if ignored else ""
        raise DataError(f"'{root}' has the folder {first.name} but no train folder beside it{only}: {CHOICE}")
    if ignored:
        notice(f"'{root}' has the folder {first.name}, so its {names} is not read", stacklevel=5)


def inner_names(folder: Path) -> frozenset[str]:
    """Return the names of the folders in a folder that hold images."""
    return frozenset(one_form(child.name) for child in folders_in(folder) if holds_image(child))


def are_alike(folders: Collection[Path]) -> bool:
    """Return whether there are several folders, and they share more than half of the folders that any has."""
    names = [inner_names(folder) for folder in folders]
    every = frozenset().union(*names)
    return len(names) > 1 and 2 * len(every.intersection(*names)) > len(every)


def alike_folders(root: Path, children: Collection[Path]) -> dict[str, Path]:
    """Return folders without usual names as splits if all hold folders of the same names; nothing if they don't.

    Of two folders, the one with more images is the train folder.

    Raises:
        DataError: There are more than two, or they have as many images.
    """
    shared = shared_names(children)
    if len(children) < 2 or len(shared) < 2 or by_class(shared):
        return {}
    ordered = sorted(children, key=lambda child: -len(images_in(child)))
    shown, inner = (join_names(sorted(some), MAX_SHOWN) for some in ([child.name for child in children], shared))
    classes = f"if {shown} are classes, data.splits=false"
    if len(ordered) > 2 or len(images_in(ordered[0])) == len(images_in(ordered[1])):
        raise DataError(
            f"every folder of '{root}' holds the folders {inner}: if {shown} are splits, {CHOICE}; {classes}"
        )
    train, test = ordered
    notice(
        f"every folder of '{root}' holds the folders {inner}, so they are the classes, {train.name} (with more images) "
        f"is for training and {test.name} for testing: {CHOICE}; {classes}",
        stacklevel=5,
    )
    return {"train": train, "test": test}


def shared_names(folders: Collection[Path]) -> frozenset[str]:
    """Return the names of the folders in each of several folders if all hold the same ones; else none."""
    first: frozenset[str] | None = None
    for folder in folders:
        names = inner_names(folder)
        if not names or names != (first or names):
            return frozenset()
        first = names
    return first or frozenset()


def by_class(inner: Collection[str]) -> bool:
    """Return whether the names of folders in class folders are those of splits: cat/train, cat/test."""
    groups = group_by_split(inner)
    return len(inner) > 1 and "train" in groups and sum(map(len, groups.values())) == len(inner)


def splits_by_class(root: Path) -> list[str]:
    """Return the names of the split folders that lie in each class folder of a root; an empty list if they don't."""
    children = folders_in(root)
    inner = shared_names(children)
    return sorted(inner) if by_class(inner) and not any(split_kind(child.name) for child in children) else []
