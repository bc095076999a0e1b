"""Comparison of methods: tables for the terminal, Markdown and LaTeX, rows as CSV.

Accuracies are fractions: means over seeds, with half their 95 % intervals.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

from rich.console import Console
from rich.text import Text

from clipadapt.report.csv_rows import as_csv
from clipadapt.report.extra_test_sets import has_extra_tests, tests_sheet
from clipadapt.report.points import collect_points
from clipadapt.report.rows import (
    AVERAGE,
    ZERO_SHOT,
    Row,
    by_method,
    group_by,
    label,
    score_text,
    title,
    zero_shot_text,
)
from clipadapt.report.sheets import Sheet, latex_table, markdown_table, rich_table, transpose
from clipadapt.report.statistics import BASE, HARMONIC, NEW, Score, average_over_data
from clipadapt.report.tables import NONE, shots_text

MAX_WIDTH = 10_000
COSTS = ["parameters", "seconds", "peak MB"]
HALF_AND_HALF = "harmonic mean of the accuracies on base and new classes"
IN_WORDS = {HARMONIC: "H (harmonic mean of base and new)"}
HALVES = "base: the learned classes, new: the other classes; H: their harmonic mean, for each seed"
ITS_OWN = "accuracy: on the learned data set's own test set; other test sets have their own table"
NOTES = [
    "* zero-shot: nothing is learned",
    "seconds: of a whole run; the first run on a data set encodes its images, later runs read the cached features",
    "peak MB: of a run's tensors on a GPU, of the whole process on a CPU",
]


def show(console: Console, rows: Sequence[Row]) -> None:
    """Print the tables, the main one last."""
    for sheet in reversed(sheets(rows)):
        sheet = fit_to_console(sheet, console)
        console.print(rich_table(sheet))
        for note in sheet.notes:
            console.print(Text(note))


def fit_to_console(sheet: Sheet, console: Console) -> Sheet:
    """Fit a table to the console: if it is too wide, drop the cost columns, or transpose it."""
    unbounded = console.options.update(width=MAX_WIDTH)
    if console.measure(rich_table(sheet), options=unbounded).maximum <= console.width:
        return sheet
    if sheet.head[-len(COSTS) :] != COSTS:
        return transpose(sheet) if len(sheet.groups) == 1 and len(sheet.groups[0]) < len(sheet.head) else sheet
    groups = [[line[: -len(COSTS)] for line in lines] for lines in sheet.groups]
    notes = [note for note in sheet.notes if note not in NOTES[1:]]
    left_out = f"{', '.join(COSTS)}: only in the files, for lack of room"
    return replace(sheet, head=sheet.head[: -len(COSTS)], groups=groups, notes=[*notes, left_out])


def sheets(rows: Sequence[Row]) -> list[Sheet]:
    """Return the main table, then one for each data set that has extra test sets."""
    return [main_sheet(rows), *(tests_sheet(some) for some in group_by(rows, "data") if has_extra_tests(some))]


def main_sheet(rows: Sequence[Row]) -> Sheet:
    """Return the table of the methods' accuracies at each number of shots, and their costs, by data set."""
    columns = [(shots, kind) for shots in dict.fromkeys(row["shots"] for row in rows) for kind in kinds(rows)]
    reasons = list(dict.fromkeys(reason for row in rows for reason in row["failed"]))
    groups = {some[0]["data"]: main_lines(some, columns, reasons, some) for some in group_by(rows, "data")}
    if means := averages(rows):
        groups[AVERAGE] = main_lines(means, columns, reasons, rows)
    several = len({shots for shots, _ in columns}) > 1
    heads = [": ".join([shots_text(shots)] * several + [kind] * bool(kind)) or "accuracy" for shots, kind in columns]
    head = ["method", *heads, *COSTS]
    halves = [HALVES] if any(kind == HARMONIC for _, kind in columns) else []
    own = [ITS_OWN] if any(map(has_extra_tests, group_by(rows, "data"))) else []
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
    """Return a line per method on one data set, or on average, zero-shot first; costs are those of `measured`."""
    lines = [] if any(row["zero_shot"] for row in rows) else [zero_shot_line(rows, columns)]
    for points in by_method(rows):
        at = {row["shots"]: row for row in points}
        cells = [cell_text(at[shots], kind, reasons) if shots in at else NONE for shots, kind in columns]
        took = [row for row in measured if row["method"] == points[0]["method"] and row["shots"] in at]
        lines.append([label(points[0], rows), *cells, *costs(took)])
    return lines


