"""Methods against each other: tables for the terminal and as Markdown, rows as CSV.

Accuracies are fractions, means over seeds with half their 95 % intervals.
"""

import csv
import io
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from rich.console import Console
from rich.text import Text

from clipadapt.report.extra_test_sets import has_further_tests, tests_sheet
from clipadapt.report.points import points_of
from clipadapt.report.rows import (
    AVERAGE,
    ZERO_SHOT,
    Row,
    by_method,
    grouped,
    label,
    score_text,
    title,
    zero_shot_text,
)
from clipadapt.report.sheets import Sheet, latex_table, markdown_table, rich_table, turned
from clipadapt.report.statistics import BASE, HARMONIC, NEW, Score, average_over_data
from clipadapt.report.tables import NONE, shots_text

WIDEST = 10_000
COSTS = ["parameters", "seconds", "peak MB"]
HALF_AND_HALF = "harmonic mean of the accuracies on base and new classes"
IN_WORDS = {HARMONIC: "H (harmonic mean of base and new)"}
HALVES = "base: classes that were learned, new: the others; H: the harmonic mean of both, of each seed"
ITS_OWN = "accuracy: on the test set of the data that were learned; others have a table of their own"
NOTES = [
    "* zero-shot: nothing is learned",
    "seconds: of a whole run; the first one on a data set encodes images that others then find",
    "peak MB: on a GPU of a run's tensors, on a CPU of the whole process",
]


def show(console: Console, rows: Sequence[Row]) -> None:
    """Print the tables, the main one last."""
    for sheet in reversed(sheets(rows)):
        sheet = fitting(sheet, console)
        console.print(rich_table(sheet))
        for note in sheet.notes:
            console.print(Text(note))


def fitting(sheet: Sheet, console: Console) -> Sheet:
    """A sheet as the console has room for it: where it is too wide, without what a run takes, or turned."""
    unbounded = console.options.update(width=WIDEST)
    if console.measure(rich_table(sheet), options=unbounded).maximum <= console.width:
        return sheet
    if sheet.head[-len(COSTS) :] != COSTS:
        return turned(sheet) if len(sheet.groups) == 1 and len(sheet.groups[0]) < len(sheet.head) else sheet
    groups = [[line[: -len(COSTS)] for line in lines] for lines in sheet.groups]
    notes = [note for note in sheet.notes if note not in NOTES[1:]]
    left_out = f"{', '.join(COSTS)}: in the files, for want of room here"
    return replace(sheet, head=sheet.head[: -len(COSTS)], groups=groups, notes=[*notes, left_out])


def sheets(rows: Sequence[Row]) -> list[Sheet]:
    """The main table, then one for each data set that has further test sets."""
    return [main_sheet(rows), *(tests_sheet(some) for some in grouped(rows, "data") if has_further_tests(some))]


def main_sheet(rows: Sequence[Row]) -> Sheet:
    """Accuracies of methods at numbers of shots, and what a run takes; data set by data set."""
    columns = [(shots, kind) for shots in dict.fromkeys(row["shots"] for row in rows) for kind in kinds(rows)]
    reasons = list(dict.fromkeys(reason for row in rows for reason in row["failed"]))
    groups = {some[0]["data"]: main_lines(some, columns, reasons, some) for some in grouped(rows, "data")}
    if means := averages(rows):
        groups[AVERAGE] = main_lines(means, columns, reasons, rows)
    several = len({shots for shots, _ in columns}) > 1
    heads = [": ".join([shots_text(shots)] * several + [kind] * bool(kind)) or "accuracy" for shots, kind in columns]
    head = ["method", *heads, *COSTS]
    halves = [HALVES] if any(kind == HARMONIC for _, kind in columns) else []
    own = [ITS_OWN] if any(map(has_further_tests, grouped(rows, "data"))) else []
    notes = [
        *halves,
        *own,
        *NOTES,
        *(f"[{number}] {text}" for number, text in enumerate(failure_texts(rows, reasons), 1)),
    ]
    if len(groups) == 1:
        return Sheet(f"Test {title(rows)}", head, [*groups.values()], 1, notes)
    named = [[[data, *line] for line in lines] for data, lines in groups.items()]
    return Sheet(f"Test {title(rows)}", ["data", *head], named, 2, notes)


def main_lines(
    rows: Sequence[Row], columns: Sequence[tuple[int, str]], reasons: Sequence[str], measured: Sequence[Row]
) -> list[list[str]]:
    """A line for each method on one data set, or on average, zero-shot first; what it took is that of `measured`."""
    lines = [] if any(row["zero_shot"] for row in rows) else [zero_shot_line(rows, columns)]
    for points in by_method(rows):
        at = {row["shots"]: row for row in points}
        cells = [cell_text(at[shots], kind, reasons) if shots in at else NONE for shots, kind in columns]
        took = [row for row in measured if row["method"] == points[0]["method"] and row["shots"] in at]
        lines.append([label(points[0], rows), *cells, *costs(took)])
    return lines


