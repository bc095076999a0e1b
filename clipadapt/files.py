"""Files written whole."""

import os
from pathlib import Path


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
