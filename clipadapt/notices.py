"""Messages about data, for the user: everything that `clipadapt.data` reports beside its results goes through here."""

import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import TypeVar

from rich.progress import Progress

from clipadapt.console import make_console, print_error

Item = TypeVar("Item")


def notice(text: str, category: type[UserWarning] = UserWarning, stacklevel: int = 2) -> None:
    """Warn of something in the data that doesn't stop a run; commands write it to stderr, callers may filter it.

    Args:
        text: The message.
        category: The class to filter it by.
        stacklevel: The frame it is attributed to, as for `warnings.warn`: 1 is the function that calls this one.
    """
    warnings.warn(text, category, stacklevel=stacklevel + 1)


def announce(text: str) -> None:
    """Write to stderr, on rank 0 only, what is about to take long."""
    print_error(text)


@contextmanager
def show_progress(description: str) -> Iterator[Callable[[list[Item]], Iterable[Item]]]:
    """Show progress on a terminal while the context lasts; yields a function to iterate over a list with."""
    console = make_console()
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        yield partial(progress.track, description=description)
