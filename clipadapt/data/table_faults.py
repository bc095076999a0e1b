"""Faults of tables of images: all that are found are told at once, with row numbers as in a spreadsheet.

Row 1 is the header, and the lists here begin with row 2.
"""

import os
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import NoReturn

from clipadapt.errors import DataError, join_names, nearest

HEADER_ROWS = 2
USUAL = ("train", "val", "validation", "test")
SHOWN_ROWS, SHOWN_FILES = 5, 5


def check_missing(table: str, wanted: Mapping[str, str], columns: Collection[str]) -> None:
    """Check that a table has all wanted columns, by the settings that name them.

    Raises:
        DataError: Some are missing; has advice on each.
    """
    missing = {key: name for key, name in wanted.items() if name not in columns}
    if missing:
        told = ", and none called ".join(f"'{name}': {nearest(name, columns)}" for name in missing.values())
        keys = " and ".join(f"data.{key}=…" for key in missing)
        raise DataError(f"the table '{table}' has no column {told}; say which it is with {keys}")


def raise_faults(table: str, faults: Sequence[str]) -> NoReturn:
    """Raise a DataError that tells one fault, or lists several."""
    if len(faults) == 1:
        raise DataError(faults[0])
    raise DataError("\n  - ".join([f"the table '{table}' has {len(faults)} kinds of faults:", *faults]))


def caught(check: Callable[[], object]) -> list[str]:
    """Return the message of the DataError that a check raises; an empty list if it raises none."""
    try:
        check()
    except DataError as error:
        return [str(error)]
    return []


def join_rows(rows: Sequence[int]) -> str:
    """Return the numbers of the first rows, and how many more there are; `rows` count from 0 below the header."""
    return join_names([str(row + HEADER_ROWS) for row in rows], SHOWN_ROWS)


def find_empty(table: str, columns: Mapping[str, Sequence[str]]) -> list[str]:
    """Return a sentence on the empty cells of columns; an empty list if there are none."""
    empty = {name: [row for row, cell in enumerate(cells) if not cell] for name, cells in columns.items()}
    found = [f"no {name} in row {join_rows(rows)}" for name, rows in empty.items() if rows]
    return [f"the table '{table}' has {', and '.join(found)}"] if found else []


def find_unknown_splits(table: str, words: Sequence[str], rows: Mapping[str, Sequence[int]]) -> list[str]:
    """Return a sentence for each word that stands for no split, and one if there are only rows to validate on.

    Args:
        table: The table.
        words: The split of each row.
        rows: The rows of each split.
    """
    known = {row for own in rows.values() for row in own}
    unknown: dict[str, list[int]] = {}
    for row, word in enumerate(words):
        if word and row not in known:
            unknown.setdefault(word, []).append(row)
    faults = [
        f"the table '{table}' has the split '{word}' in row {join_rows(found)}: {nearest(word, USUAL)}"
        for word, found in unknown.items()
    ]
    if not faults and not rows["train"] and "test" not in rows:
        faults.append(f"the table '{table}' has no rows of the split train, nor of the split test")
    return faults


def find_repeated(
    table: str, rows: Mapping[str, Sequence[int]], paths: Sequence[str], labels: Sequence[str]
) -> list[str]:
    """Return sentences on files that are listed twice in one split, or under two labels.

    Args:
        table: The table.
        rows: The rows of each split.
        paths: The file of each row.
        labels: The label of each row.
    """
    listed: dict[str, list[int]] = {}
    for row in (row for row, label in enumerate(labels) if label):
        listed.setdefault(os.path.normpath(paths[row]), []).append(row)
    part = {row: split for split, own in rows.items() for row in own}
    torn, twice = [], []
    for found in filter(lambda found: len(found) > 1, listed.values()):
        name = os.path.basename(paths[found[0]])
        if len({labels[row] for row in found}) > 1:
            each = [f"{labels[row]} in row {row + HEADER_ROWS}" for row in found]
            torn.append(f"{name} ({join_names(each, SHOWN_ROWS)})")
        elif len({part.get(row) for row in found}) < len(found):
            twice.append(f"{name} (row {join_rows(found)})")
    faults = [f"the table '{table}' gives several labels to {join_names(torn, SHOWN_FILES)}"] if torn else []
    return faults + ([f"the table '{table}' lists twice {join_names(twice, SHOWN_FILES)}"] if twice else [])


def describe_missing(table: str, paths: Sequence[str]) -> list[str]:
    """Return a sentence on the files of a table that aren't there; an empty list if all are."""
    missing = [row for row, path in enumerate(paths) if not os.path.exists(path)]
    names = [f"{os.path.basename(paths[row])} (row {row + HEADER_ROWS})" for row in missing]
    return [f"the table '{table}' lists files that aren't there: {join_names(names, SHOWN_FILES)}"] if missing else []
