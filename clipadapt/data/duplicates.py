"""Equal images where they do harm: to learn from and to test on, or under two labels."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from itertools import chain
from typing import Any

from clipadapt.data.images import LazyImages, digest
from clipadapt.data.marks import find_marks
from clipadapt.data.tasks import Split
from clipadapt.errors import DataError, join_names

SHOWN_PAIRS = 3

ImageIndex = tuple[str, int]
"""An image: the name of its split, and its index."""


def find_equal(splits: Mapping[str, Split], class_names: Sequence[str]) -> list[str]:
    """Return sentences on image files of equal content in several splits, or under several labels.

    Only files whose marks are equal are read as a whole.

    Args:
        splits: The splits by name.
        class_names: The names of the classes.
    """
    marks: dict[str, list[ImageIndex]] = {}
    for name, split in splits.items():
        for index, mark in enumerate(find_marks(split.images)):
            if mark is not None:
                marks.setdefault(mark, []).append((name, index))
    confirmed = (confirm(splits, found) for found in marks.values() if len(found) > 1)
    return describe_groups(splits, class_names, [*chain.from_iterable(confirmed)], "equal")


def confirm(splits: Mapping[str, Split], places: Sequence[ImageIndex]) -> list[list[ImageIndex]]:
    """Return groups of images whose files are equal byte for byte, of at least two images each.

    Files that can't be read are left out: they are told when the images are checked.
    """
    groups: dict[bytes, list[ImageIndex]] = {}
    for name, index in places:
        images = splits[name].images
        if isinstance(images, LazyImages) and images.content is not None:
            with suppress(DataError):
                groups.setdefault(digest(images.content(images.items[index])), []).append((name, index))
    return [group for group in groups.values() if len(group) > 1 and can_be_read(splits[group[0][0]], group[0][1])]


def can_be_read(split: Split, index: int) -> bool:
    """Return whether an image can be decoded."""
    try:
        split.images[index]
    except DataError:
        return False
    return True


def describe_groups(
    splits: Mapping[str, Split], class_names: Sequence[str], groups: Sequence[Sequence[ImageIndex]], how: str
) -> list[str]:
    """Return sentences on groups of images that are alike: those in several splits, and those under several labels.

    Args:
        splits: The splits by name.
        class_names: The names of the classes.
        groups: Images that are alike.
        how: The word for it, "equal" or "nearly equal".
    """

    def label(place: ImageIndex) -> Any:
        return splits[place[0]].labels[place[1]]

    def word(place: ImageIndex) -> str:
        names = splits[place[0]].class_names or class_names
        return str(names[label(place)]) if isinstance(label(place), int) and label(place) >= 0 else "no label"

    shared = [group for group in groups if len({name for name, _ in group}) > 1]
    torn = [group for group in groups if len({str(label(place)) for place in group}) > 1]
    parts = list(dict.fromkeys(name for group in shared for name, _ in group))
    found = (
        [sentence(splits, shared, f"in several of {', '.join(parts)}", how, lambda place: place[0])] if shared else []
    )
    return found + ([sentence(splits, torn, "under several labels", how, word)] if torn else [])


def sentence(
    splits: Mapping[str, Split],
    groups: Sequence[Sequence[ImageIndex]],
    where: str,
    how: str,
    word: Callable[[ImageIndex], str],
) -> str:
    """Return a sentence on groups of images that are alike, with the first ones; `word` says what differs in them."""
    count = "1 group" if len(groups) == 1 else f"{len(groups):,} groups"
    pairs = [" = ".join(f"{describe_place(splits, place)} ({word(place)})" for place in group[:3]) for group in groups]
    return f"{count} of {how} images {where}: {join_names(pairs, SHOWN_PAIRS)}"


def describe_place(splits: Mapping[str, Split], place: ImageIndex) -> str:
    """Return the file of an image, or its number."""
    images = splits[place[0]].images
    return str(images.items[place[1]]) if isinstance(images, LazyImages) else f"image {place[1]}"
