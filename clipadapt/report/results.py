"""What every run measured on every test set, as one table of plain numbers."""

import csv
import io
from collections.abc import Iterable, Mapping
from typing import Any

COLUMNS = [
    "backbone",
    "data",
    "method",
    "shots",
    "seed",
    "classes",
    "test_set",
    "accuracy",
    "zero_shot_accuracy",
    "calibration_error",
    "zero_shot_calibration_error",
    "images",
    "parameters",
    "seconds",
    "peak_memory_mb",
    "selection",
    "schedule_note",
    "run",
]
"""Of a run on one of its test sets; accuracies and calibration errors are fractions, `seconds` of the whole run."""


def csv_text(rows: Iterable[Mapping[str, Any]]) -> str:
    """The rows as CSV."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
