"""The task of a run: built from settings, its images validated, and compared with the data as they are now."""

import json
import warnings
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from rich.console import Console

from clipadapt import config as configuration
from clipadapt.data import Task, check, count_used_images, make_task, without_broken
from clipadapt.errors import DataError, UserError
from clipadapt.report import progress as bars
from clipadapt.runs.methods import build_kind


def build_task(config: Mapping[str, Any]) -> Task:
    """Build the task that composed settings describe.

    Raises:
        DataError: images that aren't there or can't be a task, or a task that was made by hand.
    """
    node = config["data"]
    if "_target_" not in node:
        raise DataError(f"the task '{node['name']}' was made by hand and can't be loaded again: say which data to use")
    source = configuration.build_source(config)
    kind = build_kind(config)
    task = make_task(source, config["shots"], config["seed"], config["task"]["views"], config["classes"], kind)
    return replace(task, origin={"data": dict(node), "task": dict(config["task"])})


def data_change_note(
    config: Mapping[str, Any], record: Mapping[str, Any], fingerprint: Callable[[str], str] | None = None
) -> str | None:
    """Return a note if the data changed since a finished run, else None.

    Args:
        config: the run's settings.
        record: as of its `Result`.
        fingerprint: returns the fingerprint of the task of settings in JSON; `current_fingerprint` if None.
    """
    keys = ("kind", "data", "task", "shots", "seed", "classes", "allowed_targets")
    try:
        now = (fingerprint or current_fingerprint)(json.dumps({key: config[key] for key in keys}, sort_keys=True))
    except UserError as error:
        return f"it can't be told whether the data have changed since this run was finished: {error}"
    same = now == record["fingerprint"]
    return None if same else "the data have changed since this run was finished: rerun=true computes it again"


def current_fingerprint(settings: str) -> str:
    """Return the fingerprint of a task's data as they are now; raises what `build_task` does.

    Args:
        settings: of the task, in JSON.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # shown when the run was made
        return build_task(json.loads(settings)).fingerprint


def validated_images(task: Task, config: Mapping[str, Any], console: Console | None = None) -> Task:
    """Check every image that a run will read, or drop the broken ones if `task.skip_broken` is set.

    Args:
        task: the task.
        config: the run's settings.
        console: shows the progress; None shows nothing.

    Raises:
        DataError: images that can't be read: any without `task.skip_broken`, all of a class or a test set with it.
    """
    pool = config["method"]["pseudo_labels"] is not None
    with bars.images(
        console or Console(quiet=True), count_used_images(task, pool), "checked", transient=True
    ) as update:
        if config["task"]["skip_broken"]:
            return without_broken(task, pool, update)
        check(task, pool, update)
    return task
