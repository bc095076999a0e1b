"""Jobs of SLURM that submitit watches, on a cluster that keeps no accounts of finished jobs."""

import re
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from clipadapt.console import print_error
from clipadapt.errors import UserError

SECONDS = 10.0
"""Seconds between two questions about a job."""
NO_ACCOUNTS = "note: this SLURM keeps no accounts (sacct has none): the states of jobs are those that scontrol knows"


@contextmanager
def watched_jobs() -> Iterator[None]:
    """Let submitit ask `scontrol` for the states of jobs if `sacct` has none, and say so in one line.

    Without it submitit writes two warnings for every question that `sacct` can't answer, and waits for ever for the
    result of a job that ended without one.
    """
    if keeps_accounts():
        yield
        return
    print_error(NO_ACCOUNTS)
    from submitit import SlurmJob

    before = SlurmJob.watcher
    SlurmJob.watcher = make_watcher()
    try:
        yield
    finally:
        SlurmJob.watcher = before


def explain_job(error: Exception) -> Exception:
    """Return what to tell the user of a job that ended without a result; other errors unchanged."""
    if type(error).__name__ != "UncompletedJobError":  # submitit's, which may not be installed
        return error
    reason = " ".join(str(error).partition("Error stream")[0].split())
    return UserError(f"{reason}; finished runs are kept, and the same command goes on with the others")


def keeps_accounts() -> bool:
    """Return whether SLURM answers questions about finished jobs; also if there is no SLURM here."""
    try:
        return subprocess.run(["sacct", "--noheader", "--allocations"], capture_output=True).returncode == 0
    except OSError:
        return True


def job_state(job: str) -> str | None:
    """Return the state of a job by `scontrol`; None if it doesn't know the job (any more)."""
    asked = subprocess.run(["scontrol", "show", "job", "--oneliner", job], capture_output=True, text=True)
    found = re.search(r"\bJobState=(\w+)", asked.stdout)
    return found[1] if found else None


def make_watcher() -> Any:
    """Return a watcher of submitit's that asks `scontrol`."""
    from submitit.slurm.slurm import SlurmInfoWatcher

    class Watcher(SlurmInfoWatcher):
        def __init__(self) -> None:
            super().__init__()
            self.asked: dict[str, float] = {}
            self.states: dict[str, dict[str, str]] = {}

        def get_info(self, job_id: str, mode: str = "standard") -> dict[str, str]:
            due = mode == "force" or time.monotonic() - self.asked.get(job_id, -SECONDS) >= SECONDS
            if mode != "cache" and due:
                self.asked[job_id] = time.monotonic()
                if state := job_state(job_id):
                    self.states[job_id] = {"State": state}
            return self.states.get(job_id, {})

    return Watcher()
