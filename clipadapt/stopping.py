"""Requests to end the process, which a signal makes: they wait while a state is being changed.

Nothing here handles a signal: the command line does, and a program that embeds the package keeps its own handlers.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from signal import Signals


class Stopped(KeyboardInterrupt):
    """A signal has asked the process to end; the argument, if there is one, is a sentence on what is kept.

    Attributes:
        signal: the signal.
    """

    def __init__(self, number: Signals, *kept: str) -> None:
        super().__init__(*kept)
        self.signal = number


@dataclass
class _Request:
    """The request of this process.

    Attributes:
        signal: the signal that asked for it; None if there is none.
        changes: number of nested changes of a state that are under way.
    """

    signal: Signals | None = None
    changes: int = 0


_REQUEST = _Request()


def request_stop(number: int) -> None:
    """Ask the process to end: at once, or when the state that is being changed is whole again.

    Raises:
        Stopped: no state is being changed.
    """
    if _REQUEST.signal is None:  # a second signal must not cut short what the first one began
        _REQUEST.signal = Signals(number)
        raise_if_asked()


def asked_to_stop() -> Signals | None:
    """Return the signal that has asked the process to end, None if there is none."""
    return _REQUEST.signal


def forget_request() -> None:
    """Forget the request, so that the process can begin something else."""
    _REQUEST.signal = None


def raise_if_asked() -> None:
    """Raise Stopped if the process was asked to end and no state is being changed."""
    if _REQUEST.signal is not None and not _REQUEST.changes:
        raise Stopped(_REQUEST.signal)


@contextmanager
def whole_change() -> Iterator[None]:
    """Change a state as a whole: a request to end the process waits until the context is left.

    Raises:
        Stopped: on leaving, if the process was asked to end.
    """
    _REQUEST.changes += 1
    try:
        yield
    finally:
        _REQUEST.changes -= 1
    raise_if_asked()
