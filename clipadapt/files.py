"""Files of the user's: which settings are paths, and atomic writing."""

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Annotated, Any, get_args

from clipadapt.errors import UserError, WriteError

ANY, FOLDER = "path", "path where there is such a folder"
TABLE = "path of a file whose table takes its place"

FilePath = Annotated[str, ANY]
"""A file, a folder, or a pattern of them."""

NameOrFolder = Annotated[str, FOLDER]
"""The path of a folder if there is one, else a name, such as that of a data set on the Hugging Face hub."""

TablePath = Annotated[str, TABLE]
"""A YAML or JSON file with a table, which the settings of a run have in its place."""


def is_path(annotation: Any, text: str) -> bool:
    """Return whether a setting with this annotation and this value is a path."""
    if annotation == NameOrFolder:
        return os.path.isdir(os.path.expanduser(text))
    return bool(text) and FilePath in (annotation, *get_args(annotation))


FULL = {errno.ENOSPC, errno.EDQUOT}
"""Errors of a disk, or a user's share of one, that has no room left."""

NO_FLUSH = {errno.EINVAL, errno.ENOTSUP}
"""Errors of file systems that can't flush a folder, and have no need to."""


def part_path(path: Path) -> Path:
    """Return the file that is written before it takes the name of a path."""
    return path.with_name(f".{path.name}.{os.getpid()}.part")


def write_atomically(path: Path, content: bytes | str) -> None:
    """Write a file atomically: at any moment, a power cut too, the old content or the new one is there.

    Raises:
        WriteError: the file can't be written; nothing is left behind.
    """
    part = part_path(path)
    with as_write_error(path):
        try:
            with part.open("wb") as file:
                file.write(content if isinstance(content, bytes) else content.encode())
                file.flush()
                os.fsync(file.fileno())  # before the rename, which could reach the disk first
            os.replace(part, path)
            flush_folder(path.parent)
        finally:
            with suppress(OSError):  # the error above is the one to tell
                part.unlink(missing_ok=True)


def check_new_file(path: Path, key: str) -> None:
    """Check, before long work, that a file can be written at its end: that it isn't there, and that its folder is.

    Args:
        path: the file.
        key: of the setting that names it, for the message.

    Raises:
        UserError: there is something of this name.
        WriteError: the file can't be written.
    """
    if os.path.lexists(path):
        raise UserError(f"{key}={path} is there already: move it away, or name another file")
    if not path.parent.is_dir():
        raise UserError(f"{key}={path} can't be written: there is no folder {path.parent}")
    part = part_path(path)
    with as_write_error(path):
        part.open("wb").close()
        part.unlink()


def make_folder(path: Path) -> list[Path]:
    """Make a folder, and those above it, unless it is there; return those that weren't, the innermost first.

    Raises:
        WriteError: it can't be made.
    """
    with as_write_error(path):
        made = [folder for folder in (path, *path.parents) if not folder.exists()]
        path.mkdir(parents=True, exist_ok=True)
        for folder in made:
            flush_folder(folder.parent)
        return made


def flush_folder(path: Path) -> None:
    """Flush the names of a folder's files to disk, as far as its file system can."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in NO_FLUSH:
            raise
    finally:
        os.close(descriptor)


@contextmanager
def as_write_error(path: Path) -> Iterator[None]:
    """Turn an error of the file system into a WriteError, which says how to mend it.

    Args:
        path: the file or folder that is written.
    """
    try:
        yield
    except OSError as error:
        if error.errno in FULL:
            advice = "make room and do the same again, which goes on from what was saved before"
        else:
            advice = "mend that, or choose another folder; what was saved before is kept"
        raise WriteError(f"{path} can't be written ({error.strerror or error}): {advice}") from error


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """Yield a folder to write to, which takes its name when the block is done, and goes if the block fails.

    Args:
        path: the folder, which isn't there yet, or is empty.

    Raises:
        UserError: something is at its place.
        WriteError: the folder, or a file in it, can't be written; nothing is left behind.
    """
    check_free(path)
    part = part_path(path)
    made = make_folder(path.absolute().parent)
    try:
        with as_write_error(path):
            part.mkdir()
            yield part
            flush_files(part)
            check_free(path)
            os.replace(part, path)
            flush_folder(path.absolute().parent)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        with suppress(OSError):  # somebody else's file may be there by now
            for folder in made:
                folder.rmdir()
        raise


def check_free(path: Path) -> None:
    """Check that nothing is where a folder will be written, or an empty folder.

    Raises:
        UserError: something is there.
    """
    with as_write_error(path):
        if path.is_dir() and not any(path.iterdir()):
            return
    if os.path.lexists(path):
        raise UserError(f"{path} is there already: choose another place, or move it away")


def flush_files(folder: Path) -> None:
    """Flush the files below a folder, and their names, to disk."""
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())
    for path in (*(path for path in folder.rglob("*") if path.is_dir()), folder):
        flush_folder(path)
