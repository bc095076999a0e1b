"""Cross-validation within a support set: folds that hold out some images of every class."""

import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from clipadapt.data.tasks import Task

HELD_OUT = "held out"
"""Name of the test set that a fold's held-out images are."""

MOST_FOLDS = 4


def number_of_folds(labels: Sequence[int]) -> int:
    """Return the number of folds: that of the largest class's images, at most 4; 1 where no class has two images."""
    return min(MOST_FOLDS, max(Counter(labels).values(), default=1))


def stratified_folds(labels: Sequence[int], folds: int, seed: int) -> list[list[int]]:
    """Return the indices that each fold holds out, with each class spread evenly over the folds.

    Every image is held out once, but for the only image of a class, which is learned from in every fold.

    Args:
        labels: of the images.
        folds: their number, at least 2, and at most that of the largest class's images.
        seed: shuffles the images.
    """
    from sklearn.model_selection import StratifiedKFold

    counts = Counter(labels)
    shared = [index for index, label in enumerate(labels) if counts[label] > 1]
    split = StratifiedKFold(folds, shuffle=True, random_state=seed % 2**32)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The least populated class", UserWarning)  # its images are in some folds only
        held = [rows for _, rows in split.split(shared, [labels[index] for index in shared])]
    return [[shared[row] for row in rows] for rows in held]


def fold_task(task: Task, held: Sequence[int]) -> Task:
    """Return a task that learns from the support images that a fold doesn't hold out, and is tested on those it does.

    The number of shots stays, so that a method's settings by shots are those of the whole task.

    Args:
        task: the task; its test sets and its pool are left out, and its images are numbered as in its support set.
        held: indices into the support set.
    """
    out = {*held}
    kept = [index for index in range(len(task.support)) if index not in out]
    return replace(
        task,
        support=task.support.select(kept),
        support_indices=kept,
        tests={HELD_OUT: task.support.select(held)},
        test_indices=[],
        pool=None,
        pool_indices=[],
    )
