"""Further test sets that a finished run is evaluated on."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class EvaluationTarget:
    """A test set beside the run's own: other data, or corrupted images.

    Attributes:
        name: shown in tables.
        data: settings below `data`, of which the first test set is taken; the run's own data if None.
        corruption: node of the function that corrupts the images; None for the images as they are.
        fingerprint: current fingerprint of the other data; empty if they aren't there, or for the run's own data.
    """

    name: str
    data: Mapping[str, Any] | None = None
    corruption: Mapping[str, Any] | None = None
    fingerprint: str = ""
