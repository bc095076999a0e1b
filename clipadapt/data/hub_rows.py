"""Rows of a data set of the hub: the first ones of a stream, and images read from them when asked for."""

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
    """Names of the columns that are read."""

    image: str
    label: str


def without_decoding(data: Any, columns: Columns) -> Any:
    """The two columns that are needed; images as the bytes of their files."""
    from datasets import Image as ImageFeature

    return data.select_columns([*columns]).cast_column(columns.image, ImageFeature(decode=False))


def labels_of(data: Any, columns: Columns) -> list[Any]:
    """The labels of a split; UNLABELLED where there is none."""
    return [UNLABELLED if said is None else said for said in data[columns.label]]


def first_of_each(
    name: str,
    stream: Any,
    columns: Columns,
    class_names: list[str] | None,
    count: int,
    version: str,
    cache_dir: str | None,
) -> Any:
    """The first `count` images of each class of a stream, kept on disk: fetched once for each version of the data set.

    Raises:
        DataError: The classes aren't known, so that the stream's end would have to be awaited.
    """
    from datasets import Dataset

    if class_names is None:
        raise DataError(f"the classes of '{name}' aren't known before it is fetched: leave out data.streaming")
    picture, answer = columns
    classes = len(class_names)
    digest = hashlib.sha256(f"{version} {picture} {answer} {classes} {count}".encode()).hexdigest()[:16]
    generate = partial(leading, stream.map(partial(with_bytes, picture)), answer, classes, count)
    return Dataset.from_generator(generate, stream.features, cache_dir, fingerprint=digest)


def with_bytes(picture: str, row: dict[str, Any]) -> dict[str, Any]:
    """A row whose image lies in it, wherever its file was."""
    import fsspec

    file = row[picture]
    if file["bytes"] is not None:
        return row
    with fsspec.open(file["path"], "rb") as opened_file:
        return row | {picture: {"bytes": opened_file.read(), "path": None}}


def leading(rows: Iterable[dict[str, Any]], answer: str, classes: int, count: int) -> Iterator[dict[str, Any]]:
    """The first `count` rows of each class, until all classes have them; a first one without label is the last, too."""
    taken: Counter[Any] = Counter()
    for row in rows:
        if taken[row[answer]] < count:
            taken[row[answer]] += 1
            yield row
        if row[answer] in (None, UNLABELLED) or taken.total() == classes * count:
            return


def pictures(name: str, data: Any, picture: str) -> LazyImages[int]:
    """Images of a split, loaded when asked for; in another process from the same file on disk."""
    rows = data.select_columns([picture])
    return LazyImages(
        range(len(rows)),
        partial(load, name, rows, picture),
        partial(verify, name, rows, picture),
        partial(content, rows, picture),
    )


def content(rows: Any, picture: str, index: int) -> bytes:
    """The bytes of an image's file; raises DataError where it is one of its own that can't be read."""
    file = rows[index][picture]
    return file["bytes"] if file["bytes"] is not None else file_bytes(file["path"])


def load(name: str, rows: Any, picture: str, index: int) -> Image.Image:
    """An image, as upright RGB; raises DataError where it is damaged."""
    return open_image(f"{name}/{picture}-{index}", content(rows, picture, index))


def verify(name: str, rows: Any, picture: str, index: int) -> None:
    """Check an image's header; raises DataError where it is damaged."""
    verify_image(f"{name}/{picture}-{index}", content(rows, picture, index))
