"""Tables in CSV (or tab or semicolon separated) and Parquet: their wanted columns as text."""

import csv as comma_separated
import os
import unicodedata
from collections.abc import Collection, Sequence
from pathlib import Path

from clipadapt.data.splits import group_by_split, split_kind
from clipadapt.errors import DataError
from clipadapt.notices import notice
from clipadapt.paths import irregular

DELIMITERS = ",;\t"


def read_table(table: Path, wanted: Collection[str]) -> dict[str, list[str]]:
    """Read the wanted columns of a table as text, stripped of spaces; empty cells give empty texts.

    The names of all other columns are returned too, with no cells.

    Raises:
        DataError: The table is missing or can't be read, or has several columns of a wanted name.
    """
    if os.path.isdir(table):
        raise DataError(f"'{table}' is a folder: name a table, or where the folders in it are the classes data=folder")
    if kind := irregular(table):
        raise DataError(f"the table '{table}' can't be read: it is {kind}, and no file")
    try:
        return read_parquet(table, wanted) if table.suffix.lower() == ".parquet" else read_csv(table, wanted)
    except FileNotFoundError:
        raise DataError(f"there is no table '{table}'") from None
    except UnicodeDecodeError as error:
        raise DataError(f"the table '{table}' isn't in UTF-8 ({error}): save it as CSV in UTF-8") from error
    except comma_separated.Error as error:
        advice = "close each quote, and double those inside of cells"
        raise DataError(f"the table '{table}' can't be read ({error}): {advice}") from error
    except OSError as error:
        raise DataError(f"the table '{table}' can't be read: {error}") from error


def read_csv(table: Path, wanted: Collection[str]) -> dict[str, list[str]]:
    """Read a text table for `read_table`; the delimiter is the commonest of comma, semicolon and tab in the header."""
    with table.open(encoding="utf-8-sig", newline="") as file:
        first = file.readline()
        file.seek(0)
        rows = [*comma_separated.reader(file, delimiter=max(DELIMITERS, key=first.count), strict=True)]
    header, *below = [row for row in rows if any(cell.strip() for cell in row)] or [[]]
    if not header:
        raise DataError(f"the table '{table}' is empty: its first line must name its columns")
    names = spell_as_wanted([name.strip() for name in header], wanted)
    check_repeated(table, names, wanted)
    columns: dict[str, list[str]] = {name: [] for name in names}
    for place, name in enumerate(names):
        if name in wanted:
            columns[name] = [row[place].strip() if place < len(row) else "" for row in below]
        elif below and all(place < len(row) and split_kind(row[place]) for row in below):
            notice(f"the column '{name}' of '{table}' holds splits, and isn't read: data.split={name} takes it")
    return columns


def read_parquet(table: Path, wanted: Collection[str]) -> dict[str, list[str]]:
    """Read a Parquet table for `read_table`."""
    try:
        from pyarrow import ArrowInvalid
        from pyarrow.parquet import read_schema, read_table
    except ImportError:
        raise DataError(f"reading '{table}' needs pyarrow: pip install 'clipadapt[parquet]'") from None
    try:
        written = read_schema(table).names
        names = spell_as_wanted(written, wanted)
        check_repeated(table, names, wanted)
        columns: dict[str, list[str]] = {name: [] for name in names}
        own_names = dict(zip(names, written, strict=True))
        read = [own_names[name] for name in columns if name in wanted]
        found = read_table(table, columns=read).rename_columns([name for name in columns if name in wanted]).to_pydict()
    except ArrowInvalid as error:
        raise DataError(f"the table '{table}' can't be read: {error}") from error
    return columns | {
        name: ["" if cell is None else str(cell).strip() for cell in cells] for name, cells in found.items()
    }


def check_repeated(table: Path, names: Sequence[str], wanted: Collection[str]) -> None:
    """Check that only one column has each wanted name; raises DataError."""
    for name in names:
        if name in wanted and names.count(name) > 1:
            raise DataError(f"the table '{table}' has {names.count(name)} columns called '{name}': name them apart")


def spell_as_wanted(names: Sequence[str], wanted: Collection[str]) -> list[str]:
    """Return the names of columns, with a wanted name in place of one that differs from it in case alone."""
    absent = {name.casefold(): name for name in wanted if name not in names}
    return [absent.get(name.strip().casefold(), name) for name in names]


def group_rows_by_split(words: Sequence[str]) -> dict[str, list[int]]:
    """Return the rows of each split, without those of words that stand for no split; "train" is always there."""
    parts = {word: part for part, names in group_by_split(dict.fromkeys(words)).items() for word in names}
    rows: dict[str, list[int]] = {"train": []}
    for row, word in enumerate(words):
        if word in parts:
            rows.setdefault(parts[word], []).append(row)
    return rows


def locate(folder: Path, files: Sequence[str]) -> list[str]:
    """Return the paths of files that a table lists.

    A path that isn't there is tried with slashes in place of the backslashes of Windows, and in both forms of Unicode.
    """
    return [str(folder / find_spelling(folder, file)) for file in files]


def find_spelling(folder: Path, file: str) -> str:
    """Return how a file is own_names on this disk; the file as it is if it isn't there."""
    if file.isascii() and "\\" not in file:
        return file
    slashes = file.replace("\\", "/")
    tries = [file, slashes, *(unicodedata.normalize(form, slashes) for form in ("NFC", "NFD"))]
    return next((name for name in tries if os.path.exists(folder / name)), slashes if "/" not in file else file)