def averages(rows: Sequence[Row]) -> list[Row]:
    """The average over data sets of the methods at numbers of shots that have the same seeds on all of them.

    Only the scores are averages; what the runs took stands in the rows that were averaged.
    """
    everywhere = {row["data"] for row in rows}
    found = []
    for points in by_method(rows):
        for some in grouped(points, "shots"):
            seeds = {tuple(row["seeds"]) for row in some}
            if len(some) == len(everywhere) > 1 and len(seeds) == 1 and all(row["scores"] for row in some):
                scores = average_over_data([row["scores"] for row in some])
                found.append({**some[0], "data": AVERAGE, "scores": scores, "failed": {}})
    return found  # type: ignore[return-value]


def kinds(rows: Sequence[Row]) -> list[str]:
    """Which scores the main table has: "" for the test set that stands for its data, base and new with their mean."""
    split = {HARMONIC in row["scores"] for row in rows if row["scores"]}
    return [*([] if split == {True} else [""]), *([BASE, NEW, HARMONIC] if True in split else [])]


def main_score(row: Row, kind: str) -> Score | None:
    """The score that stands in a column of the main table."""
    if kind:
        return row["scores"].get(kind)
    return None if HARMONIC in row["scores"] else next(iter(row["scores"].values()), None)


def cell_text(row: Row, kind: str, reasons: Sequence[str]) -> str:
    """A score, with the numbers of the reasons for which seeds are missing."""
    score = main_score(row, kind)
    marks = "".join(f" [{reasons.index(reason) + 1}]" for reason in row["failed"])
    return f"{score_text(score) if row['scores'] else 'failed'}{marks}"


def zero_shot_line(rows: Sequence[Row], columns: Iterable[tuple[int, str]]) -> list[str]:
    """Zero-shot CLIP on a data set where none of the methods is that, as the other methods' runs measured it."""
    cells = []
    for shots, kind in columns:
        found = (score for row in rows if row["shots"] == shots and (score := main_score(row, kind)) is not None)
        cells.append(zero_shot_text(next(found, None)))
    return [ZERO_SHOT, *cells, "0", NONE, NONE]


def costs(points: Sequence[Row]) -> list[str]:
    """What a method's runs take: learned parameters, seconds of one run on average, most memory."""
    done = [row for row in points if row["scores"]]
    if not done:
        return [NONE] * 3
    fewest, most = (pick(row["parameters"] for row in done) for pick in (min, max))
    parameters = f"{most:,}" if fewest == most else f"{fewest:,} to {most:,}"
    seconds = sum(row["seconds"] for row in done) / len(done)
    return [parameters, f"{seconds:,.1f}", f"{max(row['peak_memory_mb'] for row in done):,.0f}"]


def failure_texts(rows: Sequence[Row], reasons: Sequence[str]) -> Iterator[str]:
    """Where each of the reasons holds, and the reason."""
    for reason in reasons:
        places: dict[str, list[str]] = {}
        for row in rows:
            if reason in row["failed"]:
                seeds = ", ".join(map(str, row["failed"][reason]))
                places.setdefault(f"{row['title']} on {row['data']}", []).append(
                    f"{shots_text(row['shots'])}, seed {seeds}"
                )
        where = [f"{place} ({'; '.join(cells)})" for place, cells in places.items()]
        yield f"{', '.join(where)}: {reason}"


def markdown(rows: Sequence[Row]) -> str:
    """The tables as Markdown, with the picture of the curves, where there are any."""
    picture = ["![accuracy against shots](curves.png)"] if points_of(rows)[0] else []
    return "\n\n".join([*map(markdown_table, sheets(rows)), *picture]) + "\n"


def latex(rows: Sequence[Row]) -> str:
    """The tables for LaTeX."""
    return "\n\n".join(map(latex_table, sheets(rows))) + "\n"


def csv_text(rows: Sequence[Row]) -> str:
    """The rows as CSV, with `accuracy`, its `interval` and `zero_shot_accuracy` on every test set, by its name."""
    names = list(dict.fromkeys(name for row in rows for name in row["scores"]))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    plain = ["backbone", "data", "method", "title", "shots", "zero_shot"]
    took = ["parameters", "seconds", "peak_memory_mb", "schedule_note"]
    scores = ["accuracy", "interval", "zero_shot_accuracy"]
    tests = [f"{part} on {IN_WORDS.get(name, name)}" for name in names for part in scores]
    writer.writerow([*plain, "seeds", *tests, *took, "failed"])
    for row in rows:
        found = [row["scores"].get(name) for name in names]
        numbers = [None if score is None else score[part] for score in found for part in scores]  # type: ignore[literal-required]
        line = [[row[key] for key in keys] for keys in (plain, took)]  # type: ignore[literal-required]
        seeds = " ".join(map(str, row["seeds"]))
        writer.writerow([*line[0], seeds, *numbers, *line[1], "; ".join(row["failed"])])
    return text.getvalue()
