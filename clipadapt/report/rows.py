"""Rows of a comparison: a method's scores on a data set at a number of shots, over seeds; their names and order."""

from collections.abc import Sequence
from typing import TypedDict

from clipadapt.report.statistics import Score
from clipadapt.report.tables import NONE, interval_text, shots_text, with_schedule_note

AVERAGE = "average"
ZERO_SHOT = "zero-shot *"


class Row(TypedDict):
    """A method on a data set at a number of shots, over seeds.

    `scores` are by test set, the data set's own first; if there are test sets "base" and "new", "H" is their harmonic
    mean. `scores` is empty if no seed has a result. `targets` names the test sets that belong to the study, not to the
    run. `seconds` is the mean over runs, `parameters` and `peak_memory_mb` the maximum. `failed` maps a reason to the
    seeds without a result, or without figures on some extra test sets. `runs` are the run directories.
    """

    backbone: str
    data: str
    method: str
    title: str
    shots: int
    seeds: list[int]
    zero_shot: bool
    scores: dict[str, Score]
    targets: list[str]
    parameters: int
    seconds: float
    peak_memory_mb: float
    schedule_note: str | None
    test_note: str | None
    failed: dict[str, list[int]]
    runs: list[str]


class Point(TypedDict):
    """A point of a curve: a method's accuracy on a data set at a number of shots, with each seed's in `values`.

    `data` may also name an average over test sets.
    """

    data: str
    method: str
    shots: int
    mean: float
    interval: float | None
    values: list[float]


def title(rows: Sequence[Row]) -> str:
    """Return the title of the tables and pictures."""
    seeds = dict.fromkeys(seed for row in rows for some in (row["seeds"], *row["failed"].values()) for seed in some)
    over = f"mean and 95 % interval over seeds {', '.join(map(str, seeds))}" if len(seeds) > 1 else f"seed {min(seeds)}"
    data = dict.fromkeys(row["data"] for row in rows)
    where = f" on {rows[0]['data']}" if len(data) == 1 else ""
    shots = {row["shots"] for row in rows}
    learned = f", {shots_text(*shots)}" if len(shots) == 1 else ""
    return with_schedule_note(
        f"accuracy (%) of {rows[0]['backbone']}{where}{learned}, {over}", rows[0]["schedule_note"]
    )


def label(row: Row, rows: Sequence[Row]) -> str:
    """Return a method's title, with its name if another has the same title, and what marks it.

    A star is for a method that learns nothing; one that sees test images together says so.
    """
    same_title = {other["method"] for other in rows if other["title"] == row["title"]}
    text = row["title"] if len(same_title) == 1 else f"{row['title']} ({row['method']})"
    text = f"{text} (test images together)" if row["test_note"] else text
    return f"{text} *" if row["zero_shot"] else text


def by_method(rows: Sequence[Row]) -> list[list[Row]]:
    """Return the rows of each method, zero-shot first."""
    return sorted(group_by(rows, "method"), key=lambda points: not points[0]["zero_shot"])


def group_by(rows: Sequence[Row], key: str) -> list[list[Row]]:
    """Group rows by the value of a key, in order of first appearance."""
    found: dict[str, list[Row]] = {}
    for row in rows:
        found.setdefault(row[key], []).append(row)  # type: ignore[literal-required]
    return list(found.values())


def score_text(score: Score | None) -> str:
    """Return a score as text, in percent."""
    return NONE if score is None else interval_text(score["accuracy"], score["interval"])


def zero_shot_text(score: Score | None) -> str:
    """Return zero-shot CLIP's accuracy on a score's images as text, in percent."""
    return NONE if score is None else interval_text(score["zero_shot_accuracy"], None)
