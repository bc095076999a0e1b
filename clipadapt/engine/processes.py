"""Loss of one of several processes, as the others notice it: their next collective operation fails."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from clipadapt.errors import LostProcess


def is_lost_process(error: BaseException) -> bool:
    """Return whether an error means that another process of this job has ended or can't be reached."""
    if int(os.environ.get("WORLD_SIZE", "1")) < 2:
        return False
    # Gloo has no class of errors of its own: it names its source file.
    return isinstance(error, torch.distributed.DistError) or (isinstance(error, RuntimeError) and "gloo" in str(error))


@contextmanager
def as_lost_process(directory: Path) -> Iterator[None]:
    """Turn the failure of a collective operation into a LostProcess, which says how the run goes on.

    Args:
        directory: of the run.
    """
    try:
        yield
    except RuntimeError as error:
        if not is_lost_process(error):
            raise
        raise LostProcess(
            f"another process of this job has ended or can't be reached ({str(error).splitlines()[0]}): give the same "
            f"command again, which goes on from what {directory} holds"
        ) from error
