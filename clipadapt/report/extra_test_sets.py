"""Test sets beside a data set's first one: shifted styles, other data sets, corruptions."""

from collections.abc import Iterable, Mapping, Sequence

from clipadapt.report.rows import AVERAGE, ZERO_SHOT, Row, by_method, label, score_text, title, zero_shot_text
from clipadapt.report.sheets import Sheet
from clipadapt.report.statistics import BASE, HARMONIC, NEW, Score, average_over_tests
from clipadapt.report.tables import NONE

MAX_NAMES = 3


def tests_sheet(rows: Sequence[Row]) -> Sheet:
    """Return the table of accuracies on all test sets of one data set, with an average over some (`averaged_names`)."""
    done = [row for points in by_method(rows) for row in points if row["scores"]]
    others = averaged_names(rows)
    scores = [average_severities(row["scores"]) for row in done]
    for row, some in zip(done, scores, strict=True):
        if len(others) > 1 and (mean := average(row, others)) is not None:
            some[AVERAGE] = mean
    names = sorted(dict.fromkeys(name for some in scores for name in some), key=lambda name: name == AVERAGE)
    lines = [] if any(row["zero_shot"] for row in done) else [[ZERO_SHOT, NONE, *zero_shot_cells(scores, names)]]
    lines += [
        [label(row, rows), str(row["shots"]), *(score_text(some.get(name)) for name in names)]
        for row, some in zip(done, scores, strict=True)
    ]
    notes = [f"average: of {', '.join(others)}"] if AVERAGE in names else []
    if severities := sorted({name.partition("/")[2] for row in done for name in row["scores"] if "/" in name}):
        notes.append(f"corruptions: the mean over severities {', '.join(severities)}")
    return Sheet(f"Every test set: {title(rows)}", ["method", "shots", *names], [lines], 1, notes)


def zero_shot_cells(scores: Sequence[Mapping[str, Score]], names: Iterable[str]) -> list[str]:
    """Return zero-shot CLIP's accuracy on each test set, as measured by the first method tested on it."""
    return [zero_shot_text(next((some[name] for some in scores if name in some), None)) for name in names]


def averaged_names(rows: Sequence[Row]) -> list[str]:
    """Return the test sets of one data set to average over: a study's targets or, without targets, all but the first.

    A corruption counts as one test set at all its severities.
    """
    if targets := [name for row in rows for name in row["targets"]]:
        return [*dict.fromkeys(map(test_set, targets))]
    every = [*dict.fromkeys(test_set(name) for row in rows for name in row["scores"])]
    return [name for name in every[1:] if name not in (NEW, HARMONIC)]


def average(row: Row, names: Sequence[str]) -> Score | None:
    """Return the average over test sets; None if there are none, or the method lacks figures on one of them."""
    scores = average_severities(row["scores"])
    whole = names and all(name in scores for name in names)
    return average_over_tests([scores[name] for name in names]) if whole else None


def average_title(data: str, names: Sequence[str]) -> str:
    """Return the panel title for an average over some test sets of one data set."""
    if len(names) == 1:
        return f"{data}: {names[0]}"
    which = ", ".join(names) if len(names) <= MAX_NAMES else f"{len(names)} further test sets"
    return f"{data}: average over {which}"


def average_severities(scores: Mapping[str, Score]) -> dict[str, Score]:
    """Return scores by test set, with those of a corruption averaged over its severities."""
    found: dict[str, list[Score]] = {}
    for name, score in scores.items():
        found.setdefault(test_set(name), []).append(score)
    return {name: average_over_tests(some) if len(some) > 1 else some[0] for name, some in found.items()}


def test_set(name: str) -> str:
    """Return a test set's name without the severity of a corruption (`name/severity`)."""
    return name.partition("/")[0]


def has_extra_tests(rows: Sequence[Row]) -> bool:
    """Return whether a data set has test sets that the main table leaves out."""
    every = [[*row["scores"]] for row in rows]
    return any({*names} - {BASE, NEW, HARMONIC} if HARMONIC in names else names[1:] for names in every)
