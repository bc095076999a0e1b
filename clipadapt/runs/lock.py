"""Lock of a run directory, held by the operating system: two processes never compute one run at once.

The lock is a file beside the directory, which may be replaced meanwhile. It is released when its process ends, or is
killed. Reading a finished run takes no lock.
"""

import errno
import fcntl
import json
import os
import socket
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from clipadapt.console import is_main_process
from clipadapt.errors import UserError
from clipadapt.files import as_write_error, make_folder

INTERVAL = 0.5
"""Seconds between two attempts to get a lock that is held."""

NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP}
"""Errors of file systems that have no locks."""

_held: set[int] = set()
"""Descriptors of this process's lock files; a forked worker process closes its copies, else it holds the locks, too."""


def _close_copies() -> None:
    while _held:
        os.close(_held.pop())


os.register_at_fork(after_in_child=_close_copies)


@contextmanager
def hold(directory: Path) -> Iterator[None]:
    """Hold the lock of a run directory, on rank 0.

    One process waits for the lock and says for whom, so that of two sweeps that share a run the later one reads its
    result. A job of several processes doesn't: the others would wait in an operation that has a time limit.

    Raises:
        UserError: another process holds the lock, and this one is one of several.
        WriteError: the lock file can't be written.
    """
    if not is_main_process():
        yield
        return
    path = lock_path(directory)
    with as_write_error(directory):
        made = make_folder(path.parent)
    descriptor = _wait(directory, path)
    try:
        yield
    finally:
        _release(path, descriptor)
        with suppress(OSError):  # they aren't empty if the run has begun
            for folder in made:
                folder.rmdir()


def lock_path(directory: Path) -> Path:
    """Return the path of a run directory's lock file."""
    return directory.with_name(f".{directory.name}.lock")


def tidy(directory: Path, remove: Callable[[], None]) -> None:
    """Remove what a killed process left of a run, and its lock file, unless somebody holds the lock.

    Args:
        directory: of the run.
        remove: removes what is left in the directory.
    """
    path = lock_path(directory)
    with suppress(OSError, _NoLocks):
        if (descriptor := _try(path)) is not None:
            try:
                remove()
            finally:
                _release(path, descriptor)


@contextmanager
def hold_and_tidy(folder: Path) -> Iterator[None]:
    """Hold the lock of a folder of tables, which is made, and remove the unfinished files that a killed process left.

    Raises:
        UserError: as of `hold`.
        WriteError: the folder or its lock file can't be written.
    """
    make_folder(folder)
    with hold(folder):
        with suppress(OSError):
            for part in folder.glob(".*.part"):
                part.unlink(missing_ok=True)
        yield


class _NoLocks(Exception):
    """The file system has no locks."""


def _wait(directory: Path, path: Path) -> int | None:
    """Return the descriptor of the lock when it is ours; None if the file system has no locks."""
    told = ""
    while True:
        try:
            with as_write_error(directory):
                descriptor = _try(path)
        except _NoLocks as error:
            warnings.warn(f"{directory} can't be locked ({error}): don't start this run a second time", stacklevel=4)
            return None
        if descriptor is not None:
            return descriptor
        holder = _describe_holder(path)
        if int(os.environ.get("WORLD_SIZE", "1")) > 1:
            raise UserError(f"{directory} is being computed by {holder}: wait until that has ended, or end it")
        if holder != told:
            warnings.warn(f"{directory} is being computed by {holder}: waiting until that has ended", stacklevel=4)
            told = holder
        time.sleep(INTERVAL)


def _try(path: Path) -> int | None:
    """Return the descriptor of the lock if it is ours now; None if somebody else holds it.

    Raises:
        OSError: the lock file can't be written.
        _NoLocks: the file system has no locks.
    """
    path.parent.mkdir(parents=True, exist_ok=True)  # whoever made it may have removed it
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    _held.add(descriptor)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        _close(descriptor)
        if error.errno in NO_LOCKS:
            raise _NoLocks(error.strerror) from error
        if not isinstance(error, BlockingIOError):
            raise
        return None
    if not _is_file(descriptor, path):  # it was held by a process that removed it on leaving
        _close(descriptor)
        return None
    try:
        _write_holder(descriptor)
    except OSError:
        _release(path, descriptor)
        raise
    return descriptor


def _write_holder(descriptor: int) -> None:
    """Write into a lock file which process holds it."""
    holder = {"process": os.getpid(), "host": socket.gethostname(), "since": time.strftime("%Y-%m-%d %H:%M:%S")}
    os.ftruncate(descriptor, 0)
    os.write(descriptor, json.dumps(holder).encode())


def _is_file(descriptor: int, path: Path) -> bool:
    """Return whether a descriptor is that of the file which has this path now."""
    with suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(descriptor), path.stat())
    return False


def _release(path: Path, descriptor: int | None) -> None:
    """Remove the lock file while the lock is held, then let go of it."""
    if descriptor in _held:
        with suppress(OSError):
            path.unlink(missing_ok=True)
        _close(descriptor)


def _close(descriptor: int) -> None:
    _held.remove(descriptor)
    os.close(descriptor)


def _describe_holder(path: Path) -> str:
    """Return who holds a lock, as far as the lock file says so."""
    with suppress(OSError, ValueError, KeyError, TypeError):
        holder = json.loads(path.read_text())
        return f"process {holder['process']} on {holder['host']} since {holder['since']}"
    return "another process"
