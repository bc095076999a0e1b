"""What a command says: problems in one piece on stderr, from the first process only."""

import os
import sys
import warnings
from collections.abc import Callable
from typing import TextIO

from rich.console import Console

from clipadapt.errors import UserError

MENDABLE = 2
INTERRUPTED = 130


def first_process() -> bool:
    """Whether this process speaks for all of a run's (torchrun numbers them)."""
    return os.environ.get("RANK", os.environ.get("LOCAL_RANK", "0")) == "0"


def make_console() -> Console:
    """Where the first process prints; silent in the others."""
    return Console(quiet=not first_process())


def print_out(text: str) -> None:
    """Write to stdout, from the first process only."""
    if first_process():
        sys.stdout.write(f"{text}\n")


def print_error(message: str) -> None:
    """Tell the user on stderr."""
    if first_process():
        sys.stderr.write(f"{message.rstrip()}\n")


def show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """Tell a warning on stderr; which line of code it comes from says nothing to a user."""
    print_error(f"note: {message}")


def run_command(action: Callable[[], int]) -> int:
    """Run a command; its exit code, with a user's mistakes told without a traceback."""
    try:
        with warnings.catch_warnings():
            warnings.showwarning = show_warning
            return action()
    except UserError as error:
        print_error(f"clipadapt: {error}")
        return MENDABLE
    except KeyboardInterrupt as stop:
        where = f"in {stop.args[0]}" if stop.args else "kept"
        print_error(f"\nStopped. What was finished is {where}; the same command goes on from there.")
        return INTERRUPTED
