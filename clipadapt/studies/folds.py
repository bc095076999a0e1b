"""Cross-validation within a support set: folds that hold out some images of every class."""

import random
from collections.abc import Sequence
from dataclasses import replace

from clipadapt.data.tasks import Task

HELD_OUT = "held out"
"""Name of the test set that a fold's held-out images are."""

MOST_FOLDS = 4


def number_of_folds(labels: Sequence[int]) -> int:
    """Return the number of folds: that of the largest class's images, at most 4; 1 where no class has two images."""
    return min(MOST_FOLDS, max(map(labels.count, {*labels}), default=1))


def stratified_folds(labels: Sequence[int], folds: int, seed: int) -> list[list[int]]:
    """Return the indices that each fold holds out, with each class spread evenly over the folds.

    Every image is held out once, but for the only image of a class, which is learned from in every fold. Classes start
    at different folds, so that the folds are of nearly equal size.

    Args:
        labels: of the images.
        folds: their number, at least 2.
        seed: shuffles the images of each class.
    """
    stream, held = random.Random(seed), [list[int]() for _ in range(folds)]
    start = 0
    for label in dict.fromkeys(labels):
        members = [index for index, own in enumerate(labels) if own == label]
        if len(members) == 1:
            continue
        stream.shuffle(members)
        for place, index in enumerate(members):
            held[(start + place) % folds].append(index)
        start += len(members)
    return [sorted(some) for some in held]


def fold_task(task: Task, held: Sequence[int]) -> Task:
    """Return a task that learns from the support images that a fold doesn't hold out, and is tested on those it does.

    The number of shots stays, so that a method's settings by shots are those of the whole task.

    Args:
        task: the task; its test sets, its pool and the places of its images there are left out.
        held: indices into the support set.
    """
    out = {*held}
    kept = [index for index in range(len(task.support)) if index not in out]
    return replace(
        task,
        support=task.support.select(kept),
        support_indices=[],
        tests={HELD_OUT: task.support.select(held)},
        test_indices=[],
        pool=None,
        pool_indices=[],
    )
