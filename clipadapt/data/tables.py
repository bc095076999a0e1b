"""Images listed in a CSV or Parquet table: a column of image files, one of labels, and optionally one of splits."""

from pathlib import Path

from clipadapt.data.class_words import ClassWords, check_known, split_class_names
from clipadapt.data.folders import lazy_images
from clipadapt.data.labels import check_disjoint, encode_labels, to_source
from clipadapt.data.table_faults import (
    caught,
    check_missing,
    describe_missing,
    find_empty,
    find_repeated,
    find_unknown_splits,
    raise_faults,
)
from clipadapt.data.table_files import group_rows_by_split, locate, read_table
from clipadapt.data.tasks import Source, Split
from clipadapt.errors import DataError
from clipadapt.files import FilePath

SPLIT_COLUMN = "split"


def csv(
    root: FilePath,
    images: FilePath | None = None,
    path: str = "path",
    label: str = "label",
    split: str | None = None,
    class_names: FilePath | list[str | list[str]] | ClassWords | None = None,
    templates: list[str] | None = None,
) -> Source:
    """Read images listed in a CSV (or tab or semicolon separated) or Parquet table, one per row.

    Columns may be written in any case. Without a column of splits all rows are the pool: validation images are drawn
    from it, and the images outside the support and validation sets are the test set.

    Args:
        root: The table; Parquet if its name ends with .parquet.
        images: The folder that paths are relative to; None for the table's folder.
        path: The column of image files.
        label: The column of labels: class names, or numbers from 0 along `class_names`.
        split: The column with the values train, val or test; None for the column "split", if there is one.
        class_names: Names of the classes, in order; None for the labels in natural order. Of a list of names for one
            class, the first is its label. Or the names for CLIP by label, or a file of them (see `read_words`).
        templates: Sentences with {} for the class name; None for "a photo of a {}."

    Raises:
        DataError: The table is missing or can't be read, lacks columns or has one twice, has empty cells or unknown
            splits or labels, or lists an image twice; all faults of its rows are told at once.
    """
    table, (listed, own) = Path(root).expanduser(), split_class_names(class_names)
    columns = read_table(table, {path, label, split or SPLIT_COLUMN})
    check_missing(root, {"path": path, "label": label, **({} if split is None else {"split": split})}, columns)
    files, labels = columns[path], columns[label]
    if not files:
        raise DataError(f"the table '{root}' has no rows below its header")
    words = columns.get(split or SPLIT_COLUMN, ["train"] * len(files))
    paths = locate(table.parent if images is None else Path(images).expanduser(), files)
    rows = group_rows_by_split(words)
    written = {part: [labels[row] for row in found if labels[row]] for part, found in rows.items()}
    placed = {part: [paths[row] for row in own] for part, own in rows.items()}
    faults = [
        *find_empty(root, {path: files, label: labels, split or SPLIT_COLUMN: words}),
        *find_unknown_splits(root, words, rows),
        *find_repeated(root, rows, paths, labels),
        *caught(lambda: encode_labels(written, listed, root)),
        *caught(lambda: check_disjoint(placed, "image", root)),
    ]
    if faults:
        raise_faults(root, [*faults, *describe_missing(root, paths)])
    names, numbers = encode_labels(written, listed, root)
    check_known(own, names, root)
    splits = {part: Split(lazy_images(placed[part]), numbers[part]) for part in rows}
    return to_source(table.stem, names, templates, splits, words=own)
