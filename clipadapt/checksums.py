"""SHA-256 checksums of files, JSON values and tensors, so that damage is noticed before anything is used."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from clipadapt.errors import UserError

DAMAGE = (ValueError, TypeError, LookupError, AttributeError, RuntimeError, SafetensorError)
"""Errors that parsers raise on a damaged file; too deep a nesting is a RuntimeError."""

CHECKSUM, CONTENT = "sha256", "content"


@contextmanager
def damage_as_user_error(path: Path, mend: str) -> Iterator[None]:
    """Raise a UserError if the file that is read in this block can't be read, or is damaged.

    Args:
        path: the file.
        mend: how to mend it, in words.
    """
    try:
        yield
    except OSError as error:
        raise UserError(f"{path} can't be read ({reason(error)}): {mend}") from error
    except DAMAGE as error:
        raise UserError(f"{path} is damaged ({reason(error)}): {mend}") from error


def reason(error: Exception) -> str:
    """Return an error's message on one line."""
    message = getattr(error, "strerror", None) or str(error)
    return " ".join(message.split())[:200]


def check_is_file(path: Path) -> None:
    """Check that a path is a regular file: to open anything else may fail, or wait for ever.

    Raises:
        OSError: there is no file, or something else.
    """
    if not path.is_file():
        raise OSError(f"it is {'no regular file' if path.exists() else 'missing'}")


def read_json(path: Path) -> Any:
    """Read the value in a JSON file.

    Raises:
        OSError: the file can't be read.
        ValueError: it holds no JSON.
    """
    check_is_file(path)
    return json.loads(path.read_text(encoding="utf-8"))


def hash_file(path: Path) -> str:
    """Return the SHA-256 of a file's content.

    Raises:
        OSError: the file can't be read.
    """
    check_is_file(path)
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def hash_json(content: Any) -> str:
    """Return the SHA-256 of a JSON value, however it is written."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def dump_checked_json(content: Any) -> str:
    """Return a JSON value with its checksum as the text of a file."""
    return json.dumps({CHECKSUM: hash_json(content), CONTENT: content}, indent=2) + "\n"


def read_checked_json(path: Path) -> Any:
    """Read a JSON value that `dump_checked_json` wrote.

    Raises:
        OSError: the file can't be read.
        ValueError: it is damaged.
    """
    found = read_json(path)
    if not isinstance(found, dict) or {*found} != {CHECKSUM, CONTENT}:
        raise ValueError("it has no checksum")
    if found[CHECKSUM] != hash_json(found[CONTENT]):
        raise ValueError("its checksum is another")
    return found[CONTENT]


def hash_tensors(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> str:
    """Return the SHA-256 of tensors on the CPU with their names, types and shapes, and of texts beside them."""
    found = hashlib.sha256(json.dumps(metadata, sort_keys=True).encode())
    for name in sorted(tensors):
        value = tensors[name].contiguous()
        found.update(f"{name} {value.dtype} {list(value.shape)}".encode())
        if value.numel():
            found.update(value.reshape(-1).view(torch.uint8).numpy().data)
    return found.hexdigest()


def dump_checked_tensors(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> bytes:
    """Return tensors, and texts beside them, as the content of a safetensors file with their checksum."""
    here = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    return save(here, {**metadata, CHECKSUM: hash_tensors(here, metadata)})


def read_checked_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read tensors to the CPU, and the texts beside them, that `dump_checked_tensors` wrote.

    Raises:
        OSError: the file can't be read.
        ValueError, SafetensorError: it is damaged.
    """
    check_is_file(path)
    with safe_open(path, "pt") as file:
        metadata = dict(file.metadata() or {})
        tensors = {name: file.get_tensor(name) for name in sorted(file.keys())}
    if CHECKSUM not in metadata:
        raise ValueError("it has no checksum")
    if metadata.pop(CHECKSUM) != hash_tensors(tensors, metadata):
        raise ValueError("its checksum is another")
    return tensors, metadata
