"""A folder that is written whole or not at all."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from clipadapt.errors import UserError
from clipadapt.files import as_write_error, flush_folder, make_folder


def check_free(out: Path) -> None:
    """Check that nothing is at a path; raises UserError otherwise."""
    if os.path.lexists(out):
        kind = "folder" if out.is_dir() else "file"
        raise UserError(f"there is a {kind} at {out} already: move it away, or choose another out=")


@contextmanager
def whole_folder(out: Path) -> Iterator[Path]:
    """Yield a folder to write to, which takes its name when the block is done, and goes if the block fails.

    Raises:
        UserError: something is at its place.
        WriteError: the folder, or a file in it, can't be written.
    """
    check_free(out)
    part = out.with_name(f".{out.name}.{os.getpid()}.part")
    made = make_folder(out.absolute().parent)
    try:
        with as_write_error(out):
            part.mkdir()
            yield part
            flush_files(part)
            check_free(out)  # an empty folder would be replaced
            part.rename(out)
            flush_folder(out.absolute().parent)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        with suppress(OSError):  # somebody else's file may be there by now
            for folder in made:
                folder.rmdir()
        raise


def flush_files(folder: Path) -> None:
    """Flush the files below a folder, and their names, to disk."""
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())
    for path in (*(path for path in folder.rglob("*") if path.is_dir()), folder):
        flush_folder(path)
