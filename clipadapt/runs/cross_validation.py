"""Cross-validated figures of a run: its method fitted to folds of the support set, on the images that each leaves."""

import time
import warnings
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

from clipadapt.data.tasks import Task
from clipadapt.errors import SettingsError
from clipadapt.runs.folds import HELD_OUT, fold_task, stratified_folds
from clipadapt.tasks import task_kind


def check_cross_validation(folds: int, task: Task, config: Mapping[str, Any]) -> None:
    """Check that a run can be cross-validated, before anything is fitted.

    Raises:
        SettingsError: the run starts from another one, its labels are guessed, its targets aren't classes, or there are
            more folds than images of a class.
    """
    given, labels = f"engine.cross_validate={folds}", task.support.labels
    if config["from"] is not None:
        raise SettingsError(f"{given} can't hold out what from={config['from']} may have learned: leave one out")
    if config["method"]["pseudo_labels"] is not None or not labels:
        raise SettingsError(f"{given} needs images with labels of their own to learn from: leave it out")
    if not all(isinstance(label, int) for label in labels):
        raise SettingsError(f"{given} is for classes, and this kind of task has other targets: leave it out")
    most = max(Counter(labels).values())
    if most < folds:
        better = f"take engine.cross_validate={most}" if most > 1 else "give more images, or leave it out"
        raise SettingsError(f"{given} needs as many images of a class, and none has more than {most}: {better}")


def cross_validate(folds: int, task: Task, fit: Callable[[Task], Mapping[str, Any]]) -> dict[str, Any]:
    """Return the figures of a method on the images of the support set, each answered by a fit that hasn't seen it.

    Args:
        folds: their number.
        task: the task; its test sets aren't read.
        fit: fits the method to a task, and returns its metrics.

    Returns:
        `folds`, the number of `images` that were held out, `figures` as of a run's metrics, the `scores` by their
        names, which are means over the folds weighted by their images, and the `seconds` it took.
    """
    began, labels = time.monotonic(), task.support.labels
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the run itself has said the same
        found = [fit(fold_task(task, held)) for held in stratified_folds(labels, folds, task.seed)]
    figures, tests = found[0]["figures"], [one["tests"][HELD_OUT] for one in found]
    leads, images = task_kind(task).leading_figure(labels), [one["images"] for one in tests]
    names = [name for name in dict.fromkeys([leads, *figures]) if all(name in one for one in tests)]
    return {
        "folds": folds,
        "images": int(sum(images)),
        "figures": {name: figures[name] for name in names},
        "scores": {
            key: sum(one[key] * count for one, count in zip(tests, images, strict=True)) / sum(images)
            for name in names
            for key in (name, f"zero_shot_{name}")
        },
        "seconds": time.monotonic() - began,
    }
