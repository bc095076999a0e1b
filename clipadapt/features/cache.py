"""Disk cache of frozen activations: checksummed shards of rows, found by key, shared by processes, of limited size."""

import hashlib
import json
import os
import time
import uuid
import warnings
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from clipadapt.errors import WriteError

KEY = 16
"""Length of a key in bytes."""

HEADER = 1024
"""Upper bound on the bytes of a shard's header."""

ENTRY, SHARD = "activations-", ".safetensors"
"""Prefix of the names of entries, and suffix of the names of shards; other files in the folder are never removed."""

Row = tuple[Tensor, int]
"""The values of a shard, and the number of a row in it."""


@dataclass(frozen=True)
class LookupResult:
    """Result of looking up keys in a cache entry; stays readable when the entry's shards are removed.

    Attributes:
        missing: positions, among the requested keys, of the keys that the entry lacks.
        rows: memory-mapped row of each key that the entry has, by the key's position.
    """

    missing: list[int]
    rows: dict[int, Row]

    def gather(self, positions: Sequence[int]) -> Tensor:
        """Return a copy of the values at some positions, in this order, `[n, ...]`.

        There must be at least one position, and none of them may be missing.
        """
        return torch.stack([values[row] for values, row in map(self.rows.__getitem__, positions)])


class CacheEntry:
    """Rows of one encoder's activations, each determined by the image view that its key identifies.

    Shards never change after they are written, and each process writes files with names of its own. So reading takes
    no lock. Two processes that compute the same rows store them twice; either copy is valid.

    Args:
        store: the cache that the entry belongs to.
        folder: the entry's folder.
    """

    def __init__(self, store: "Store", folder: Path) -> None:
        self.store = store
        self.folder = folder

    def find(self, keys: Sequence[bytes]) -> LookupResult:
        """Look up keys; damaged shards are removed with a warning, and their rows count as missing."""
        wanted, rows = set(keys), dict[bytes, Row]()
        with self.store.as_user_error():
            for path in sorted(self.folder.glob(f"*{SHARD}")):
                found = read(path, wanted)
                wanted.difference_update(found)
                rows |= found
        present = {position: rows[key] for position, key in enumerate(keys) if key in rows}
        return LookupResult([position for position in range(len(keys)) if position not in present], present)

    def write(self, keys: Sequence[bytes], values: Tensor) -> None:
        """Write at least one row as one shard; the least recently used shards are removed to make room.

        Args:
            keys: keys of the rows, 16 bytes each.
            values: the rows, `[n, ...]`.
        """
        values = values.detach().cpu().contiguous()
        key_bytes = torch.frombuffer(bytearray(b"".join(keys)), dtype=torch.uint8).view(len(values), KEY)
        sums = torch.tensor([zlib.crc32(row) for row in as_bytes(values)])
        self.store.put(self.folder / f"{uuid.uuid4().hex}{SHARD}", {"values": values, "keys": key_bytes, "sums": sums})


