"""The manifest of a finished run: a SHA-256 for each of its files, by which damage is noticed."""

import hashlib
import re
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from clipadapt.checksums import damage_as_user_error, dump_checked_json, hash_file, read_checked_json
from clipadapt.errors import UserError
from clipadapt.files import write_atomically

MANIFEST, FORMAT = "manifest.json", 1


def write_manifest(folder: Path, names: Iterable[str], coming: Mapping[str, str]) -> None:
    """Write the manifest of a run's files.

    Args:
        folder: the run's directory.
        names: paths in it of the files that are written.
        coming: text of the files that will be written after the manifest, by path.
    """
    files = {name: hash_file(folder / name) for name in names}
    files |= {name: hashlib.sha256(text.encode()).hexdigest() for name, text in coming.items()}
    write_atomically(folder / MANIFEST, dump_checked_json({"format": FORMAT, "files": files}))


def check_files(folder: Path, needed: Iterable[str], names: Iterable[str] | None = None) -> None:
    """Check a finished run's files against its manifest.

    Args:
        folder: the run's directory.
        needed: paths of the files that every run has.
        names: paths of the files to check; all of the manifest if None.

    Raises:
        UserError: there is no manifest, or a file is damaged or missing.
    """
    mend = how_to_mend(folder)
    if not (folder / MANIFEST).exists():
        raise UserError(
            f"{folder} has no {MANIFEST}, so that its files can't be checked: it was copied in part, or written by an "
            f"older clipadapt; {mend}"
        )
    with damage_as_user_error(folder / MANIFEST, mend):
        files = _checksums(read_checked_json(folder / MANIFEST), needed)
    for name in files if names is None else names:
        with damage_as_user_error(folder / name, mend):
            if hash_file(folder / name) != files[name]:
                raise ValueError(f"its checksum is another than in {MANIFEST}")


def how_to_mend(folder: Path) -> str:
    """Return how to mend a damaged run, in words."""
    return f"get a whole copy of the run, or delete {folder} and give the command of the run again"


def _checksums(content: Any, needed: Iterable[str]) -> dict[str, str]:
    """Return the checksums by path, after a check that nothing else is in the manifest."""
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise ValueError(f"it is not of format {FORMAT}, which this clipadapt reads")
    files = content.get("files")
    if not isinstance(files, dict) or not {*needed} <= {*files}:
        raise ValueError("it doesn't list every file of a run")
    for name, checksum in files.items():
        if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
            raise ValueError(f"it lists {name}, which is outside of the run")
        if not isinstance(checksum, str) or not re.fullmatch("[0-9a-f]{64}", checksum):
            raise ValueError(f"its checksum of {name} is none")
    return files
