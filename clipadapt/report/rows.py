"""What methods reached on data sets: a row for each at a number of shots, over seeds; how rows are named and sorted."""

from collections.abc import Sequence
from typing import TypedDict

from clipadapt.report.statistics import Score
from clipadapt.report.tables import NONE, interval_text, shots_text, with_schedule_note

AVERAGE = "average"
ZERO_SHOT = "zero-shot *"


class Row(TypedDict):
    """A method on a data set at a number of shots, over seeds.

    `scores` are by test set, the first one standing for the data set; where there are test sets "base" and "new", "H"
    has their harmonic mean. They are empty where no seed has a result. `targets` are those of the test sets that aren't
    the run's own but a study's. `seconds` is a run's mean, `parameters` and
    `peak_memory_mb` the most of any. `failed` has, by the reason, the seeds without a result or without figures on
    some further test sets, `runs` the directories.
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
    failed: dict[str, list[int]]
    runs: list[str]


class Point(TypedDict):
    """A point of a curve: a method's accuracy on a data set at a number of shots; `values` has that of each seed.

    `data` may also name an average over test sets.
    """

    data: str
    method: str
    shots: int
    mean: float
    interval: float | None
    values: list[float]


def title(rows: Sequence[Row]) -> str:
    """What the tables and pictures show."""
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
    """A method's title, with its name where another has the same title; starred where it learns nothing."""
    namesakes = {other["method"] for other in rows if other["title"] == row["title"]}
    text = row["title"] if len(namesakes) == 1 else f"{row['title']} ({row['method']})"
    return f"{text} *" if row["zero_shot"] else text


def by_method(rows: Sequence[Row]) -> list[list[Row]]:
    """The rows of each method, zero-shot first."""
    return sorted(grouped(rows, "method"), key=lambda points: not points[0]["zero_shot"])


def grouped(rows: Sequence[Row], key: str) -> list[list[Row]]:
    """Rows that agree in a key, in the order of their first."""
    found: dict[str, list[Row]] = {}
    for row in rows:
        found.setdefault(row[key], []).append(row)  # type: ignore[literal-required]
    return list(found.values())


def score_text(score: Score | None) -> str:
    """A score in percent."""
    return NONE if score is None else interval_text(score["accuracy"], score["interval"])


def zero_shot_text(score: Score | None) -> str:
    """Zero-shot CLIP on the images of a score, in percent."""
    return NONE if score is None else interval_text(score["zero_shot_accuracy"], None)