class Store:
    """Disk cache: a folder of entries.

    Args:
        folder: the folder, made when the first entry is opened.
        limit: bytes that the shards of all entries may take together, also while a shard is written.
    """

    def __init__(self, folder: Path, limit: int) -> None:
        self.folder = folder
        self.limit = limit

    def check(self) -> None:
        """Check that the folder can be written, before work begins that needs it.

        Raises:
            WriteError: the folder can't be written.
        """
        with self._locked():
            probe = self.folder / f".probe-{os.getpid()}"
            probe.write_bytes(b"")
            probe.unlink()

    def entry(self, fields: Mapping[str, Any]) -> CacheEntry:
        """Open the entry of values that are determined by the image and these fields.

        Raises:
            WriteError: the folder can't be made or written.
        """
        text = json.dumps(fields, sort_keys=True)
        entry = self.folder / f"{ENTRY}{hashlib.sha256(text.encode()).hexdigest()[:16]}"
        with self._locked():
            entry.mkdir(exist_ok=True)
            (entry / "key.json").write_text(json.dumps(fields, sort_keys=True, indent=2) + "\n")
        return CacheEntry(self, entry)

    def put(self, path: Path, tensors: Mapping[str, Tensor]) -> None:
        """Write a shard after making room for it.

        It isn't flushed to disk: after a power cut a shard is whole, missing, or damaged, which its checksums tell, and
        what it held is computed again. A flush would wait for the disk at every one of up to 64 MB.

        Raises:
            ValueError: the shard alone is above the limit.
            WriteError: the folder can't be written, or the disk is full.
        """
        size = sum(tensor.nbytes for tensor in tensors.values()) + HEADER
        if size > self.limit:
            raise ValueError(f"a shard of {size} bytes is above the limit of {self.limit}")
        part = path.with_suffix(".part")
        with self._locked():
            path.parent.mkdir(exist_ok=True)
            newest = self._make_room(size)
            try:
                save_file(dict(tensors), part)
                used = max(time.time_ns(), newest + 1)  # else, after the clock was set back, it would give way first
                os.utime(part, ns=(used, used))
                os.replace(part, path)
            finally:
                part.unlink(missing_ok=True)

    def _make_room(self, size: int) -> int:
        """Remove the least recently used shards to make room; return the newest one's time of last use, 0 for none."""
        # Only the lock's holder writes shards, so any partial file, ours or safetensors', is a killed process's.
        for path in self.folder.glob(f"{ENTRY}*/*"):
            if path.suffix == ".part" or path.name.startswith(".tmp"):
                path.unlink(missing_ok=True)
        shards = self._shards()
        room = self.limit - sum(used for _, used, _ in shards)
        for _, used, path in shards:
            if room >= size:
                break
            path.unlink(missing_ok=True)
            room += used
        return max((when for when, _, _ in shards), default=0)

    def _shards(self) -> list[tuple[int, int, Path]]:
        """Return the time of last use, the size in bytes and the path of all shards, the least recently used first."""
        found = []
        for path in self.folder.glob(f"{ENTRY}*/*{SHARD}"):
            with suppress(FileNotFoundError):  # a reader may remove a damaged shard at any time
                status = path.stat()
                found.append((status.st_mtime_ns, status.st_size, path))
        return sorted(found)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Hold the lock that every writer of the cache takes."""
        with self.as_user_error():
            self.folder.mkdir(parents=True, exist_ok=True)
            with FileLock(self.folder / ".lock"):
                yield

    @contextmanager
    def as_user_error(self) -> Iterator[None]:
        """Turn errors of the file system into a WriteError."""
        try:
            yield
        except (OSError, SafetensorError) as error:
            reason = getattr(error, "strerror", None) or error
            raise unusable(self.folder, reason) from error


def unusable(folder: Path, reason: object) -> WriteError:
    """Return the error of a folder that can't be the disk cache."""
    return WriteError(
        f"activations can't be kept in '{folder}' ({reason}): name another folder with engine.cache=DIR or "
        "CLIPADAPT_CACHE=DIR, or keep nothing on disk with engine.cache=null"
    )


def read(path: Path, wanted: set[bytes]) -> dict[bytes, Row]:
    """Return the wanted rows that a shard has, and mark it as just used; remove the shard if it is damaged."""
    try:
        found = checked(path, wanted)
    except (SafetensorError, ValueError) as error:
        path.unlink(missing_ok=True)
        warnings.warn(f"'{path}' is damaged ({error}): it is removed, and what it held is computed again", stacklevel=3)
        return {}
    except (OSError, RuntimeError):  # torch raises RuntimeError for a file that is removed while it is opened
        if path.exists():
            raise
        return {}
    if found:
        with suppress(OSError):
            now = time.time_ns()  # as of what is written: the kernel's own clock is some milliseconds behind
            os.utime(path, ns=(now, now))
    return found


def checked(path: Path, wanted: set[bytes]) -> dict[bytes, Row]:
    """Return the wanted rows that a shard has, with their checksums verified; no other rows are read.

    Raises:
        SafetensorError, ValueError: the shard is damaged.
    """
    with safe_open(path, "pt") as file:  # on the CPU a tensor is a view of the memory-mapped file
        values, keys, sums = map(file.get_tensor, ("values", "keys", "sums"))
    count = sums.numel()
    fit = values.shape[:1] == sums.shape == (count,) and keys.shape == (count, KEY)
    if not fit or (keys.dtype, sums.dtype) != (torch.uint8, torch.int64):
        raise ValueError("its tensors don't fit together")
    names = keys.numpy().view(f"V{KEY}")[:, 0].tolist()  # each key as bytes
    rows = {key: row for row, key in enumerate(names) if key in wanted}
    data, expected = as_bytes(values), sums.tolist()
    if any(zlib.crc32(data[row]) != expected[row] for row in rows.values()):
        raise ValueError("a checksum differs")
    return {key: (values, row) for key, row in rows.items()}


def as_bytes(values: Tensor) -> Any:
    """Return the bytes of each row, as a numpy view `[n, bytes]`."""
    # A single number counts as contiguous with any stride, but torch views it as bytes only along one of stride 1.
    return values.flatten()[:, None].view(torch.uint8).numpy().reshape(len(values), -1)
