"""Labels as scikit-learn's users have them: sorted classes, the words that CLIP reads, weights, held-out images."""

from collections import Counter
from collections.abc import Mapping
from itertools import chain
from typing import Any

import numpy as np
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_array, column_or_1d

from clipadapt.data.class_words import as_names
from clipadapt.errors import InputError, join_names

SHOWN = 5
MOST_HELD_OUT = 4
"""Images of a class that a method's own choice is made on, as `load_task` draws them."""


def counted_labels(y: Any, sample_weight: Any, count: int) -> tuple[np.ndarray, np.ndarray, list[float] | None]:
    """Return which of `count` images have a weight other than 0, their labels, and their weights, None for none.

    Raises:
        ValueError: labels or weights are missing or too many, labels are numbers that aren't classes, or weights can't
            be used.
    """
    if y is None:
        raise InputError("requires y to be passed, but the target y is None")
    labels = column_or_1d(check_array(y, ensure_2d=False, dtype=None, input_name="y"), warn=True)
    if len(labels) != count:
        raise InputError(f"X has {count} images, and y has {len(labels)} labels: give one for each image")
    check_classification_targets(labels)
    if sample_weight is None:
        return np.arange(count), labels, None
    weights = checked_weights(sample_weight, count)
    kept = np.flatnonzero(weights)
    return kept, labels[kept], weights[kept].tolist()


def sorted_classes(labels: np.ndarray) -> tuple[np.ndarray, list[int]]:
    """Return the labels that there are, sorted, and the index of each image's label among them; raises InputError."""
    classes, indices = np.unique(labels, return_inverse=True)
    if len(classes) < 2:
        raise InputError(f"y has one class, {classes[0]}, and a classifier learns to tell two or more apart")
    return classes, indices.tolist()


def names_for_clip(classes: np.ndarray, class_names: Mapping[Any, Any] | None) -> dict[str, list[str]]:
    """Return the names for CLIP of each label, by the first of them: those of `class_names`, or a label that is text.

    Raises:
        InputError: a label has no name, or two labels have the same.
    """
    given = {} if class_names is None else class_names
    if not isinstance(given, Mapping):
        raise InputError(
            f"class_names must say which label has which name, as {{0: 'cat', 1: ['dog', 'puppy']}}, and is {given!r}"
        )
    labels = classes.tolist()
    missing = [str(label) for label in labels if not isinstance(given.get(label, label), str | list | tuple)]
    if missing:
        raise InputError(
            f"CLIP reads the names of classes, and labels without words are in y: {join_names(missing, SHOWN)}; give "
            f"them as class_names={{{missing[0]}: 'the words', …}}"
        )
    names = [as_names(str(label), given.get(label, label)) for label in labels]
    twice = [name for name, count in Counter(chain.from_iterable(names)).items() if count > 1]
    if twice:
        raise InputError(f"two labels of class_names have the same words, '{twice[0]}', which CLIP can't tell apart")
    return {some[0]: some for some in names}


def checked_weights(sample_weight: Any, count: int) -> np.ndarray:
    """Return the weights `[N]` of `count` images.

    Raises:
        InputError: they are no list of as many numbers that are finite, not negative and not all zero.
    """
    weights = np.asarray(sample_weight, dtype=np.float64)
    if weights.shape != (count,):
        raise InputError(f"sample_weight must be a list of {count} numbers, and its shape is {weights.shape}")
    if not np.isfinite(weights).all() or (weights < 0).any():
        raise InputError("sample_weight must hold finite numbers that aren't negative")
    if not weights.any():
        raise InputError("Sample weights must contain at least one non-zero number: all of sample_weight are zero")
    return weights


def hold_out(labels: list[int], count: int, seed: int) -> tuple[list[int], list[int]]:
    """Return the indices to learn from and those held out: up to `count` of each class, and at most half of it."""
    drawn = np.random.default_rng(seed)
    members = {label: [place for place, one in enumerate(labels) if one == label] for label in sorted({*labels})}
    held = {
        int(place)
        for own in members.values()
        for place in drawn.choice(own, size=min(count, len(own) // 2), replace=False)
    }
    return [place for place in range(len(labels)) if place not in held], sorted(held)


def check_held_out(count: int | None) -> int | None:
    """Return `validation_images` after a check that it is None or a whole number of at least 0.

    Raises:
        InputError: it isn't.
    """
    if count is not None and (not isinstance(count, int) or count < 0):
        raise InputError(f"validation_images={count!r} does not fit: it must be a whole number, or None")
    return count
