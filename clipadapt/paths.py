"""Paths and names that a user gives: what the system can take, read without waiting, and show as it is."""

import os
import re
import stat
from pathlib import Path
from typing import Annotated

from clipadapt.errors import UserError

LOCAL = "path that stays as it is"

LocalPath = Annotated[str, LOCAL]
"""A setting that may be a path, and isn't made absolute: a folder of the machine's, or a path below another folder."""

MAX_NAME, MAX_PATH = 255, 4_095
"""Bytes of a name and of a whole path on Linux and macOS."""


def why_unwritable(text: str) -> str | None:
    """Return why a text can't be written to a file of settings, and can't be a path; None if it can."""
    if "\0" in text:
        return "it holds the character \\0"
    try:
        text.encode()
    except UnicodeEncodeError:
        return "it isn't UTF-8"
    return None


DECEIVING = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
"""Control characters, ends of lines, and what changes the direction of the text that follows."""


def why_deceiving(name: str) -> str | None:
    """Return why a name isn't shown as it is in a terminal, a table or a page; None if it is."""
    found = DECEIVING.search(name)
    return f"it holds the invisible character U+{ord(found[0]):04X}" if found else why_unwritable(name)


def why_unusable(path: str) -> str | None:
    """Return why no system call takes a path, whatever there is on the disk; None if it can be taken."""
    if reason := why_unwritable(path):
        return reason
    whole = path.encode()
    names = [name for name in whole.split(b"/") if b"{" not in name]  # {a,b} stands for several names
    longest = max(map(len, names), default=0)
    if longest > MAX_NAME:
        return f"a name in it has {longest:,} bytes, and {MAX_NAME} are possible"
    if len(whole) > MAX_PATH:
        return f"it has {len(whole):,} bytes, and {MAX_PATH:,} are possible"
    if path.startswith("~") and os.path.expanduser(path) == path:
        return f"there is no user {path[1:].partition('/')[0]} with a home folder"
    return None


def checked_path(path: str | os.PathLike[str], called: str) -> Path:
    """Return a path that the user gave, with the home folder in place of `~`.

    Args:
        path: The path.
        called: What it is, for the message.

    Raises:
        UserError: It is no path, or one that the system can't take.
    """
    if not isinstance(path, str | os.PathLike):
        raise UserError(f"{called} must be a path, and it is of the type {type(path).__name__}")
    text = os.fspath(path)
    text = os.fsdecode(text) if isinstance(text, bytes) else text
    if reason := why_unusable(text.encode(errors="surrogateescape").decode(errors="replace")):
        raise UserError(f"{called} {shorten(text)} can't be a path: {reason}")
    return Path(text).expanduser()


def shorten(text: str, longest: int = 80) -> str:
    """Return a text for a message: unprintable characters escaped, and the middle of a long one left out."""
    shown = "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in text[: 2 * longest])
    if len(text) <= longest:
        return shown
    return f"{shown[: longest // 2]}… ({len(text):,} characters)"


def irregular(path: str | os.PathLike[str]) -> str | None:
    """Return what a path leads to if that is there and no regular file, such as "a folder"; else None.

    Opening anything but a regular file may wait for ever (a pipe) or never end (a device).
    """
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError):
        return None
    kinds = {
        "a folder": stat.S_ISDIR,
        "a pipe": stat.S_ISFIFO,
        "a socket": stat.S_ISSOCK,
        "a device": lambda mode: stat.S_ISCHR(mode) or stat.S_ISBLK(mode),
    }
    return next((kind for kind, matches in kinds.items() if matches(mode)), None)
