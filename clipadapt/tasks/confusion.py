"""What a confusion matrix says of each class, and how sure its figures are."""

from collections.abc import Sequence

import numpy as np

DRAWS, AT_ONCE = 1000, 100
"""Bootstrap samples of an interval, and how many are drawn at a time, to bound the memory."""
COVERED = (2.5, 97.5)
"""Percentiles between which a 95 % interval lies."""


def class_figures(confusion: np.ndarray, names: Sequence[str]) -> dict[str, dict[str, float]]:
    """Return precision, recall, F1 and the number of images of each class that has images.

    They are scikit-learn's `precision_recall_fscore_support` with `zero_division=0`.

    Args:
        confusion: numbers of images `[C, C]`, by class and prediction.
        names: of the C classes.
    """
    images, predicted, right = confusion.sum(axis=1), confusion.sum(axis=0), confusion.diagonal()
    return {
        name: {
            "precision": float(right[k] / max(1, predicted[k])),
            "recall": float(right[k] / images[k]),
            "f1": float(2 * right[k] / (images[k] + predicted[k])),
            "images": int(images[k]),
        }
        for k, name in enumerate(names)
        if images[k]
    }


def intervals(confusion: np.ndarray, seed: int = 0) -> dict[str, list[float]]:
    """Return 95 % intervals of accuracy, balanced accuracy and macro F1, by the percentiles of a bootstrap over images.

    Resampling images is drawing anew from the cells of the confusion matrix (Efron and Tibshirani, An Introduction to
    the Bootstrap, 1993, chapter 13).

    Args:
        confusion: numbers of images `[C, C]`, by class and prediction; at least one image.
        seed: of the samples.
    """
    rows, columns = confusion.nonzero()
    counts, stream = confusion[rows, columns], np.random.default_rng(seed)
    images = int(counts.sum())
    drawn = [stream.multinomial(images, counts / images, size=AT_ONCE) for _ in range(DRAWS // AT_ONCE)]
    found = np.concatenate([_figures(some, rows, columns) for some in drawn])
    low, high = np.percentile(found, COVERED, axis=0)
    names = ("accuracy", "balanced_accuracy", "macro_f1")
    return {name: [float(low[k]), float(high[k])] for k, name in enumerate(names)}


def _figures(counts: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Return accuracy, balanced accuracy and macro F1 `[S, 3]` of S samples of a confusion matrix's cells `[S, K]`."""
    right = np.where(rows == columns, counts, 0)
    own, hits = _sums(counts, rows), _sums(right, rows)
    classes = np.union1d(rows, columns)
    images, tp, predicted = (np.zeros((len(counts), len(classes))) for _ in range(3))
    places = np.searchsorted(classes, np.unique(rows))
    images[:, places], tp[:, places] = own, hits
    order = np.argsort(columns, kind="stable")
    predicted[:, np.searchsorted(classes, np.unique(columns))] = _sums(counts[:, order], columns[order])
    with np.errstate(invalid="ignore"):  # a class that a sample lacks is NaN, and doesn't count
        recall, f1 = tp / images, 2 * tp / (images + predicted)
    return np.stack(
        [right.sum(axis=1) / counts.sum(axis=1), np.nanmean(recall, axis=1), np.nanmean(f1, axis=1)], axis=1
    )


def _sums(counts: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Return the sums of cells `[S, K]` by their groups, which are sorted: `[S, number of groups]`."""
    starts = np.flatnonzero(np.r_[True, groups[1:] != groups[:-1]])
    return np.add.reduceat(counts, starts, axis=1)
