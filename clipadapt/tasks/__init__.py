"""Kinds of task, such as classification: targets, heads and metrics."""

from clipadapt.data.tasks import Task
from clipadapt.tasks.base import Evaluation, Head, Measure, TaskKind
from clipadapt.tasks.classification import Classification, Classifier, zero_shot_classifier

__all__ = [
    "Classification",
    "Classifier",
    "Evaluation",
    "Head",
    "Measure",
    "TaskKind",
    "task_kind",
    "zero_shot_classifier",
]


def task_kind(task: Task) -> TaskKind:
    """Return a task's kind; classification if the task names none."""
    return task.kind if isinstance(task.kind, TaskKind) else Classification()
