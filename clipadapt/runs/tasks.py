"""The task of a run: built from settings, its images validated, and compared with the data as they are now."""

import json
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, cast

from rich.console import Console

from clipadapt import config as configuration
from clipadapt.data import Task, check, count_used_images, make_task, without_broken
from clipadapt.data.bands import Bands
from clipadapt.data.framing import Framing, crop_note
from clipadapt.data.tasks import Augment
from clipadapt.errors import DataError, UserError
from clipadapt.report import progress as bars
from clipadapt.runs.methods import build_kind


def build_task(config: Mapping[str, Any]) -> Task:
    """Build the task that composed settings describe.

    Raises:
        DataError: images that aren't there or can't be a task, or a task that was made by hand or packed.
    """
    node = config["data"]
    if "_target_" not in node:
        raise DataError(
            f"the settings don't say where the images of '{node['name']}' are, as it was made by hand or packed: name "
            "data"
        )
    source = configuration.build_source(config)
    kind = build_kind(config)
    how = config["task"]
    augment = augmentation(how["augment"])
    views = 0 if augment == "none" else how["views"]
    task = make_task(source, config["shots"], config["seed"], views, config["classes"], kind)
    task = replace(task, augment=augment, origin={"data": dict(node), "task": dict(how)})
    return framing(config).task(task)


def named_as_recorded(task: Task, record: Mapping[str, Any]) -> Task:
    """Return a task whose classes are called as in the record of a run on its data.

    Records without `words` are older: there, a class was called by its name for CLIP.
    """
    if "words" in record or not task.words:
        return task

    def first(names: Sequence[str]) -> list[str]:
        return [task.words.get(name, [name])[0] for name in names]

    tests = {
        name: replace(split, class_names=split.class_names and first(split.class_names))
        for name, split in task.tests.items()
    }
    return replace(task, class_names=first(task.class_names), words={}, tests=tests)


def augmentation(choice: str | Sequence[str]) -> Augment:
    """Return `task.augment` in one word: [mirror, crop] is "crop_mirror", an empty list "none"."""
    return cast(Augment, choice if isinstance(choice, str) else "_".join(sorted({*choice})) or "none")


def framing(config: Mapping[str, Any]) -> Framing:
    """Return how a run sees images.

    Raises:
        DataError: `task.pad_colour` is no colour, or `task.bands` or `task.value_range` can't be.
    """
    task = config["task"]
    chosen = [None if task[key] is None else tuple(task[key]) for key in ("bands", "value_range")]
    return Framing(task["resize"], task["pad_colour"], None if chosen == [None, None] else Bands(*chosen))


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

    A note says where the centre crop leaves out over half of most images.

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
            task = without_broken(task, pool, update)
        else:
            check(task, pool, update)
    if config["task"]["resize"] == "crop" and (note := crop_note(task.support)):
        warnings.warn(f"{task.name}: {note}", stacklevel=2)
    return task
