"""Data sets of the library `datasets` in memory, saved so that a run's data can be read again."""

import hashlib
from typing import Any

from clipadapt.data.kept import keep_folder
from clipadapt.errors import DataError


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
    return str(keep_folder(digest, str(name), lambda folder: given.save_to_disk(str(folder))))
