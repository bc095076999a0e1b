"""The task that a finished run learned from, if its images are still where they were."""

from pathlib import Path

from clipadapt import config as configuration
from clipadapt.data import Task
from clipadapt.data.network import cache_only
from clipadapt.errors import DataError
from clipadapt.runs.directory import CONFIG
from clipadapt.runs.result import read_result
from clipadapt.runs.tasks import build_task


def learned_task(directory: Path, config_dir: str | Path | None = None) -> Task:
    """Return the task of a finished run; nothing is downloaded for it.

    Args:
        directory: of the run.
        config_dir: a folder of the user's own with modules that the run may name.

    Raises:
        DataError: its images can't be read, or have changed since.
        UserError: no finished run is there.
    """
    result = read_result(directory)
    config = configuration.saved_settings(result.config, directory / CONFIG, config_dir)
    with cache_only():
        task = build_task({**config, "data": configuration.with_local_home({**config, "config_dir": config_dir})})
    if task.fingerprint != result.record["fingerprint"]:
        raise DataError(f"the images of '{task.name}' have changed since the run")
    return task
