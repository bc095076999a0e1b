"""Test sets that a finished run is evaluated on beside its own."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class EvaluationTarget:
    """A test set that isn't a run's own.

    Attributes:
        name: in tables.
        data: settings of the data; the run's own where None. Their first test set is taken.
        corruption: what makes of that a split of corrupted images; None for the images as they are.
        images: what stands for the data as they are now, as a task's; empty where they aren't there, or the run's own.
    """

    name: str
    data: Mapping[str, Any] | None = None
    corruption: Mapping[str, Any] | None = None
    images: str = ""
