"""Images as scikit-learn's users have them: arrays, lists of paths or PIL images, a column of a table."""

from collections.abc import Sequence
from os import PathLike, fspath
from typing import Any

import numpy as np
from PIL import Image

from clipadapt.data.folders import lazy_images
from clipadapt.data.inputs import as_list, to_image
from clipadapt.errors import InputError

KINDS: dict[str, Any] = {"path": (str, PathLike), "PIL image": Image.Image, "array": np.ndarray}


def as_pictures(X: Any) -> list[Any]:
    """Return images as a list of paths, of PIL images or of arrays `[height, width, 3]`.

    Args:
        X: a list of them, an array `[N, height, width, 3]` of 8-bit pixels, a column of a table (a `Series`, or a
            `DataFrame` or array with one column).

    Raises:
        UserError: it is something else, a single image, empty, or of images of different kinds.
    """
    X = single_column(X)
    if isinstance(X, str | PathLike | Image.Image) or (isinstance(X, np.ndarray) and X.ndim != 1 and X.ndim < 4):
        raise InputError(
            "X must hold several images: a list of paths or PIL images, or an array [N, height, width, 3] of 8-bit "
            f"pixels, and it is {f'of the shape {X.shape}' if isinstance(X, np.ndarray) else 'a single one'}"
        )
    pictures = as_list(X)
    kinds = [find_kind(picture, place) for place, picture in enumerate(pictures)]
    if other := next((place for place, kind in enumerate(kinds) if kind != kinds[0]), None):
        raise InputError(
            f"X must hold images of one kind, and item {other} is of the kind {kinds[other]} where the first is of the "
            f"kind {kinds[0]}"
        )
    return pictures


def single_column(X: Any) -> Any:
    """Return the only column of a table or of a two-dimensional array of paths or objects; anything else as it is.

    Raises:
        InputError: a table has several columns.
    """
    table = hasattr(X, "columns") and hasattr(X, "iloc")
    if table and X.shape[1] != 1:
        raise InputError(f"X is a table of {X.shape[1]} columns: give the one that holds the images, as X['path']")
    if table:
        return X.iloc[:, 0].tolist()
    objects = isinstance(X, np.ndarray) and X.ndim == 2 and X.dtype.kind in "OUS"
    return X[:, 0] if objects and X.shape[1] == 1 else X


def find_kind(picture: Any, place: int) -> str:
    """Return the kind of an image; raises InputError if it has none of the `KINDS`."""
    for name, types in KINDS.items():
        if isinstance(picture, types):
            return name
    raise InputError(
        f"an image must be a path, a PIL image or an array of 8-bit pixels [height, width, 3], and item {place} of X "
        f"is of the type {type(picture).__name__}"
    )


def to_images(pictures: list[Any]) -> Sequence[Image.Image]:
    """Return images as RGB; files are read when asked for.

    Raises:
        UserError: an array isn't one of 8-bit pixels, or a PIL image can't be read.
    """
    if isinstance(pictures[0], str | PathLike):
        return lazy_images([str(fspath(path)) for path in pictures])
    return [to_image(picture) for picture in pictures]