def averages(rows: Sequence[Row]) -> list[Row]:
    """Return averages over data sets, for methods and shots that have the same seeds on all of them.

    Only the scores are averages; the costs are in the rows that were averaged.
    """
    everywhere = {row["data"] for row in rows}
    found = []
    for points in by_method(rows):
        for some in group_by(points, "shots"):
            seeds = {tuple(row["seeds"]) for row in some}
            if len(some) == len(everywhere) > 1 and len(seeds) == 1 and all(row["scores"] for row in some):
                scores = average_over_data([row["scores"] for row in some])
                found.append({**some[0], "data": AVERAGE, "scores": scores, "failed": {}})
    return found  # type: ignore[return-value]


def kinds(rows: Sequence[Row]) -> list[str]:
    """Return the score columns: "" for a data set's first test set; base, new and harmonic mean for halved classes."""
    split = {HARMONIC in row["scores"] for row in rows if row["scores"]}
    return [*([] if split == {True} else [""]), *([BASE, NEW, HARMONIC] if True in split else [])]


def main_score(row: Row, kind: str) -> Score | None:
    """Return the score in a column of the main table."""
    if kind:
        return row["scores"].get(kind)
    return None if HARMONIC in row["scores"] else next(iter(row["scores"].values()), None)


def cell_text(row: Row, kind: str, reasons: Sequence[str]) -> str:
    """Return a score as text, with the numbers of the reasons why seeds are missing."""
    score = main_score(row, kind)
    marks = "".join(f" [{reasons.index(reason) + 1}]" for reason in row["failed"])
    return f"{score_text(score) if row['scores'] else 'failed'}{marks}"


def zero_shot_line(rows: Sequence[Row], columns: Iterable[tuple[int, str]]) -> list[str]:
    """Return the line of zero-shot CLIP, as measured by other methods' runs, for a table without zero-shot methods."""
    cells = []
    for shots, kind in columns:
        found = (score for row in rows if row["shots"] == shots and (score := main_score(row, kind)) is not None)
        cells.append(zero_shot_text(next(found, None)))
    return [ZERO_SHOT, *cells, "0", NONE, NONE]


def costs(points: Sequence[Row]) -> list[str]:
    """Return a method's costs as text: learned parameters, mean seconds per run, peak memory."""
    done = [row for row in points if row["scores"]]
    if not done:
        return [NONE] * 3
    fewest, most = (pick(row["parameters"] for row in done) for pick in (min, max))
    parameters = f"{most:,}" if fewest == most else f"{fewest:,} to {most:,}"
    seconds = sum(row["seconds"] for row in done) / len(done)
    return [parameters, f"{seconds:,.1f}", f"{max(row['peak_memory_mb'] for row in done):,.0f}"]


def failure_texts(rows: Sequence[Row], reasons: Sequence[str]) -> Iterator[str]:
    """Yield each reason for failed runs, after the runs it applies to."""
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
    """Return the tables as Markdown, with the picture of the curves if there are any."""
    picture = ["![accuracy against shots](curves.png)"] if collect_points(rows)[0] else []
    return "\n\n".join([*map(markdown_table, sheets(rows)), *picture]) + "\n"


def latex(rows: Sequence[Row]) -> str:
    """Return the tables for LaTeX."""
    return "\n\n".join(map(latex_table, sheets(rows))) + "\n"


def csv_text(rows: Sequence[Row]) -> str:
    """Return the rows as CSV, with `accuracy`, `interval` and `zero_shot_accuracy` for each test set, by its name."""
    names = list(dict.fromkeys(name for row in rows for name in row["scores"]))
    plain = ["backbone", "data", "method", "title", "shots", "zero_shot"]
    took = ["parameters", "seconds", "peak_memory_mb", "schedule_note"]
    scores = ["accuracy", "interval", "zero_shot_accuracy"]
    tests = [f"{part} on {IN_WORDS.get(name, name)}" for name in names for part in scores]
    lines: list[list[Any]] = [[*plain, "seeds", *tests, *took, "failed"]]
    for row in rows:
        found = [row["scores"].get(name) for name in names]
        numbers = [None if score is None else score[part] for score in found for part in scores]  # type: ignore[literal-required]
        line = [[row[key] for key in keys] for keys in (plain, took)]  # type: ignore[literal-required]
        seeds = " ".join(map(str, row["seeds"]))
        lines.append([*line[0], seeds, *numbers, *line[1], "; ".join(row["failed"])])
    return as_csv(lines)
