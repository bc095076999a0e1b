"""Tables of pandas and lists of pairs of an image and its label, saved once as a table that data=csv reads again."""

import csv
import hashlib
import io
import math
import numbers
import os
from collections.abc import Iterable, Mapping, Sequence
from os import PathLike
from pathlib import Path
from types import MappingProxyType
from typing import Any

from PIL import Image

from clipadapt.data.images import pixel_bytes
from clipadapt.data.inputs import to_image
from clipadapt.data.kept import keep_folder
from clipadapt.errors import DataError
from clipadapt.paths import shorten

TABLE, PATH, IMAGE = "images.csv", "path", "image"


def is_data_frame(given: Any) -> bool:
    """Return whether a value is a table of pandas, which isn't imported for that."""
    return type(given).__module__.partition(".")[0] == "pandas" and hasattr(given, "itertuples")


def is_pairs(given: Any) -> bool:
    """Return whether a value is a list, or a zip, of pairs; the pairs themselves are looked at later."""
    return isinstance(given, zip) or (
        isinstance(given, list | tuple) and any(isinstance(one, list | tuple) for one in given)
    )


def keep_data_frame(given: Any, options: dict[str, Any]) -> dict[str, Any]:
    """Save a table of pandas once, by its content; return the options of data=csv that read it.

    Images are in the column `path` or, without one, `image`; relative paths count from the working directory, unless
    `images` is another folder.

    Args:
        given: the table.
        options: those that the user gives.

    Raises:
        WriteError: It can't be saved.
    """
    names = [str(name).strip().casefold() for name in given.columns]
    called = {} if PATH in names or IMAGE not in names else {PATH: IMAGE}
    rows = given.astype(object).where(given.notna(), "").itertuples(index=False, name=None)
    return keep_table([*map(str, given.columns)], rows) | called | options


def keep_pairs(given: Iterable[Any], options: dict[str, Any]) -> dict[str, Any]:
    """Save a list of pairs of an image and its label once, by its content; return the options of data=csv.

    Images in memory are saved as PNG files beside the table.

    Args:
        given: the pairs: paths, files' bytes, PIL images or arrays, each with a class name or number.
        options: those that the user gives.

    Raises:
        DataError: There are no pairs, one item is no pair, or an image can't be read.
        WriteError: They can't be saved.
    """
    pairs = list(given)
    if not pairs:
        raise DataError("there are no images in the list: give pairs of an image and its label")
    for place, pair in enumerate(pairs):
        if not isinstance(pair, list | tuple) or len(pair) != 2:
            raise DataError(
                f"a list of images must hold pairs of an image and its label, as in [('1.jpg', 'cat')], and item "
                f"{place} is {f'a tuple of {len(pair)}' if isinstance(pair, list | tuple) else type(pair).__name__}"
            )
    base = options.get("images", os.getcwd())
    rows: list[tuple[str, Any]] = []
    pictures: dict[str, Image.Image] = {}
    for place, (image, label) in enumerate(pairs):
        if isinstance(image, str | PathLike):
            path = os.path.abspath(os.path.join(base, os.fspath(image)))
        else:
            path = f"{place}.png"
            pictures[path] = to_image(image)
        rows.append((path, written_label(label, place)))
    return {**options, **keep_table([PATH, "label"], rows, pictures)}


def written_label(label: Any, place: int) -> Any:
    """Return a label as a table has it; a missing one is empty, and told with the table's other faults.

    Raises:
        DataError: it is neither text nor a whole number.
    """
    if label is None:
        return ""
    if isinstance(label, str):
        return label
    if isinstance(label, numbers.Real) and not isinstance(label, bool):
        if math.isnan(label):
            return ""
        if float(label).is_integer():
            return label
    raise DataError(f"the label of item {place} must be a class name or a whole number, and is {shorten(repr(label))}")


def keep_table(
    names: Sequence[str], rows: Iterable[Sequence[Any]], pictures: Mapping[str, Image.Image] = MappingProxyType({})
) -> dict[str, Any]:
    """Save a table, and pictures by their names in it; return the options of data=csv that read it."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(names)
    writer.writerows(rows)
    content = hashlib.sha256(f"{'' if pictures else os.getcwd()}\n{text.getvalue()}".encode(errors="surrogateescape"))
    for image in pictures.values():
        content.update(pixel_bytes(image))

    def save(folder: Path) -> None:
        folder.mkdir()
        for name, image in pictures.items():
            image.save(folder / name)
        (folder / TABLE).write_text(text.getvalue(), encoding="utf-8", newline="")

    folder = keep_folder(content.hexdigest()[:16], "images", save)
    return {"root": str(folder / TABLE), "images": str(folder) if pictures else os.getcwd()}
