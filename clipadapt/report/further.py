"""Test sets beside the one that stands for its data: shifted styles, other data, corruptions."""

from collections.abc import Mapping, Sequence

from clipadapt.report.rows import AVERAGE, ZERO_SHOT, Row, by_method, label, score_text, title, zero_shot_text
from clipadapt.report.sheets import Sheet
from clipadapt.report.statistics import BASE, HARMONIC, NEW, Score, average_of
from clipadapt.report.tables import NONE


def tests_sheet(rows: Sequence[Row]) -> Sheet:
    """Accuracies on every test set of one data set."""
    done = [row for points in by_method(rows) for row in points if row["scores"]]
    scores = [over_severities(row["scores"]) for row in done]
    names = list(dict.fromkeys(name for some in scores for name in some))
    others = [name for name in names[1:] if name not in (NEW, HARMONIC)]
    if len(others) > 1:
        names.append(AVERAGE)
        scores = [{**some, AVERAGE: average_of([some[name] for name in others])} for some in scores]
    zero_shot = [ZERO_SHOT, NONE, *(zero_shot_text(scores[0][name]) for name in names)]
    lines = [] if any(row["zero_shot"] for row in done) else [zero_shot]
    lines += [
        [label(row, rows), str(row["shots"]), *(score_text(some[name]) for name in names)]
        for row, some in zip(done, scores, strict=True)
    ]
    notes = [f"average: of {', '.join(others)}"] if len(others) > 1 else []
    return Sheet(f"Every test set: {title(rows)}", ["method", "shots", *names], [lines], 1, notes)


def over_severities(scores: Mapping[str, Score]) -> dict[str, Score]:
    """Scores by test set, those of a corruption (`name/severity`) averaged over its severities."""
    found: dict[str, list[Score]] = {}
    for name, score in scores.items():
        found.setdefault(name.partition("/")[0], []).append(score)
    return {name: average_of(some) if len(some) > 1 else some[0] for name, some in found.items()}


def has_further_tests(rows: Sequence[Row]) -> bool:
    """Whether a data set has test sets that the main table leaves out."""
    every = [[*row["scores"]] for row in rows]
    return any({*names} - {BASE, NEW, HARMONIC} if HARMONIC in names else names[1:] for names in every)
