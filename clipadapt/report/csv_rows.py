"""CSV of rows of cells, for programs and for spreadsheets."""

import csv
import io
from collections.abc import Iterable, Sequence
from typing import Any

FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""Beginnings of a text that spreadsheets compute (OWASP, CSV Injection)."""


def as_csv(rows: Iterable[Sequence[Any]]) -> str:
    """Return rows as CSV; a text that a spreadsheet would take for a formula begins with an apostrophe."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([guarded_cell(cell) for cell in row] for row in rows)
    return text.getvalue()


def guarded_cell(cell: Any) -> Any:
    """Return a cell that spreadsheets show as it is: an apostrophe goes before a formula; numbers stay."""
    formula = isinstance(cell, str) and len(cell) > 1 and cell.startswith(FORMULA) and not is_number(cell)
    return f"'{cell}" if formula else cell


def is_number(text: str) -> bool:
    """Return whether a text is a number."""
    try:
        float(text)
    except ValueError:
        return False
    return True
