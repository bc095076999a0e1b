"""Files of the user's: which settings are paths, how names of images end, and atomic writing."""

import os
from pathlib import Path
from typing import Annotated, Any, get_args

ANY, FOLDER = "path", "path where there is such a folder"

FilePath = Annotated[str, ANY]
"""A file, a folder, or a pattern of them."""

NameOrFolder = Annotated[str, FOLDER]
"""The path of a folder if there is one, else a name, such as that of a data set on the Hugging Face hub."""


def is_path(annotation: Any, text: str) -> bool:
    """Return whether a setting with this annotation and this value is a path."""
    if annotation == NameOrFolder:
        return os.path.isdir(os.path.expanduser(text))
    return bool(text) and FilePath in (annotation, *get_args(annotation))


IMAGE_SUFFIXES = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp"})
"""Ends of the names of files that are images, in lower case."""


def write_atomically(path: Path, content: bytes | str) -> None:
    """Write a file atomically: at any moment the old content or the new one is there.

    Raises:
        OSError: the file can't be written; nothing is left behind.
    """
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        part.write_bytes(content if isinstance(content, bytes) else content.encode())
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
