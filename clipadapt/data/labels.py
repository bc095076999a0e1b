"""Labels as data sets write them, words or numbers, the classes they stand for, and sources made of both."""

import warnings
from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import combinations

from clipadapt.data.folders import natural_order
from clipadapt.data.tasks import Source, Split
from clipadapt.errors import DataError, listed, nearest

SHOWN_LABELS = 5


class DataWarning(UserWarning):
    """What is wrong with a data set that a run goes on with, and that `clipadapt data verify` counts as a fault."""


def words(name: str) -> str:
    """A class name as one says it: without the underscores that stand for spaces."""
    return " ".join(name.replace("_", " ").split())


def numbered(
    labels: Mapping[str, Sequence[str | int]], class_names: list[str] | None, place: str
) -> tuple[list[str], dict[str, list[int]]]:
    """The classes, and the labels of each split as their numbers.

    Words are names of classes: of `class_names`, or where none are given of those in "train", in natural order.
    Numbers count from 0 along `class_names`.

    Args:
        labels: Of the images of each split; one of the splits is called "train".
        class_names: Names of the classes; None where the labels are the names.
        place: Where the labels stand, for what is said of them.

    Raises:
        DataError: For numbers without class names, or labels that no class name belongs to.
    """
    written = {split: [str(label) for label in found] for split, found in labels.items()}
    every = {label for found in written.values() for label in found}
    in_numbers = bool(every) and all(label.isdecimal() for label in every)
    if class_names is None and in_numbers:
        raise DataError(
            f"the labels of '{place}' are numbers: say what they stand for, in their order, with "
            "'data.class_names=[cat,dog]'"
        )
    source = "its training images lack" if class_names is None else "data.class_names lacks"
    names = sorted({*written["train"]}, key=natural_order) if class_names is None else class_names
    numbers = {name: number for number, name in enumerate(names)}
    if in_numbers and not every <= numbers.keys():
        numbers = {str(number): number for number in range(len(names))}
    unknown = sorted(every.difference(numbers), key=natural_order)
    if unknown:
        shown, advice = listed(unknown, SHOWN_LABELS), nearest(unknown[0], numbers)
        raise DataError(f"'{place}' has labels that {source}: {shown}: {advice}")
    return names, {split: [numbers[label] for label in found] for split, found in written.items()}


def check_other_number(name: str, class_names: Sequence[str] | None, count: int) -> None:
    """Raise DataError for class names, where some are given, of another number than a data set's classes."""
    if class_names is not None and len(class_names) != count:
        given = len(class_names)
        raise DataError(
            f"data.class_names has {given} names, and '{name}' {count} classes: give each one, in their order"
        )


def check_shared(parts: Mapping[str, Collection[str]], what: str, place: str) -> None:
    """Raise DataError where two splits have something in common: what is tested on would have been learned from.

    Args:
        parts: What each split is made of.
        what: The word for one of these.
        place: Where they are from.
    """
    for one, other in combinations(parts, 2):
        shared = {*parts[one]}.intersection(parts[other])
        if shared:
            raise DataError(
                f"the {what} '{min(shared)}' of '{place}' is taken for {one} and for {other}: give each its own"
            )


def ambiguous_names(class_names: Sequence[str]) -> Iterator[str]:
    """A sentence on each group of classes whose different names are the same words to a text tower."""
    groups: dict[str, list[str]] = {}
    for name in dict.fromkeys(class_names):
        groups.setdefault(" ".join(name.replace("_", " ").casefold().split()), []).append(name)
    for names in groups.values():
        if len(names) > 1:
            yield f"the classes {', '.join(map(repr, names))} are the same words to CLIP: name them apart or join them"


def warn_of_ambiguous_names(name: str, class_names: Sequence[str]) -> None:
    """Warn of a data set's classes that CLIP doesn't tell apart."""
    for text in ambiguous_names(class_names):
        warnings.warn(f"{name}: {text}", DataWarning, stacklevel=3)


def to_source(
    name: str,
    class_names: list[str],
    templates: list[str] | None,
    splits: Mapping[str, Split],
    usual: str = "a photo of a {}.",
) -> Source:
    """A source of the splits "train", "val" and "test", of which it may lack the last two."""
    warn_of_ambiguous_names(name, class_names)
    return Source(
        name=name,
        class_names=class_names,
        templates=[usual] if templates is None else templates,
        train=splits["train"],
        validation=splits.get("val"),
        tests={"test": splits["test"]} if "test" in splits else {},
    )
