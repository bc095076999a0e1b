"""Labels as data sets store them, words or numbers, and the classes they stand for."""

import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import combinations
from types import MappingProxyType

from clipadapt.data.class_words import check_distinct, other_words
from clipadapt.data.listing import natural_order, one_form
from clipadapt.data.tasks import Source, Split
from clipadapt.errors import DataError, join_names, nearest
from clipadapt.notices import notice

SHOWN_LABELS = 5
NUMBER = re.compile(r"[+-]?\d+(\.\d*)?(e[+-]?\d+)?", re.ASCII | re.IGNORECASE)
"""A number as text; 1.0 is how tables with empty cells write 1, and 1.0e+00 how NumPy does."""

ALTERNATIVES, SUMS, NUMBERS = re.compile("[;|,]"), re.compile("[/+&]"), re.compile(r"\s+")
"""Separators of several classes in one label: cat;dog, cat/dog, and 0 1 where classes are numbers."""

TEXT_LIST = re.compile(r"[\[(]\s*(['\"]).*\1\s*,?\s*[\])]")
"""A list of texts written as text, such as ['cat']."""


class DataWarning(UserWarning):
    """A warning about a data set's fault that doesn't stop a run; `clipadapt data verify` counts it as a problem."""


def to_words(name: str) -> str:
    """Replace the underscores of a class name with spaces."""
    return " ".join(name.replace("_", " ").split())


def encode_labels(
    labels: Mapping[str, Sequence[str | int]], class_names: list[str] | None, place: str
) -> tuple[list[str], dict[str, list[int]]]:
    """Return the class names, and the labels of each split as class numbers.

    Labels that are words are class names: those of `class_names` or, if it is None, those in "train" in natural order
    (in "test" if "train" is empty).
    Labels that are numbers count from 0 along `class_names`.

    Args:
        labels: The labels of each split; one of the splits is called "train".
        class_names: The class names; None if the labels are the names.
        place: Where the labels come from, for messages.

    Raises:
        DataError: The labels are numbers and there are no class names, or some labels have no class name.
    """
    written = {split: [one_form(str(label)) for label in found] for split, found in labels.items()}
    class_names = None if class_names is None else [one_form(name) for name in class_names]
    every = {label for found in written.values() for label in found}
    check_single(every.difference(class_names or ()), place)
    in_numbers = bool(every) and all(map(is_whole, every))
    if in_numbers and not every <= {*(class_names or ())}:
        written = {split: [str(int(float(label))) for label in found] for split, found in written.items()}
        every = {label for found in written.values() for label in found}
    if class_names is None and in_numbers:
        raise DataError(
            f"the labels of '{place}' are numbers: say what they stand for, in their order, with "
            "'data.class_names=[cat,dog]'"
        )
    source = "its training images lack" if class_names is None else "data.class_names lacks"
    names = (
        sorted({*(written["train"] or written.get("test", []))}, key=natural_order)
        if class_names is None
        else class_names
    )
    numbers = {name: number for number, name in enumerate(names)}
    if in_numbers and not every <= numbers.keys():
        numbers = {str(number): number for number in range(len(names))}
    unknown = sorted(every.difference(numbers), key=natural_order)
    if unknown:
        shown, advice = join_names(unknown, SHOWN_LABELS), nearest(unknown[0], numbers)
        raise DataError(f"'{place}' has labels that {source}: {shown}: {advice}")
    return names, {split: [numbers[label] for label in found] for split, found in written.items()}


def is_whole(label: str) -> bool:
    """Return whether a label is a whole number."""
    return NUMBER.fullmatch(label) is not None and float(label).is_integer()


def check_single(labels: Collection[str], place: str) -> None:
    """Check that each label is one class.

    Several are half of those such as cat;dog that share a class with others, those such as cat/dog whose parts are
    other labels, and lists.

    Raises:
        DataError: The labels name several classes.
    """
    parts = {label: split_label(label, ALTERNATIVES) for label in labels}
    counts = Counter(part for own in parts.values() for part in own)
    several = sorted(label for label, own in parts.items() if len(own) > 1)
    shared = [label for label in several if any(counts[part] > 1 for part in parts[label])]
    shared = shared if 2 * len(shared) > len(several) else []
    shared += sorted(label for label in labels if TEXT_LIST.fullmatch(label) or is_sum(label, labels))
    if shared:
        raise DataError(
            f"'{place}' has several classes in one label, such as {shared[0]!r}: tasks of several classes an image "
            "(multi-label) aren't a kind of task yet: give each image one class"
        )


def split_label(label: str, between: re.Pattern[str]) -> set[str]:
    """Return the parts of a label, without quotes and brackets."""
    return {part.strip(" '\"[]()") for part in between.split(label)} - {""}


def is_sum(label: str, labels: Collection[str]) -> bool:
    """Return whether all parts of a label are labels of their own: cat/dog beside cat and dog, 0 1 beside 0 and 1."""
    sums, numbers = split_label(label, SUMS), split_label(label, NUMBERS)
    found = sums if len(sums) > 1 else numbers if all(map(is_whole, numbers)) else set()
    return len(found) > 1 and found <= {*labels}


def check_class_count(name: str, class_names: Sequence[str] | None, count: int) -> None:
    """Check that there are as many class names as classes, if names are given; raises DataError."""
    if class_names is not None and len(class_names) != count:
        given = len(class_names)
        raise DataError(
            f"data.class_names has {given} names, and '{name}' {count} classes: give each one, in their order"
        )


def check_disjoint(parts: Mapping[str, Collection[str]], what: str, place: str) -> None:
    """Check that no two splits share an item; raises DataError, since a run would test on what it learned from.

    Args:
        parts: The items of each split.
        what: The word for an item.
        place: Where they come from, for messages.
    """
    for one, other in combinations(parts, 2):
        shared = {*parts[one]}.intersection(parts[other])
        if shared:
            raise DataError(
                f"the {what} '{min(shared)}' of '{place}' is taken for {one} and for {other}: give each its own"
            )


def ambiguous_names(class_names: Sequence[str]) -> Iterator[str]:
    """Yield a sentence for each group of class names that are the same words to CLIP's text tower."""
    groups: dict[str, list[str]] = {}
    for name in dict.fromkeys(class_names):
        groups.setdefault(" ".join(name.replace("_", " ").casefold().split()), []).append(name)
    for names in groups.values():
        if len(names) > 1:
            yield f"the classes {', '.join(map(repr, names))} are the same words to CLIP: name them apart or join them"


def warn_of_ambiguous_names(name: str, class_names: Sequence[str]) -> None:
    """Warn of class names that CLIP's tokenizer can't distinguish."""
    for text in ambiguous_names(class_names):
        notice(f"{name}: {text}", DataWarning, stacklevel=3)


def to_source(
    name: str,
    class_names: list[str],
    templates: list[str] | None,
    splits: Mapping[str, Split],
    usual: str = "a photo of a {}.",
    words: Mapping[str, Sequence[str]] = MappingProxyType({}),
) -> Source:
    """Return a source made of the splits "train", "val" and "test"; the last two may be missing.

    Raises:
        DataError: Two of the names for CLIP in `words`, or of the class names that they leave, are equal.
    """
    others = other_words(words)
    if others:
        check_distinct(class_names, others)
    warn_of_ambiguous_names(name, [text for label in class_names for text in others.get(label, [label])])
    return Source(
        name=name,
        class_names=class_names,
        templates=[usual] if templates is None else templates,
        train=splits["train"],
        validation=splits.get("val"),
        tests={"test": splits["test"]} if "test" in splits else {},
        words=others,
    )
