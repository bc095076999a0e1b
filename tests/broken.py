"""Image files as they break, for tests."""

import os
import struct
import zlib
from pathlib import Path

from PIL import Image


def noise(path: Path) -> Path:
    """A sound image file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.effect_noise((40, 32), 90).convert("RGB").save(path)
    return path


def bomb(path: Path, side: int = 60_000) -> None:
    """A PNG of a few bytes that claims to be a large square."""
    header = b"IHDR" + struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header)))


def cut(path: Path) -> None:
    """An image file of which the second half is missing."""
    noise(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def wrong_magic(path: Path) -> None:
    """An image file with other first bytes."""
    noise(path)
    path.write_bytes(b"XXXX" + path.read_bytes()[4:])


def locked(path: Path) -> None:
    """An image file that may not be read, but by root."""
    noise(path).chmod(0)


def zeros(path: Path) -> None:
    """A file as long as an image that holds zeros."""
    noise(path)
    path.write_bytes(bytes(path.stat().st_size))


def thin(path: Path) -> None:
    """A sound image that would fill the memory if its short side were resized to what a backbone reads."""
    Image.new("RGB", (60_000, 1)).save(path)


def numbers(path: Path) -> None:
    """A sound image whose pixels are fractions of unknown range."""
    Image.new("F", (40, 32)).save(path)


def pipe(path: Path) -> None:
    """A named pipe, which whoever opens it waits at."""
    os.mkfifo(path)


BROKEN = {
    "empty.jpg": lambda path: path.touch(),
    "truncated.jpg": cut,
    "truncated.png": cut,
    "text.jpg": lambda path: path.write_text("see notes.txt"),
    "page.jpg": lambda path: path.write_text("<!DOCTYPE html><title>404 Not Found</title>"),
    "zeros.png": zeros,
    "bomb.png": bomb,
    "gone.jpg": lambda path: path.symlink_to("nowhere.jpg"),
    "magic.png": wrong_magic,
    "thin.png": thin,
    "numbers.tiff": numbers,
    "pipe.png": pipe,
    "device.png": lambda path: path.symlink_to("/dev/zero"),
    **({} if os.geteuid() == 0 else {"locked.jpg": locked}),
}
"""Makers of files that can't be read, by name."""


def break_in(folder: Path) -> list[Path]:
    """Make one of each in a folder, beside a folder named like an image, which is none; the files' paths."""
    for name, make in BROKEN.items():
        make(folder / name)
    (folder / "folder.jpg").mkdir()
    return [folder / name for name in BROKEN]
