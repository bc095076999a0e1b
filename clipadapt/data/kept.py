"""Data given in Python, saved once in the usual cache, so that a run's data can be read again."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

from clipadapt.files import as_write_error, make_folder

CACHE, USUAL_CACHE = "CLIPADAPT_CACHE", "~/.cache/clipadapt"


def keep_folder(digest: str, name: str, save: Callable[[Path], object]) -> Path:
    """Return a folder of a name that holds what `save` writes to it, once for each digest.

    Args:
        digest: of the content.
        name: of the folder.
        save: makes and fills a folder that isn't there yet.

    Raises:
        WriteError: It can't be written.
    """
    folder = Path(os.environ.get(CACHE) or USUAL_CACHE).expanduser() / "given" / digest / name
    if folder.is_dir():
        return folder
    part = folder.with_name(f".{folder.name}.{os.getpid()}.part")
    make_folder(folder.parent)
    with as_write_error(folder):
        try:
            save(part)
            part.rename(folder)
        finally:
            shutil.rmtree(part, ignore_errors=True)
    return folder
