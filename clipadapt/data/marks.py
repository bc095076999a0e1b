"""Marks of image files: short hashes that tell a changed or swapped file without reading all of it."""

import hashlib
import os
import stat
from collections.abc import Sequence
from contextlib import suppress
from functools import lru_cache
from typing import Any

from PIL import Image

from clipadapt.data.images import LazyImages
from clipadapt.data.threads import map_in_threads

BLOCK, BLOCKS = 8192, 4
"""Bytes of a block, and blocks that are read of a file: the first, the last, and others evenly between them.

A compressed image that differs does so up to its end; of a file of up to 32 KiB all bytes count."""

MAX_KNOWN = 200_000


def find_marks(images: Sequence[Image.Image]) -> list[str | None]:
    """Return the mark of each image file, None for one that is missing or no file; nothing for images in memory."""
    items = images.items if isinstance(images, LazyImages) else []
    if not items or locate(items[0]) is None:
        return []
    return map_in_threads(lambda index: find_mark(items[index]), len(items))


def locate(item: Any) -> tuple[str, int, int | None] | None:
    """Return the file, the first byte and the number of bytes of an image; None if it is in no file.

    A path stands for a whole file, whose bytes aren't counted here; a member of a shard has `shard`, `start`, `size`.
    """
    if isinstance(item, str):
        return item, 0, None
    if hasattr(item, "shard"):
        return item.shard, item.start, item.size
    return None


def find_mark(item: Any) -> str | None:
    """Return the mark of an image file; None if it is missing or no file."""
    place = locate(item)
    if place is None:
        return None
    path, start, size = place
    with suppress(OSError, ValueError):
        state = os.stat(path)
        if not stat.S_ISREG(state.st_mode):  # a pipe would be waited for
            return None
        changed = state.st_mtime_ns, state.st_ctime_ns, state.st_ino  # writers may set the first one back
        return hash_blocks(path, start, state.st_size if size is None else size, changed)
    return None


@lru_cache(MAX_KNOWN)
def hash_blocks(path: str, start: int, size: int, changed: tuple[int, int, int]) -> str:
    """Return a hash of a file's size and some of its bytes; `changed` tells when to read it again."""
    found = hashlib.blake2b(str(size).encode(), digest_size=16)
    with open(path, "rb", buffering=0) as file:
        for offset in offsets(size):
            file.seek(start + offset)
            found.update(file.read(min(BLOCK, size - offset)))
    return found.hexdigest()


def offsets(size: int) -> list[int]:
    """Return where the blocks of a file of so many bytes begin."""
    if size <= BLOCK * BLOCKS:
        return [*range(0, size, BLOCK)]
    return [place * (size - BLOCK) // (BLOCKS - 1) for place in range(BLOCKS)]
