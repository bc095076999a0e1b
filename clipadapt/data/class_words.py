"""Names of classes for CLIP, where they are others than the labels of the data: one or several for a class."""

import numbers
from collections.abc import Collection, Iterable, Mapping, Sequence
from math import isfinite
from pathlib import Path
from typing import Any

from clipadapt.data.listing import one_form
from clipadapt.data.table_files import read_table
from clipadapt.errors import DataError, nearest
from clipadapt.paths import shorten, why_deceiving
from clipadapt.plain_yaml import read_plain_yaml

ClassWords = dict[str, str | list[str]]
"""One name, or several, for each class."""

CLASS, NAME = "class", "name"
"""Columns of a table of names."""


def read_words(given: str | Mapping[Any, Any]) -> dict[str, list[str]]:
    """Return the names for CLIP of each class.

    Args:
        given: One name or a list of names for each class; or a file of them: YAML, JSON, or a table with the columns
            `class` and `name`, one row for each name.

    Raises:
        DataError: The file can't be read, or a class has no name.
    """
    table = read_words_file(given) if isinstance(given, str) else given
    return {one_form(str(label)): as_names(str(label), names) for label, names in table.items()}


def split_class_names(
    given: str | Sequence[Any] | Mapping[Any, Any] | None,
) -> tuple[list[str] | None, dict[str, list[str]]]:
    """Return class names in order, or None if none are listed, and the names for CLIP of each class.

    In a list, a class is called by its first name.

    Args:
        given: A list of names, or of lists of names; or what `read_words` reads; None for no names.
    """
    if given is None:
        return None, {}
    if isinstance(given, str | Mapping):
        return None, read_words(given)
    names = [as_names("a class" if not isinstance(one, str) else one, one) for one in given]
    return [some[0] for some in names], {some[0]: some for some in names}


def as_names(label: str, names: Any) -> list[str]:
    """Return one name, or several, of a class as a list.

    Raises:
        DataError: There is none, or one isn't text.
    """
    listed = [*names] if isinstance(names, list | tuple) else [names]
    usable = all(isinstance(name, str | numbers.Real) and not isinstance(name, bool) for name in listed)
    usable = usable and all(isinstance(name, str) or isfinite(name) for name in listed)
    texts = [one_form(str(name)) for name in listed] if usable else []
    if not texts or not all(name.strip() for name in texts):
        raise DataError(
            f"'{shorten(label)}' has no name for CLIP in {shorten(repr(names))}: give text, or a list of texts, as in "
            f"{{{shorten(label)}: [mug, cup]}}"
        )
    check_shown(texts)
    return texts


def check_shown(names: Iterable[str]) -> None:
    """Check that names are shown as they are in terminals, tables and pages; raises DataError."""
    for name in names:
        if reason := why_deceiving(name):
            raise DataError(f"the class name '{shorten(name)}' can't be used: {reason}: write it without that")


def read_words_file(file: str) -> Mapping[Any, Any]:
    """Read the names of classes from YAML, JSON or a table; raises UserError if it can't be read."""
    path = Path(file).expanduser()
    if path.suffix.lower() in (".yaml", ".yml", ".json"):
        return read_plain_yaml(path)
    columns = read_table(path, {CLASS, NAME})
    if missing := [column for column in (CLASS, NAME) if column not in columns]:
        raise DataError(
            f"the table '{path}' has no column '{missing[0]}': names of classes are in the columns '{CLASS}' and "
            f"'{NAME}', one row for each name"
        )
    table: dict[str, list[str]] = {}
    for label, name in zip(columns[CLASS], columns[NAME], strict=True):
        table.setdefault(label, []).append(name)
    return table


def check_known(words: Iterable[str], classes: Collection[str], place: str, what: str = "class") -> None:
    """Check that names are given for classes of the data alone; raises DataError."""
    if unknown := [label for label in words if label not in classes]:
        raise DataError(f"'{place}' has no {what} '{unknown[0]}' for data.class_names: {nearest(unknown[0], classes)}")


def check_distinct(class_names: Sequence[str], words: Mapping[str, Sequence[str]]) -> None:
    """Check that every name for CLIP is there once; raises DataError."""
    owners: dict[str, str] = {}
    for label in class_names:
        for name in words.get(label, [label]):
            if owners.get(name) == label:
                raise DataError(f"the class '{label}' has the name '{name}' twice: leave one out")
            if name in owners:
                raise DataError(
                    f"the classes '{owners[name]}' and '{label}' have the same name for CLIP, '{name}': name them apart"
                )
            owners[name] = label


def other_words(words: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
    """Return the names of the classes that have others than their own."""
    return {label: [*names] for label, names in words.items() if [*names] != [label]}


def with_words(class_names: Iterable[str], words: Mapping[str, Sequence[str]]) -> list[str]:
    """Return class names with the names for CLIP in brackets, where they are others."""
    return [f"{label} ({', '.join(words[label])})" if label in words else label for label in class_names]
