"""The table of a choice among methods."""

from collections.abc import Sequence
from typing import TypedDict

from clipadapt.report.sheets import Sheet
from clipadapt.report.tables import NONE, seconds_text

HEAD = ["method", "score (%)", "95 %", "steps", "time", "learned", "new classes"]
EXPLAINED = [
    "95 %: by the number of images; time: of all fits; new classes: whether they can be named after the fit",
    "Below the last line are methods that were left out, with scores of fewer images or shorter fits.",
]


class ChoiceRow(TypedDict):
    """Row of a choice: a method, its score and its cost.

    `score` is the mean over `fits` folds of the leading figure on what they held out, `interval` the ends of its 95 %
    interval; each is None where there is none. Fits had `most_steps`, or all if None. `seconds` is the time of all
    fits, `parameters` how many numbers were learned, `new_classes` whether classes can be named after the fit, and
    `dropped` says why the method couldn't be chosen.
    """

    method: str
    score: float | None
    interval: list[float] | None
    fits: int
    most_steps: int | None
    seconds: float
    parameters: int
    new_classes: bool
    dropped: str | None


def choice_sheet(rows: Sequence[ChoiceRow], chosen: str, figure: str, policy: str) -> Sheet:
    """Return the table of a choice: the chosen method, the others that could be, best first, and those left out.

    Args:
        rows: of the methods.
        chosen: name of the chosen one.
        figure: title of the leading figure; empty if nothing was held out.
        policy: how it was chosen.
    """
    first = [row for row in rows if row["method"] == chosen]
    free = [row for row in rows if row["dropped"] is None and row["score"] is not None and row not in first]
    dropped = [row for row in rows if row["dropped"] is not None]
    groups = [first, sorted(free, key=lambda row: -(row["score"] or 0.0)), [row for row in dropped if row["fits"]]]
    title = f"{chosen} is chosen by {policy}" + (f" ({figure})" if figure else "")
    notes = [*EXPLAINED, *_reasons(dropped)]
    return Sheet(title, HEAD, [[*map(_cells, some)] for some in groups if some], words=1, notes=notes)


def _reasons(dropped: Sequence[ChoiceRow]) -> list[str]:
    """Return why methods were left out, a line for each reason; what a reason has in brackets follows each name."""
    found: dict[str, list[str]] = {}
    for row in dropped:
        reason, _, detail = str(row["dropped"]).partition(" (")
        found.setdefault(reason, []).append(row["method"] + (f" ({detail}" if detail else ""))
    return [f"{reason}: {', '.join(names)}" for reason, names in found.items()]


def _cells(row: ChoiceRow) -> list[str]:
    return [
        row["method"],
        NONE if row["score"] is None else f"{100 * row['score']:.1f}",
        NONE if row["interval"] is None else "-".join(f"{100 * end:.0f}" for end in row["interval"]),
        "all" if row["most_steps"] is None else f"{row['most_steps']:,}",
        seconds_text(row["seconds"]),
        f"{row['parameters']:,}",
        "yes" if row["new_classes"] else "no",
    ]
