"""The points of the curves: main accuracies, and averages over the other test sets."""

from collections.abc import Iterator, Sequence

from clipadapt.report.extra_test_sets import average, average_title, averaged_names
from clipadapt.report.rows import Point, Row, group_by, label
from clipadapt.report.statistics import HARMONIC, Score


def collect_points(rows: Sequence[Row]) -> tuple[list[Point], dict[str, dict[int, float]]]:
    """Return the methods' points of the curves, and zero-shot accuracies by data set and shots."""
    curves: list[Point] = []
    zero_shot: dict[str, dict[int, float]] = {}
    others = {some[0]["data"]: averaged_names(some) for some in group_by(rows, "data")}
    for row in rows:
        for data, score in panels(row, others[row["data"]]):
            zero_shot.setdefault(data, {})[row["shots"]] = score["zero_shot_accuracy"]
            if not row["zero_shot"]:
                point: Point = {
                    "data": data,
                    "method": label(row, rows),
                    "shots": row["shots"],
                    "mean": score["accuracy"],
                    "interval": score["interval"],
                    "values": score["values"],
                }
                curves.append(point)
    return curves, zero_shot


def panels(row: Row, others: Sequence[str]) -> Iterator[tuple[str, Score]]:
    """Yield the scores of a row to draw, with their panels: the main score, and the average over other test sets."""
    if row["scores"]:
        yield row["data"], row["scores"].get(HARMONIC) or next(iter(row["scores"].values()))
    if (mean := average(row, others)) is not None:
        yield average_title(row["data"], others), mean
