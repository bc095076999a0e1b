"""Classes that compete when a run is evaluated on other data: those of the data, or all of the run's."""

from dataclasses import replace
from typing import Any, Literal, get_args

from clipadapt.data.tasks import UNLABELLED, Task
from clipadapt.errors import DataError, SettingsError, join_names, nearest

Competing = Literal["data", "run"]

SHOWN = 5
"""Names of classes in a sentence."""


def check_competing(classes: Any) -> Competing:
    """Return the choice of competing classes after a check; raises SettingsError for another than "data" and "run"."""
    if classes not in get_args(Competing):
        raise SettingsError(f"classes={classes!r} does not fit: data or run says which classes compete on other data")
    chosen: Competing = classes
    return chosen


def among_classes(task: Task, class_names: list[str], templates: list[str], words: dict[str, list[str]]) -> Task:
    """Return a task's test sets with all of a run's classes competing.

    Raises:
        DataError: the task has classes that the run lacks.
    """
    tests = {}
    for name, split in task.tests.items():
        own = split.class_names or task.class_names
        if lacking := [class_name for class_name in own if class_name not in class_names]:
            raise DataError(
                f"the run doesn't know {join_names(lacking, SHOWN)} of '{task.name}', so they can't be tested among "
                f"its classes: {nearest(lacking[0], class_names)}"
            )
        places = [class_names.index(class_name) for class_name in own]
        labels = [places[label] if label != UNLABELLED else label for label in split.labels]
        tests[name] = replace(split, labels=labels, class_names=None)
    return replace(task, class_names=class_names, templates=templates, words=words, tests=tests)
