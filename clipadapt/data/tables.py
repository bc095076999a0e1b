"""Images listed in a table, as CSV or Parquet: a column of image files, one of labels, maybe one of splits."""

import csv as comma_separated
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from clipadapt.data.folders import SPLIT_NAMES, pictures
from clipadapt.data.labels import check_shared, numbered, to_source
from clipadapt.data.tasks import Source, Split
from clipadapt.errors import DataError, listed, nearest
from clipadapt.files import FilePath

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
    """Images listed in a CSV (or tab or semicolon separated) or Parquet table, one a row.

    Without a column of splits all rows are the pool: validation images are drawn from it, and what support and
    validation leave is the test set.

    Args:
        root: The table; Parquet if its name ends with .parquet.
        images: The folder that paths are relative to; None for the table's.
        path: The column of image files.
        label: The column of labels: class names, or numbers from 0 along `class_names`.
        split: The column that says train, val or test; None for the one called "split", if there is one.
        class_names: Names of the classes, in order; None for the labels in natural order.
        templates: Sentences with {} for the class name; None for "a photo of a {}."

    Raises:
        DataError: For a table that is missing or can't be read, columns that it lacks or has twice, empty cells,
            unknown splits and labels, and images of two splits.
    """
    table = Path(root).expanduser()
    columns = read(table, {path, label, split or SPLIT_COLUMN})
    check_missing(root, [path, label, *([] if split is None else [split])], columns)
    files, labels = columns[path], columns[label]
    if not files:
        raise DataError(f"the table '{root}' has no rows below its header")
    splits = columns.get(split or SPLIT_COLUMN, ["train"] * len(files))
    check_empty(root, {path: files, label: labels, split or SPLIT_COLUMN: splits})
    rows = rows_of_splits(root, splits)
    names, numbers = numbered({part: [labels[row] for row in found] for part, found in rows.items()}, class_names, root)
    folder = table.parent if images is None else Path(images).expanduser()
    paths = {part: [str(folder / files[row]) for row in own] for part, own in rows.items()}
    check_shared(paths, "image", root)
    found = {part: Split(pictures(paths[part]), numbers[part]) for part in rows}
    return to_source(table.stem, names, templates, found)


def check_missing(table: str, names: Sequence[str], columns: Collection[str]) -> None:
    """Raise DataError, with advice on each, where a table lacks columns of these names."""
    missing = [f"'{name}': {nearest(name, columns)}" for name in names if name not in columns]
    if missing:
        raise DataError(f"the table '{table}' has no column {', and none called '.join(missing)}")


def check_empty(table: str, columns: Mapping[str, Sequence[str]]) -> None:
    """Raise DataError when cells are empty; rows are counted as spreadsheets do, the header being row 1."""
    empty = {name: [str(row) for row, cell in enumerate(cells, start=2) if not cell] for name, cells in columns.items()}
    found = [f"no {name} in row {listed(rows, SHOWN_ROWS)}" for name, rows in empty.items() if rows]
    if found:
        raise DataError(f"the table '{table}' has {', and '.join(found)}")


def rows_of_splits(table: str, splits: Sequence[str]) -> dict[str, list[int]]:
    """Which rows are of which split; raises DataError for unknown words and where none is for training."""
    rows: dict[str, list[int]] = {}
    for row, word in enumerate(splits):
        part = SPLIT_NAMES.get(word.lower())
        if part is None:
            raise DataError(
                f"the table '{table}' has the split '{word}' in row {row + 2}: {nearest(word, SPLIT_NAMES)}"
            )
        rows.setdefault(part, []).append(row)
    if "train" not in rows:
        raise DataError(f"the table '{table}' has no rows of the split train")
    return rows


def read(table: Path, wanted: Collection[str]) -> dict[str, list[str]]:
    """The cells of each wanted column, as text without spaces around it, empty where there are none.

    What other columns there are is told without their cells.

    Raises:
        DataError: For a table that is missing or can't be read, or has several columns of a wanted name.
    """
    if table.is_dir():
        raise DataError(f"'{table}' is a folder: name a table, or where the folders in it are the classes data=folder")
    try:
        return read_parquet(table, wanted) if table.suffix.lower() == ".parquet" else read_csv(table, wanted)
    except FileNotFoundError:
        raise DataError(f"there is no table '{table}'") from None
    except UnicodeDecodeError as error:
        raise DataError(f"the table '{table}' isn't in UTF-8 ({error}): save it as CSV in UTF-8") from error
    except (OSError, comma_separated.Error) as error:
        raise DataError(f"the table '{table}' can't be read: {error}") from error


def read_csv(table: Path, wanted: Collection[str]) -> dict[str, list[str]]:
    """The columns of a text file, for read; cells are parted by what its header has most of: comma, semicolon, tab."""
    with table.open(encoding="utf-8-sig", newline="") as file:
        first = file.readline()
        file.seek(0)
        rows = [*comma_separated.reader(file, delimiter=max(DELIMITERS, key=first.count))]
    header, *below = [row for row in rows if row] or [[]]
    names = [name.strip() for name in header]
    check_repeated(table, names, wanted)
    columns: dict[str, list[str]] = {name: [] for name in names}
    for place, name in enumerate(names):
        if name in wanted:
            columns[name] = [row[place].strip() if place < len(row) else "" for row in below]
    return columns


def read_parquet(table: Path, wanted: Collection[str]) -> dict[str, list[str]]:
    """The columns of a Parquet file, for read."""
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
    """Raise DataError when several columns have a wanted name: which of them is meant can't be told."""
    for name in names:
        if name in wanted and names.count(name) > 1:
            raise DataError(f"the table '{table}' has {names.count(name)} columns called '{name}': name them apart")
