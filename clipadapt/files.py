"""Files written whole, and how the names of images end."""

import os
from pathlib import Path

IMAGE_SUFFIXES = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp"})
"""Ends of the names of files that are images, in lower case."""


def write(path: Path, content: bytes | str) -> None:
    """Write a file so that at any moment the old one or the new one is there, whole.

    Raises:
        OSError: it can't be written; nothing is left behind.
    """
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        part.write_bytes(content if isinstance(content, bytes) else content.encode())
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
