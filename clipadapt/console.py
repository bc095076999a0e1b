"""Terminal output of rank 0, and the exit codes of commands."""

import io
import os
import select
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TextIO

from rich.console import Console

from clipadapt.errors import LostProcess, UserError
from clipadapt.stopping import asked_to_stop

EXIT_USER_ERROR = 2
EXIT_INTERRUPTED = 130
EXIT_UNREAD = 141
"""What shells give for a command whose output nobody reads on: 128 and SIGPIPE."""


def is_main_process() -> bool:
    """Return whether this process is rank 0."""
    return rank() == 0


def rank() -> int:
    """Return the number of this process among those of its job, by the variables that torchrun sets."""
    text = os.environ.get("RANK", os.environ.get("LOCAL_RANK", "0"))
    return int(text) if text.isdigit() else 0


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
    """Run a command and return its exit code; errors that the user can fix, and signals, are told in one sentence."""
    escape_unprintable()
    if os.environ.get("MPLBACKEND", "").startswith("module://"):
        del os.environ["MPLBACKEND"]  # of a notebook; may not be installed here, and pictures need no backend
    try:
        with warnings.catch_warnings():
            warnings.showwarning = show_warning
            warnings.filterwarnings("ignore", "Image size .* decompression bomb")  # Pillow's: our error says more
            done = action()
            sys.stdout.flush()
            return done
    except BrokenPipeError:
        if is_read_on(sys.stdout):
            raise
        return EXIT_UNREAD
    except (Exception, KeyboardInterrupt) as error:
        code = tell_end(error)
        if code is None:
            raise
        return code


def is_read_on(stream: TextIO) -> bool:
    """Return whether what is written to a stream is still read, as it isn't by `head`; if not, it takes no more."""
    asked = select.poll()
    asked.register(stream.fileno(), 0)
    if not any(event & select.POLLERR for _, event in asked.poll(0)):
        return True
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())  # Python flushes it once more at its end
    return False


def tell_end(error: BaseException) -> int | None:
    """Write why a command has ended to stderr and return its exit code; None, and nothing, for a fault of ours."""
    number = asked_to_stop()
    if isinstance(error, KeyboardInterrupt) or number is not None:  # a request may come to light as another error
        kept = error.args[0] if isinstance(error, KeyboardInterrupt) and error.args else finished_work()
        by = f" by {number.name}" if number is not None else ""
        tell_survivor(f"\nStopped{by}. {kept}")
        return EXIT_INTERRUPTED if number is None else 128 + number
    if isinstance(error, LostProcess):
        tell_survivor(f"clipadapt: {error}")
        return EXIT_USER_ERROR
    if isinstance(error, UserError):
        print_error(f"clipadapt: {error}")
        return EXIT_USER_ERROR
    return None


def finished_work(place: str | Path | None = None) -> str:
    """Return the sentence on work that the same command goes on with; it is the argument of a KeyboardInterrupt."""
    where = "" if place is None else f" in {place}"
    return f"Finished work is kept{where}: run the same command again to continue."


def tell_survivor(message: str) -> None:
    """Write to stderr how a job ends, on ranks 0 and 1: either may be the process that was killed."""
    if is_main_process():
        print_error(message)
    elif rank() == 1:
        sys.stderr.write(f"process 1: {message.strip()}\n")
