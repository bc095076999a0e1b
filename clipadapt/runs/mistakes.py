"""The mistakes of a finished run on its test images, with the images that it learned from that are nearest."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console

from clipadapt.data import Task
from clipadapt.data.tasks import UNLABELLED, image_names
from clipadapt.errors import DataError, UserError
from clipadapt.files import write_atomically
from clipadapt.report import progress as bars
from clipadapt.report.mistakes import (
    Mistake,
    Neighbour,
    in_order,
    mistakes_csv,
    mistakes_page,
    mistakes_table,
)
from clipadapt.runs.finished import FinishedRun
from clipadapt.runs.learned import trained_backbone
from clipadapt.runs.methods import usual_device
from clipadapt.runs.near_duplicates import ROWS, encode
from clipadapt.runs.reading import MISTAKES_CSV, MISTAKES_PAGE, RunReader

NEAREST = 3
"""Support images that are shown beside a mistake."""


def show_mistakes(directory: Path, console: Console, config_dir: str | Path | None = None) -> list[Mistake]:
    """Print the mistakes of a finished run, and write them to its directory as a page and as CSV.

    Args:
        directory: of the run.
        console: where to print.
        config_dir: a folder of the user's own with modules that the run may name.

    Raises:
        UserError: no finished run, one without test images or without classes, or data that have changed since.
    """
    if not RunReader(directory).result()["tests"]:
        raise UserError(
            f"{directory} has no test images, so that its mistakes aren't known: give the data a folder test"
        )
    run = FinishedRun(directory, config_dir)
    predictions = RunReader(directory).predictions()
    if not all(one["ranked"] for one in predictions.values()):
        raise UserError(f"{directory} answers with no classes, so that there are no confusions to show")
    task = tested_task(run, predictions, console)
    found = find_mistakes(predictions, task)
    with bars.images(console, len(found) + len(task.support), "compared", transient=True) as update:
        found = with_nearest(found, task, run, update)
    title = f"{run.config['method']['name']} on {run.record['task']}"
    write_atomically(directory / MISTAKES_CSV, mistakes_csv(found, task.words).encode("utf-8", "surrogateescape"))
    write_atomically(directory / MISTAKES_PAGE, mistakes_page(title, found, task.tests, task.support).html())
    if found:
        console.print(mistakes_table(found))
    return found


def tested_task(run: FinishedRun, predictions: Mapping[str, Any], console: Console) -> Task:
    """Return the task of a finished run, with its test sets.

    Raises:
        DataError: the images can't be read, or have changed since the run.
    """
    task = run.task(None, console)
    labels = {name: split.labels for name, split in task.tests.items()}
    if task.fingerprint != run.record["fingerprint"] or labels != {k: one["labels"] for k, one in predictions.items()}:
        raise DataError(
            f"the images of '{task.name}' have changed since the run, so that its mistakes can't be shown: compute it "
            "again with rerun=true"
        )
    return task


def find_mistakes(predictions: Mapping[str, Any], task: Task) -> list[Mistake]:
    """Return the mistakes on all test sets of a task, in order; predictions are those of its run."""
    found = []
    for test, one in predictions.items():
        classes, images = one["class_names"], image_names(task.tests[test])
        for index, (label, answer, ranked) in enumerate(zip(one["labels"], one["adapted"], one["ranked"], strict=True)):
            if label not in (answer, UNLABELLED):
                found.append(Mistake(test, index, images[index], classes[label], classes[answer], ranked[0][1]))
    return in_order(found)


def with_nearest(
    mistakes: Sequence[Mistake], task: Task, run: FinishedRun, update: Callable[[int], object]
) -> list[Mistake]:
    """Return mistakes with the support images whose frozen features have the largest cosine with theirs."""
    support = task.support
    if not mistakes or not len(support) or not support.labelled:
        return [*mistakes]
    clip = trained_backbone(run.directory, run.record, run.config)
    clip.to(usual_device())
    splits, names = {**task.tests, "": support}, image_names(support)
    learned, near = encode(clip, splits, [("", index) for index in range(len(support))], update)
    read, features = encode(clip, splits, [(one.test, one.index) for one in mistakes], update)
    found: dict[tuple[str, int], list[Neighbour]] = {}
    for first, part in enumerate(features.split(ROWS)):
        cosines, places = (part @ near.T).topk(min(NEAREST + 1, len(learned)), dim=-1)
        for row, pairs in enumerate(zip(places.tolist(), cosines.tolist(), strict=True)):
            tested = read[first * ROWS + row]
            indices = ((learned[place][1], cosine) for place, cosine in zip(*pairs, strict=True))
            found[tested] = [
                Neighbour(k, names[k], task.class_names[support.labels[k]], cosine)
                for k, cosine in indices
                if not is_same(task, *tested, k)
            ][:NEAREST]
    return [replace(one, nearest=found.get((one.test, one.index), ())) for one in mistakes]


def is_same(task: Task, test: str, index: int, k: int) -> bool:
    """Return whether a test image is the k-th support image: what learns nothing may be tested on the pool."""
    return task.tests[test] is task.pool and task.pool_indices[index] == task.support_indices[k]
