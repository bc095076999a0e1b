"""Frozen activations kept on disk: shards of rows found by key, shared by processes, below a limit, checked."""

import hashlib
import json
import os
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

from clipadapt.errors import UserError

KEY = 16
"""Bytes of a key."""

HEADER = 1024
"""No shard's header takes more bytes."""

ENTRY, SHARD = "activations-", ".safetensors"
"""How the names of entries begin and those of shards end: nothing else in the folder is ever removed."""

Row = tuple[Tensor, int]
"""The values of a shard, and which of its rows."""


@dataclass(frozen=True)
class LookupResult:
    """What a shelf had of the keys it was asked for; it stays readable when its shards are removed.

    Attributes:
        missing: positions, in the keys asked for, of those it did not have.
        rows: where those lie that it had, by position; memory-mapped.
    """

    missing: list[int]
    rows: dict[int, Row]

    def gather(self, positions: Sequence[int]) -> Tensor:
        """Copy of the values at some positions (one at least, none of them missing), in this order, `[n, ...]`."""
        return torch.stack([values[row] for values, row in map(self.rows.__getitem__, positions)])


class CacheEntry:
    """Rows whose values depend on nothing but the image that their key stands for.

    A shard, once there, never changes, and the files of several processes have different names. So reading takes no
    lock; two processes that compute the same rows keep them twice, and either copy is good.

    Args:
        store: that it is a part of.
        folder: its place.
    """

    def __init__(self, store: "Store", folder: Path) -> None:
        self.store = store
        self.folder = folder

    def find(self, keys: Sequence[bytes]) -> LookupResult:
        """Look up keys; what is damaged is removed with a warning, and missing."""
        wanted, rows = set(keys), dict[bytes, Row]()
        with self.store.as_user_error():
            for path in sorted(self.folder.glob(f"*{SHARD}")):
                found = read(path, wanted)
                wanted.difference_update(found)
                rows |= found
        had = {position: rows[key] for position, key in enumerate(keys) if key in rows}
        return LookupResult([position for position in range(len(keys)) if position not in had], had)

    def write(self, keys: Sequence[bytes], values: Tensor) -> None:
        """Keep rows (one at least) as one shard; the rows that were used least recently make room.

        Args:
            keys: of the rows, 16 bytes each.
            values: the rows, `[n, ...]`.
        """
        values = values.detach().cpu().contiguous()
        named = torch.frombuffer(bytearray(b"".join(keys)), dtype=torch.uint8).view(len(values), KEY)
        sums = torch.tensor([zlib.crc32(row) for row in as_bytes(values)])
        self.store.put(self.folder / f"{uuid.uuid4().hex}{SHARD}", {"values": values, "keys": named, "sums": sums})


