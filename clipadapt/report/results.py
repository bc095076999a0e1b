"""All results of all runs as one CSV table: a row per run and test set."""

from collections.abc import Iterable, Mapping
from typing import Any

from clipadapt.report.csv_rows import as_csv

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
    "test_note",
    "run",
]
"""Columns of the table; accuracies and calibration errors are fractions, `seconds` is the time of the whole run."""


def csv_text(rows: Iterable[Mapping[str, Any]]) -> str:
    """Return the rows as CSV."""
    return as_csv([COLUMNS, *([row[column] for column in COLUMNS] for row in rows)])
