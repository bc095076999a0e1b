"""What curves are drawn of: main accuracies, and averages over the test sets beside those."""

from collections.abc import Iterator, Sequence

from clipadapt.report.extra_test_sets import average, average_title, averaged
from clipadapt.report.rows import Point, Row, grouped, label
from clipadapt.report.statistics import HARMONIC, Score


def points_of(rows: Sequence[Row]) -> tuple[list[Point], dict[str, dict[int, float]]]:
    """What curves are drawn of: the methods' accuracies, and zero-shot's by data set and shots."""
    curves: list[Point] = []
    zero_shot: dict[str, dict[int, float]] = {}
    others = {some[0]["data"]: averaged(some) for some in grouped(rows, "data")}
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
    """The scores of a row that curves are drawn of, each with its panel: the main one, the average over other tests."""
    if row["scores"]:
        yield row["data"], row["scores"].get(HARMONIC) or next(iter(row["scores"].values()))
    if (mean := average(row, others)) is not None:
        yield average_title(row["data"], others), mean