class Store:
    """A folder of entries.

    Args:
        folder: made when the first shelf is asked for.
        limit: bytes that the shards of all entries may take together, also while one is written.
    """

    def __init__(self, folder: Path, limit: int) -> None:
        self.folder = folder
        self.limit = limit

    def check(self) -> None:
        """See that the folder can be written, before work begins that needs it.

        Raises:
            UserError: it can't.
        """
        with self._held():
            probe = self.folder / f".probe-{os.getpid()}"
            probe.write_bytes(b"")
            probe.unlink()

    def entry(self, fields: Mapping[str, Any]) -> CacheEntry:
        """The shelf for values that depend, beside the image, on these facts.

        Raises:
            UserError: the folder can't be made or written.
        """
        text = json.dumps(fields, sort_keys=True)
        entry = self.folder / f"{ENTRY}{hashlib.sha256(text.encode()).hexdigest()[:16]}"
        with self._held():
            entry.mkdir(exist_ok=True)
            (entry / "key.json").write_text(json.dumps(fields, sort_keys=True, indent=2) + "\n")
        return CacheEntry(self, entry)

    def put(self, path: Path, tensors: Mapping[str, Tensor]) -> None:
        """Write a shard after making room for it.

        Raises:
            ValueError: it alone is above the limit.
            UserError: the folder can't be written, or the disk is full.
        """
        size = sum(tensor.nbytes for tensor in tensors.values()) + HEADER
        if size > self.limit:
            raise ValueError(f"a shard of {size} bytes is above the limit of {self.limit}")
        part = path.with_suffix(".part")
        with self._held():
            path.parent.mkdir(exist_ok=True)
            self._make_room(size)
            try:
                save_file(dict(tensors), part)
                os.replace(part, path)
            finally:
                part.unlink(missing_ok=True)

    def _make_room(self, size: int) -> None:
        # Only who holds the lock writes a shard: a half one, ours or safetensors' own, is a killed process's.
        for path in self.folder.glob(f"{ENTRY}*/*"):
            if path.suffix == ".part" or path.name.startswith(".tmp"):
                path.unlink(missing_ok=True)
        shards = self._shards()
        room = self.limit - sum(taken for _, taken, _ in shards)
        for _, taken, path in shards:
            if room >= size:
                break
            path.unlink(missing_ok=True)
            room += taken

    def _shards(self) -> list[tuple[int, int, Path]]:
        """Time of the last use, size and path of all shards, the least recently used first."""
        found = []
        for path in self.folder.glob(f"{ENTRY}*/*{SHARD}"):
            with suppress(FileNotFoundError):  # a reader removes what is damaged at any time
                status = path.stat()
                found.append((status.st_mtime_ns, status.st_size, path))
        return sorted(found)

    @contextmanager
    def _held(self) -> Iterator[None]:
        """Hold the lock of all that change the store."""
        with self.as_user_error():
            self.folder.mkdir(parents=True, exist_ok=True)
            with FileLock(self.folder / ".lock"):
                yield

    @contextmanager
    def as_user_error(self) -> Iterator[None]:
        """Tell the user what the system refuses."""
        try:
            yield
        except (OSError, SafetensorError) as error:
            reason = getattr(error, "strerror", None) or error
            raise UserError(
                f"activations can't be kept in '{self.folder}' ({reason}): "
                "name another folder with engine.cache=DIR or CLIPADAPT_CACHE=DIR, or keep nothing on disk with "
                "engine.cache=null"
            ) from error


def read(path: Path, wanted: set[bytes]) -> dict[bytes, Row]:
    """Those of the wanted rows that a shard has, now the most recently used; nothing of one that is damaged."""
    try:
        found = checked(path, wanted)
    except (SafetensorError, ValueError) as error:
        path.unlink(missing_ok=True)
        warnings.warn(f"'{path}' is damaged ({error}): it is removed, and what it held is computed again", stacklevel=3)
        return {}
    except (OSError, RuntimeError):  # torch's own for a file that goes away while it is opened
        if path.exists():
            raise
        return {}
    if found:
        with suppress(OSError):
            os.utime(path)
    return found


def checked(path: Path, wanted: set[bytes]) -> dict[bytes, Row]:
    """Those of the wanted rows that a shard has; of its values only these are read.

    Raises:
        SafetensorError, ValueError: it is damaged.
    """
    with safe_open(path, "pt") as file:  # on the CPU a tensor is a view of the mapped file
        values, keys, sums = map(file.get_tensor, ("values", "keys", "sums"))
    count = sums.numel()
    fit = values.shape[:1] == sums.shape == (count,) and keys.shape == (count, KEY)
    if not fit or (keys.dtype, sums.dtype) != (torch.uint8, torch.int64):
        raise ValueError("its tensors don't fit together")
    names = keys.numpy().view(f"V{KEY}")[:, 0].tolist()  # as bytes
    rows = {key: row for row, key in enumerate(names) if key in wanted}
    data, expected = as_bytes(values), sums.tolist()
    if any(zlib.crc32(data[row]) != expected[row] for row in rows.values()):
        raise ValueError("a checksum differs")
    return {key: (values, row) for key, row in rows.items()}


def as_bytes(values: Tensor) -> Any:
    """The bytes of each row, a numpy view `[n, bytes]`."""
    # A single number counts as contiguous whatever its stride, but is seen as bytes only along a dimension of stride 1.
    return values.flatten()[:, None].view(torch.uint8).numpy().reshape(len(values), -1)
