"""What a run says: before it starts, at its end, and in pictures."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.console import Console

from clipadapt.report import pictures as draw
from clipadapt.report import tables

if TYPE_CHECKING:
    from clipadapt.data import Task


def show_plan(console: Console, task: "Task", plan: Mapping[str, Any]) -> None:
    """Print the task and what will be computed."""
    console.print(tables.task_table(task))
    console.print(tables.plan_table(plan))


def show_result(console: Console, metrics: Mapping[str, Any]) -> None:
    """Print zero-shot against adapted, and what it took."""
    console.print(tables.per_class_table(metrics))
    console.print(tables.result_table(metrics))


def show_tests(console: Console, metrics: Mapping[str, Any]) -> None:
    """Print zero-shot against adapted on each test set."""
    console.print(tables.tests_table(metrics))


def pictures(
    metrics: Mapping[str, Any], history: Sequence[Mapping[str, float]], class_names: Sequence[str], folder: Path
) -> list[Path]:
    """Draw confusion matrix, per-class change and, where anything was fitted, learning curves into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    before, after = (
        np.array([metrics[key].get(name, math.nan) for name in class_names])
        for key in ("zero_shot_per_class", "per_class")
    )
    drawn = [
        draw.confusion_matrix(np.array(metrics["confusion"]), class_names, folder / "confusion.png"),
        draw.per_class_change(before, after, class_names, folder / "per_class.png"),
    ]
    if history:
        drawn.append(draw.learning_curve(history, folder / "learning.png"))
    return drawn
