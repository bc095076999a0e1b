"""Signals that end a command: SIGTERM, as of `kill`, SLURM or torchrun, and SIGHUP, as of a terminal that is closed."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from clipadapt.stopping import forget_request, request_stop

ENDING = (signal.SIGTERM, signal.SIGHUP)


@contextmanager
def stop_on_signals() -> Iterator[None]:
    """Turn signals that end the process into a request to stop, while the context lasts.

    A signal that is ignored, as SIGHUP is below `nohup`, or that a program around this one handles, is left as it is.
    """
    own_process = os.getpid()

    def stop(number: int, frame: FrameType | None) -> None:
        if os.getpid() == own_process:
            request_stop(number)
        else:  # a worker process has inherited this handler
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)

    main_thread = threading.current_thread() is threading.main_thread()  # handlers can be set in no other
    replaced = [number for number in ENDING if main_thread and signal.getsignal(number) is signal.SIG_DFL]
    for number in replaced:
        signal.signal(number, stop)
    try:
        yield
    finally:
        for number in replaced:
            signal.signal(number, signal.SIG_DFL)
        forget_request()
