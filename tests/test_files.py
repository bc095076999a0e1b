"""Files are written whole and reach the disk, or it is told in a sentence why they can't be."""

import errno
import os
import subprocess
from contextlib import suppress

import pytest

from clipadapt.errors import WriteError
from clipadapt.files import make_folder, write_atomically


@pytest.fixture
def small_disk(tmp_path):
    """A disk of 64 KB; tests are skipped where none can be mounted."""
    place = tmp_path / "disk"
    place.mkdir()
    with suppress(FileNotFoundError):
        command = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(place)]
        if not subprocess.run(command, capture_output=True).returncode:
            yield place
            subprocess.run(["umount", str(place)], check=True)
            return
    pytest.skip("no disk can be mounted here")


def test_a_full_disk_keeps_the_old_file(small_disk):
    write_atomically(small_disk / "file", "old")
    with pytest.raises(WriteError, match=r"file can't be written \(No space left.*make room and do the same again"):
        write_atomically(small_disk / "file", b"x" * 100_000)
    assert [path.read_text() for path in small_disk.iterdir()] == ["old"]
    write_atomically(small_disk / "file", "new")
    assert (small_disk / "file").read_text() == "new"


def test_a_read_only_disk_is_told(small_disk):
    write_atomically(small_disk / "file", "old")
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    for write in (lambda: write_atomically(small_disk / "file", "new"), lambda: make_folder(small_disk / "a" / "b")):
        with pytest.raises(WriteError, match=r"Read-only file system\): mend that, or choose another folder"):
            write()
    assert (small_disk / "file").read_text() == "old"


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EIO])
@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_call_that_fails_is_told_and_leaves_nothing(tmp_path, monkeypatch, call, number):
    def fail(*arguments):
        raise OSError(number, os.strerror(number))

    write_atomically(tmp_path / "file", "old")
    monkeypatch.setattr(os, call, fail)
    full = number in (errno.ENOSPC, errno.EDQUOT)
    with pytest.raises(WriteError, match="make room" if full else "choose another folder"):
        write_atomically(tmp_path / "file", "new")
    assert [path.read_text() for path in tmp_path.iterdir()] == ["old"]


def test_a_file_is_flushed_before_it_takes_its_name_and_the_folder_after(tmp_path, monkeypatch):
    done, fsync, replace = [], os.fsync, os.replace

    def flush(descriptor):
        done.append("flush folder" if os.path.isdir(f"/proc/self/fd/{descriptor}") else "flush file")
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", flush)
    monkeypatch.setattr(os, "replace", lambda *paths: (done.append("name"), replace(*paths)))
    write_atomically(tmp_path / "file", "content")
    assert done == ["flush file", "name", "flush folder"]
    assert make_folder(tmp_path / "a" / "b") == [tmp_path / "a" / "b", tmp_path / "a"]
    assert done[3:] == ["flush folder"] * 2
    assert make_folder(tmp_path / "a") == []


def test_a_folder_that_can_not_be_flushed_is_no_error(tmp_path, monkeypatch):
    """As of some network file systems."""
    fsync = os.fsync

    def flush(descriptor):
        if os.path.isdir(f"/proc/self/fd/{descriptor}"):
            raise OSError(errno.EINVAL, "Invalid argument")
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", flush)
    write_atomically(tmp_path / "file", "content")
