"""What a confusion matrix says of each class, and how sure its figures are."""

import math
from collections.abc import Sequence
from statistics import NormalDist

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
    """Return 95 % intervals of accuracy (Wilson's), balanced accuracy and macro F1 (by a bootstrap over images).

    Resampling images is drawing anew from the cells of the confusion matrix (Efron and Tibshirani, An Introduction to
    the Bootstrap, 1993, chapter 13). Where all samples agree, as of images that are all answered rightly, they say
    nothing, and the figure has no interval.

    Args:
        confusion: numbers of images `[C, C]`, by class and prediction; at least one image.
        seed: of the samples.
    """
    rows, columns = confusion.nonzero()
    counts, stream = confusion[rows, columns], np.random.default_rng(seed)
    images = int(counts.sum())
    drawn = [stream.multinomial(images, counts / images, size=AT_ONCE) for _ in range(DRAWS // AT_ONCE)]
    found = np.concatenate([_figures(some, rows, columns) for some in drawn])
    ends = dict(zip(("balanced_accuracy", "macro_f1"), np.percentile(found, COVERED, axis=0).T.tolist(), strict=True))
    accuracy = wilson(int(confusion.trace()), images)
    return {"accuracy": accuracy} | {name: [low, high] for name, (low, high) in ends.items() if low < high}


def wilson(right: int, images: int) -> list[float]:
    """Return Wilson's 95 % interval of a share (JASA 1927, 22:209-212)."""
    z = NormalDist().inv_cdf(COVERED[1] / 100)
    share, spread = right / images, z * z / images
    middle, half = share + spread / 2, z * math.sqrt(share * (1 - share) / images + spread / images / 4)
    return [(middle - half) / (1 + spread), (middle + half) / (1 + spread)]


def _figures(counts: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Return balanced accuracy and macro F1 `[S, 2]` of S samples of a confusion matrix's cells `[S, K]`."""
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
    return np.stack([np.nanmean(recall, axis=1), np.nanmean(f1, axis=1)], axis=1)


def _sums(counts: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Return the sums of cells `[S, K]` by their groups, which are sorted: `[S, number of groups]`."""
    starts = np.flatnonzero(np.r_[True, groups[1:] != groups[:-1]])
    return np.add.reduceat(counts, starts, axis=1)
