"""Images listed in a CSV or Parquet table: a column of image files, one of labels, and optionally one of splits."""

import csv as comma_separated
import os
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from clipadapt.data.folders import SPLIT_NAMES, lazy_images
from clipadapt.data.labels import check_disjoint, encode_labels, to_source
from clipadapt.data.tasks import Source, Split
from clipadapt.errors import DataError, join_names, nearest
from clipadapt.files import FilePath
from clipadapt.paths import irregular

DELIMITERS = ",;\t"
SPLIT_COLUMN = "split"
SHOWN_ROWS = 5


def csv(
    root: FilePath,
    images: FilePath | None = None,
    path: str = "path",
    label: str = "label",
    split: str | None = None,
    class_names: list[str] | None = None,
    templates: list[str] | None = None,
) -> Source:
    """Read images listed in a CSV (or tab or semicolon separated) or Parquet table, one per row.

    Without a column of splits all rows are the pool: validation images are drawn from it, and the images outside the
    support and validation sets are the test set.

    Args:
        root: The table; Parquet if its name ends with .parquet.
        images: The folder that paths are relative to; None for the table's folder.
        path: The column of image files.
        label: The column of labels: class names, or numbers from 0 along `class_names`.
        split: The column with the values train, val or test; None for the column "split", if there is one.
        class_names: Names of the classes, in order; None for the labels in natural order.
        templates: Sentences with {} for the class name; None for "a photo of a {}."

    Raises:
        DataError: The table is missing or can't be read, lacks columns or has one twice, has empty cells or unknown
            splits or labels, or an image is in two splits.
    """
    table = Path(root).expanduser()
    columns = read_table(table, {path, label, split or SPLIT_COLUMN})
    check_missing(root, [path, label, *([] if split is None else [split])], columns)
    files, labels = columns[path], columns[label]
    if not files:
        raise DataError(f"the table '{root}' has no rows below its header")
    splits = columns.get(split or SPLIT_COLUMN, ["train"] * len(files))
    check_empty(root, {path: files, label: labels, split or SPLIT_COLUMN: splits})
    rows = group_rows_by_split(root, splits)
    names, numbers = encode_labels(
        {part: [labels[row] for row in found] for part, found in rows.items()}, class_names, root
    )
    folder = table.parent if images is None else Path(images).expanduser()
    paths = {part: [str(folder / files[row]) for row in own] for part, own in rows.items()}
    check_disjoint(paths, "image", root)
    found = {part: Split(lazy_images(paths[part]), numbers[part]) for part in rows}
    return to_source(table.stem, names, templates, found)


def check_missing(table: str, names: Sequence[str], columns: Collection[str]) -> None:
    """Check that a table has all columns of these names; raises DataError with advice on each missing one."""
    missing = [f"'{name}': {nearest(name, columns)}" for name in names if name not in columns]
    if missing:
        raise DataError(f"the table '{table}' has no column {', and none called '.join(missing)}")


def check_empty(table: str, columns: Mapping[str, Sequence[str]]) -> None:
    """Check that no cells are empty; raises DataError with row numbers as in a spreadsheet: row 1 is the header."""
    empty = {name: [str(row) for row, cell in enumerate(cells, start=2) if not cell] for name, cells in columns.items()}
    found = [f"no {name} in row {join_names(rows, SHOWN_ROWS)}" for name, rows in empty.items() if rows]
    if found:
        raise DataError(f"the table '{table}' has {', and '.join(found)}")


def group_rows_by_split(table: str, splits: Sequence[str]) -> dict[str, list[int]]:
    """Return the row numbers of each split; raises DataError for unknown splits, or only rows to validate on."""
    rows: dict[str, list[int]] = {}
    for row, word in enumerate(splits):
        part = SPLIT_NAMES.get(word.lower())
        if part is None:
            raise DataError(
                f"the table '{table}' has the split '{word}' in row {row + 2}: {nearest(word, SPLIT_NAMES)}"
            )
        rows.setdefault(part, []).append(row)
    if not {"train", "test"} & {*rows}:
        raise DataError(f"the table '{table}' has no rows of the split train, nor of the split test")
    return {"train": [], **rows}


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
    except (OSError, comma_separated.Error) as error:
        raise DataError(f"the table '{table}' can't be read: {error}") from error


def read_csv(table: Path, wanted: Collection[str]) -> dict[str, list[str]]:
    """Read a text table for `read_table`; the delimiter is the commonest of comma, semicolon and tab in the header."""
    with table.open(encoding="utf-8-sig", newline="") as file:
        first = file.readline()
        file.seek(0)
        rows = [*comma_separated.reader(file, delimiter=max(DELIMITERS, key=first.count))]
    header, *below = [row for row in rows if any(cell.strip() for cell in row)] or [[]]
    if not header:
        raise DataError(f"the table '{table}' is empty: its first line must name its columns")
    names = [name.strip() for name in header]
    check_repeated(table, names, wanted)
    columns: dict[str, list[str]] = {name: [] for name in names}
    for place, name in enumerate(names):
        if name in wanted:
            columns[name] = [row[place].strip() if place < len(row) else "" for row in below]
    return columns


def read_parquet(table: Path, wanted: Collection[str]) -> dict[str, list[str]]:
    """Read a Parquet table for `read_table`."""
    try:
        from pyarrow import ArrowInvalid
        from pyarrow.parquet import read_schema, read_table
    except ImportError:
        raise DataError(f"reading '{table}' needs pyarrow: pip install 'clipadapt[parquet]'") from None
    try:
        names = read_schema(table).names
        check_repeated(table, names, wanted)
        columns: dict[str, list[str]] = {name: [] for name in names}
        found = read_table(table, columns=[name for name in columns if name in wanted]).to_pydict()
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
