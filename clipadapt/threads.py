"""Number of threads of a computation: the cores that the process was given, and one thread where more gain nothing.

PyTorch's threads wait for each other for milliseconds without sleeping, so that a process with more threads than free
cores slows itself and all others down: two runs at once with two threads each, on two cores, take 30 times as long with
`tiny`, and 17 times with ViT-B/32. So small backbones have one thread, and the command line lets threads wait shorter.
"""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

CHOSEN = "OMP_NUM_THREADS"
"""Variable with the user's own choice, which is left as it is."""

SLURM = ("SLURM_CPUS_PER_TASK", "SLURM_CPUS_ON_NODE")
"""Variables of SLURM with a number of cores; the first one that is set counts."""

LOCAL_PROCESSES = "LOCAL_WORLD_SIZE"
"""Variable of torchrun and Accelerate: the number of processes of one run on this machine."""

SHARE = "LOKY_MAX_CPU_COUNT"
"""Variable of joblib: the most cores that a process and its children may use."""

SPIN_COUNT, WAIT_POLICY = "GOMP_SPINCOUNT", "OMP_WAIT_POLICY"
"""Variables of GNU's OpenMP, which PyTorch has on Linux: how long its threads wait for each other without sleeping."""

SHORT = "1000"
"""Turns of waiting, some ten microseconds, in place of the usual 300,000; benchmarks/README.md has the figures."""

SMALL = 20_000_000
"""Number of parameters of a backbone below which one thread is used; benchmarks/README.md has the figures."""


def shorten_waits() -> None:
    """Let PyTorch's threads sleep soon when they wait for each other, unless the user has chosen how they wait.

    OpenMP reads this once, when PyTorch is imported. It is for programs of our own: in a program that embeds clipadapt
    it would change how everything else computes.
    """
    if WAIT_POLICY not in os.environ:
        os.environ.setdefault(SPIN_COUNT, SHORT)


def count_cores() -> int:
    """Return the number of cores that this process may use.

    The least of the machine's cores, the process's affinity, its container's quota, a share from `shared_cores`, and
    the cores of a job of SLURM, divided by the number of processes of one run on this machine.
    """
    import joblib  # a fifth of a second, which `clipadapt --help` doesn't need

    given = [int(os.environ[name]) for name in SLURM if os.environ.get(name, "").isdecimal()]
    return max(1, min([joblib.cpu_count(), *given[:1]]) // int(os.environ.get(LOCAL_PROCESSES, "1")))


@contextmanager
def shared_cores(processes: int) -> Iterator[None]:
    """Give each of several processes that this one starts an equal share of its cores, at least one.

    Args:
        processes: the number of processes at work at once.
    """
    before = os.environ.get(SHARE)
    os.environ[SHARE] = str(max(1, count_cores() // processes))
    try:
        yield
    finally:
        if before is None:
            del os.environ[SHARE]
        else:
            os.environ[SHARE] = before


def count_threads(parameters: int) -> int:
    """Return the number of threads for a backbone with a number of parameters."""
    return 1 if parameters < SMALL else count_cores()


class _Limit:
    """The limit on PyTorch's threads that computations of this process have in common.

    PyTorch's number of threads belongs partly to the process and partly to the thread that sets it. So the number from
    before is remembered by the first computation that begins, and every one restores it in its own thread at its end.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._computations = 0
        self._before = 1

    def begin(self, threads: int) -> None:
        import torch

        with self._lock:
            if not self._computations:
                self._before = torch.get_num_threads()
            self._computations += 1
            torch.set_num_threads(min(self._before, threads))

    def end(self) -> None:
        import torch

        with self._lock:
            self._computations -= 1
            torch.set_num_threads(self._before)


_limit = _Limit()


@contextmanager
def limited_threads(parameters: int) -> Iterator[None]:
    """Compute with a backbone in the threads that it may have; afterwards, PyTorch has as many as before.

    Never more threads than PyTorch has already, and all of them if the user has set OMP_NUM_THREADS.

    Args:
        parameters: the number of parameters of the backbone.
    """
    if CHOSEN in os.environ:
        yield
        return
    _limit.begin(count_threads(parameters))
    try:
        yield
    finally:
        _limit.end()
