"""What several seeds say together."""

import math
from collections.abc import Sequence

CONFIDENCE = 0.95


def mean_interval(values: Sequence[float]) -> tuple[float, float | None]:
    """The mean of one value per seed, and half the width of its 95 % confidence interval.

    The interval is Student's t with one degree of freedom less than there are values: the seeds are few and their
    spread is estimated from them. One value has no spread, so its interval is None.

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
