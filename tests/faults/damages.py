"""Damages of a file, by name."""

import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path


def flip_bit(path: Path, place: float, bit: int = 0) -> None:
    """Flip a bit of the byte at a place between 0 and 1."""
    content = bytearray(path.read_bytes())
    content[round(place * (len(content) - 1))] ^= 1 << bit
    path.write_bytes(content)


def cut(path: Path, share: float) -> None:
    """Leave a share of a file's bytes."""
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])


def double(path: Path) -> None:
    """Write a file's content twice."""
    path.write_bytes(2 * path.read_bytes())


def fill_with_zeros(path: Path) -> None:
    """Write zeros in place of a file's content, as some file systems do after a power loss."""
    path.write_bytes(bytes(path.stat().st_size))


def put_folder(path: Path) -> None:
    """Put a folder in a file's place."""
    path.unlink()
    path.mkdir()
    (path / "inside").touch()


PLACES = {"first": 0.0, "early": 0.1, "middle": 0.5, "late": 0.9, "last": 1.0}
FLIPS = {
    f"{name} bit {bit}": partial(flip_bit, place=place, bit=bit) for name, place in PLACES.items() for bit in (0, 5)
}
DAMAGES: dict[str, Callable[[Path], None]] = {
    **FLIPS,
    "half": partial(cut, share=0.5),
    "a byte short": lambda path: path.write_bytes(path.read_bytes()[:-1]),
    "emptied": partial(cut, share=0),
    "doubled": double,
    "zeros": fill_with_zeros,
    "gone": Path.unlink,
    "a folder": put_folder,
    "a dangling link": lambda path: (path.unlink(), path.symlink_to("nowhere"))[0],
}


def copy_run(run: Path, place: Path) -> Path:
    """Return a fresh copy of a run in a place."""
    shutil.rmtree(place, ignore_errors=True)
    shutil.copytree(run, place)
    return place
