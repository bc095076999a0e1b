"""Data sets of the library `datasets` in memory, saved so that a run's data can be read again."""

import hashlib
import os
import shutil
from pathlib import Path
from typing import Any

from clipadapt.errors import DataError
from clipadapt.files import as_write_error, make_folder

CACHE, USUAL_CACHE = "CLIPADAPT_CACHE", "~/.cache/clipadapt"


def is_data_set(given: Any) -> bool:
    """Return whether a value is an object of the library `datasets`, which isn't imported for that."""
    return type(given).__module__.partition(".")[0] == "datasets"


def keep(given: Any) -> str:
    """Save a `Dataset` or `DatasetDict` once, by its fingerprint; return the folder, which data=huggingface reads.

    Raises:
        DataError: It is a stream, or another object of the library.
        WriteError: It can't be saved.
    """
    parts = given if isinstance(given, dict) else {"train": given}
    marks = [f"{name} {getattr(part, '_fingerprint', '')}" for name, part in parts.items()]
    if not hasattr(given, "save_to_disk") or not all(hasattr(part, "_fingerprint") for part in parts.values()):
        raise DataError(
            f"a data set must be a Dataset or a DatasetDict of the library datasets, and one is "
            f"{type(given).__name__}: a stream is named, as in load_task('huggingface', name=…, streaming=…)"
        )
    name = getattr(next(iter(parts.values())).info, "dataset_name", None) or "dataset"
    digest = hashlib.sha256("\n".join(marks).encode()).hexdigest()[:16]
    folder = Path(os.environ.get(CACHE) or USUAL_CACHE).expanduser() / "given" / digest / str(name)
    if folder.is_dir():
        return str(folder)
    part = folder.with_name(f".{folder.name}.{os.getpid()}.part")
    make_folder(folder.parent)
    with as_write_error(folder):
        try:
            given.save_to_disk(str(part))
            part.rename(folder)
        finally:
            shutil.rmtree(part, ignore_errors=True)
    return str(folder)
