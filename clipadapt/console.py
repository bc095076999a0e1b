"""Terminal output of rank 0, and the exit codes of commands."""

import io
import os
import sys
import warnings
from collections.abc import Callable
from typing import TextIO

from rich.console import Console

from clipadapt.errors import UserError

EXIT_USER_ERROR = 2
EXIT_INTERRUPTED = 130


def is_main_process() -> bool:
    """Return whether this process is rank 0, by the variables that torchrun sets."""
    return os.environ.get("RANK", os.environ.get("LOCAL_RANK", "0")) == "0"


def make_console() -> Console:
    """Return a console that prints on rank 0 and is silent in the other processes."""
    return Console(quiet=not is_main_process(), markup=False, emoji=False)


def print_out(text: str) -> None:
    """Write a line to stdout, on rank 0 only."""
    if is_main_process():
        sys.stdout.write(f"{text}\n")


def print_error(message: str) -> None:
    """Write a message to stderr, on rank 0 only."""
    if is_main_process():
        sys.stderr.write(f"{message.rstrip()}\n")


def show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """Write a warning to stderr, without the line of code that it comes from."""
    print_error(f"note: {message}")


def escape_unprintable() -> None:
    """Make stdout and stderr write characters that their encoding lacks as escapes, such as bytes of a file's name."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def run_command(action: Callable[[], int]) -> int:
    """Run a command and return its exit code; a `UserError` is printed without a traceback."""
    escape_unprintable()
    try:
        with warnings.catch_warnings():
            warnings.showwarning = show_warning
            return action()
    except UserError as error:
        print_error(f"clipadapt: {error}")
        return EXIT_USER_ERROR
    except KeyboardInterrupt as stop:
        where = f" in {stop.args[0]}" if stop.args else ""
        print_error(f"\nStopped. Finished work is kept{where}: run the same command again to continue.")
        return EXIT_INTERRUPTED
