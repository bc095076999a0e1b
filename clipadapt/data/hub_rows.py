"""Rows of a data set of the hub: the first rows of a stream, and images that are loaded on access."""

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator
from functools import partial
from typing import Any, NamedTuple

from PIL import Image

from clipadapt.data.images import LazyImages, file_bytes, open_image, verify_image
from clipadapt.data.tasks import UNLABELLED
from clipadapt.errors import DataError


class Columns(NamedTuple):
    """Names of the columns of images and labels."""

    image: str
    label: str


def select_undecoded(data: Any, columns: Columns) -> Any:
    """Return the columns of images and labels, with images as the bytes of their files."""
    from datasets import Image as ImageFeature

    return data.select_columns([*columns]).cast_column(columns.image, ImageFeature(decode=False))


def read_labels(data: Any, columns: Columns) -> list[Any]:
    """Return the labels of a split; UNLABELLED for an image without label."""
    return [UNLABELLED if label is None else label for label in data[columns.label]]


def first_images_per_class(
    name: str,
    stream: Any,
    columns: Columns,
    class_names: list[str] | None,
    count: int,
    version: str,
    cache_dir: str | None,
) -> Any:
    """Return the first `count` images of each class of a stream, cached on disk by the version of the data set.

    Raises:
        DataError: The classes aren't known, so that the whole stream would have to be read.
    """
    from datasets import Dataset

    if class_names is None:
        raise DataError(f"the classes of '{name}' aren't known before it is fetched: leave out data.streaming")
    image_column, label_column = columns
    classes = len(class_names)
    digest = hashlib.sha256(f"{version} {image_column} {label_column} {classes} {count}".encode()).hexdigest()[:16]
    generate = partial(
        first_rows_per_class, stream.map(partial(embed_bytes, image_column)), label_column, classes, count
    )
    return Dataset.from_generator(generate, stream.features, cache_dir, fingerprint=digest)


def embed_bytes(image_column: str, row: dict[str, Any]) -> dict[str, Any]:
    """Return a row that holds the bytes of its image, read from the image's file if need be."""
    import fsspec

    file = row[image_column]
    if file["bytes"] is not None:
        return row
    with fsspec.open(file["path"], "rb") as opened_file:
        return row | {image_column: {"bytes": opened_file.read(), "path": None}}


def first_rows_per_class(
    rows: Iterable[dict[str, Any]], label_column: str, classes: int, count: int
) -> Iterator[dict[str, Any]]:
    """Yield the first `count` rows of each class; stop when all classes have them, or after a row without label."""
    taken: Counter[Any] = Counter()
    for row in rows:
        if taken[row[label_column]] < count:
            taken[row[label_column]] += 1
            yield row
        if row[label_column] in (None, UNLABELLED) or taken.total() == classes * count:
            return


def lazy_images(name: str, data: Any, image_column: str) -> LazyImages[int]:
    """Return the images of a split, loaded on access; pickled, they are read from the same file on disk."""
    rows = data.select_columns([image_column])
    return LazyImages(
        range(len(rows)),
        partial(load_image, name, rows, image_column),
        partial(verify_row, name, rows, image_column),
        partial(image_bytes, rows, image_column),
    )


def image_bytes(rows: Any, image_column: str, index: int) -> bytes:
    """Return the bytes of an image's file; raises DataError if that is a separate file that can't be read."""
    file = rows[index][image_column]
    return file["bytes"] if file["bytes"] is not None else file_bytes(file["path"])


def load_image(name: str, rows: Any, image_column: str, index: int) -> Image.Image:
    """Return an image as upright RGB; raises DataError if it is damaged."""
    return open_image(f"{name}/{image_column}-{index}", image_bytes(rows, image_column, index))


def verify_row(name: str, rows: Any, image_column: str, index: int) -> bool:
    """Check an image's header, as `verify_image` does; raises DataError if it is damaged."""
    return verify_image(f"{name}/{image_column}-{index}", image_bytes(rows, image_column, index))
