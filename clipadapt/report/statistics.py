"""Statistics over seeds: means, confidence intervals and harmonic means."""

import math
from collections.abc import Mapping, Sequence
from typing import TypedDict

CONFIDENCE = 0.95
BASE, NEW, HARMONIC = "base", "new", "H"


class Score(TypedDict):
    """An accuracy over seeds, and zero-shot CLIP's on the same images; `values` has each seed's accuracy."""

    accuracy: float
    interval: float | None
    zero_shot_accuracy: float
    values: list[float]


def mean_interval(values: Sequence[float]) -> tuple[float, float | None]:
    """Return the mean of one value per seed, and half the width of its 95 % confidence interval.

    The interval is Student's t with one degree of freedom less than there are values, since the spread of few seeds is
    estimated from them. The interval of a single value is None.

    Raises:
        ValueError: there are no values.
    """
    if not values:
        raise ValueError("the mean of no values is not defined")
    mean = math.fsum(values) / len(values)
    if len(values) == 1:
        return mean, None
    from scipy.special import stdtrit

    freedom = len(values) - 1
    variance = math.fsum((value - mean) ** 2 for value in values) / freedom
    quantile = float(stdtrit(freedom, (1 + CONFIDENCE) / 2))
    return mean, quantile * math.sqrt(variance / len(values))


def aggregate_scores(tests: Sequence[Mapping[str, Mapping[str, float]]]) -> dict[str, Score]:
    """Return the scores on each test set over seeds, and the harmonic mean of each seed's on base and new classes.

    A test set that lacks figures of some seeds has no score.
    """
    scores = {}
    for name in tests[0] if tests else ():
        if all(name in one for one in tests):
            scores[name] = average_over_seeds([one[name] for one in tests])
    if {BASE, NEW} <= {*scores}:
        scores[HARMONIC] = average_over_seeds([harmonic(one[BASE], one[NEW]) for one in tests])
    return scores


def average_over_seeds(figures: Sequence[Mapping[str, float]]) -> Score:
    """Return the score of several seeds' figures on one test set."""
    values = [one["accuracy"] for one in figures]
    mean, interval = mean_interval(values)
    zero_shot, _ = mean_interval([one["zero_shot_accuracy"] for one in figures])
    return {"accuracy": mean, "interval": interval, "zero_shot_accuracy": zero_shot, "values": values}


def average_over_tests(scores: Sequence[Score]) -> Score:
    """Return the score averaged over test sets for each seed, then over seeds, which are the same for all test sets."""
    values = [math.fsum(some) / len(some) for some in zip(*(score["values"] for score in scores), strict=True)]
    mean, interval = mean_interval(values)
    zero_shot, _ = mean_interval([score["zero_shot_accuracy"] for score in scores])
    return {"accuracy": mean, "interval": interval, "zero_shot_accuracy": zero_shot, "values": values}


def average_over_data(scores: Sequence[Mapping[str, Score]]) -> dict[str, Score]:
    """Return averages over data sets: on base and new classes with their harmonic mean, or on the first test sets.

    As in the papers' tables, the harmonic mean is that of the averages.
    """
    if not all(HARMONIC in one for one in scores):
        return {"test": average_over_tests([next(iter(one.values())) for one in scores])}
    base, new = (average_over_tests([one[name] for one in scores]) for name in (BASE, NEW))
    pairs = [
        harmonic(*({"accuracy": x, "zero_shot_accuracy": y["zero_shot_accuracy"]} for x, y in ((b, base), (n, new))))
        for b, n in zip(base["values"], new["values"], strict=True)
    ]
    return {BASE: base, NEW: new, HARMONIC: average_over_seeds(pairs)}


def harmonic(base: Mapping[str, float], new: Mapping[str, float]) -> dict[str, float]:
    """Return the harmonic means of the accuracies on base and new classes."""
    keys = ("accuracy", "zero_shot_accuracy")
    return {key: 2 * base[key] * new[key] / (base[key] + new[key]) if base[key] and new[key] else 0.0 for key in keys}
