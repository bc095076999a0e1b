"""A run's output: the plan before it starts, and the results and pictures at its end."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.console import Console
from rich.table import Table
from rich.text import Text

from clipadapt.files import make_folder
from clipadapt.report import pictures as draw
from clipadapt.report import tables

WORSE = 1.1
"""Factor on a negative log likelihood from which on a note says that it is worse."""

if TYPE_CHECKING:
    from clipadapt.data import Task


def show_plan(
    console: Console, task: "Task", plan: Mapping[str, Any], pseudo_labels: Mapping[str, Any] | None = None
) -> None:
    """Print the task, with the pseudo-labels, and the plan of the run."""
    if console.quiet:
        return  # rich lays out what it doesn't print, too
    console.print(tables.task_table(task, pseudo_labels))
    console.print(tables.plan_table(plan))


UNMEASURED = "accuracy can't be measured"


def show_result(console: Console, metrics: Mapping[str, Any]) -> None:
    """Print the accuracies of zero-shot CLIP and the adapted one, if there is a test set, and the costs."""
    if console.quiet:
        return
    if not metrics["tests"]:
        measured = "cross-validation says below how well it does" if "cross_validation" in metrics else UNMEASURED
        console.print(f"There is no test set: {measured}.")
    _show_figures(console, metrics, tables.result_table(metrics))


def show_evaluation(console: Console, metrics: Mapping[str, Any]) -> None:
    """Print what `show_result` prints, of a finished run that is evaluated again: all but the costs."""
    if not console.quiet:
        _show_figures(console, metrics, tables.evaluation_table(metrics))


def _show_figures(console: Console, metrics: Mapping[str, Any], table: Table) -> None:
    """Print the accuracies of classes, the table of all figures, and what else is to be known of them."""
    if "per_class" in metrics:
        console.print(_with_schedule_note(tables.per_class_table(metrics), metrics))
    console.print(_with_schedule_note(table, metrics))
    if "cross_validation" in metrics:
        console.print(_with_schedule_note(tables.cross_validation_table(metrics["cross_validation"]), metrics))
    for note in filter(None, (metrics.get("test_note"), probabilities_note(metrics))):
        console.print(Text(f"note: {note}"), soft_wrap=True)


def probabilities_note(metrics: Mapping[str, Any]) -> str | None:
    """Return a note where a method is right as often as zero-shot CLIP or more, but its probabilities are worse."""
    likelihood = "negative_log_likelihood"
    if not metrics["tests"] or not {"accuracy", likelihood} <= {*metrics["figures"]}:
        return None
    before, after = metrics[f"zero_shot_{likelihood}"], metrics[likelihood]
    if metrics["accuracy"] < metrics["zero_shot_accuracy"] or not after > WORSE * before:
        return None
    return (
        "its answers are no worse than zero-shot CLIP's, but its probabilities are (negative log likelihood "
        f"{after:.3g}, zero-shot {before:.3g}): read its answers, and trust a high probability less"
    )


def _with_schedule_note(table: Table, metrics: Mapping[str, Any]) -> Table:
    table.title = tables.with_schedule_note(str(table.title), metrics["schedule_note"])
    return table


def draw_pictures(
    metrics: Mapping[str, Any], history: Sequence[Mapping[str, float]], class_names: Sequence[str], folder: Path
) -> list[Path]:
    """Draw the confusion matrix and per-class changes (with a test set) and the learning curve (after a fit)."""
    make_folder(folder)
    drawn = []
    if "confusion" in metrics:
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
