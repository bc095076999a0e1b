"""The table of a sweep: what distinguishes its runs, and what each of them reached."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.text import Text

from clipadapt.report.sheets import Sheet, rich_table
from clipadapt.report.tables import NONE, number_text, percent_text

Runs = Sequence[tuple[Mapping[str, str], Mapping[str, Any] | None]]
"""For each run what distinguishes it, by key, and its metrics: None if it has no result."""

NO_RESULT = f"{NONE}: no result, or no test set"


def show(console: Console, runs: Runs) -> None:
    """Print the table of a sweep."""
    sheet = sweep_sheet(runs)
    console.print(rich_table(sheet))
    for note in sheet.notes:
        console.print(Text(note))


def sweep_sheet(runs: Runs) -> Sheet:
    """Return the table of a sweep: a line for each run, with zero-shot and adapted by the leading figure."""
    keys = [*runs[0][0]]
    lines = [[*labels.values(), *scores(metrics)] for labels, metrics in runs]
    titles = dict.fromkeys(leading(metrics)["title"] for _, metrics in runs if metrics and metrics["tests"])
    title = f"Sweep of {len(runs)} runs" + (f": {', '.join(titles)}" if titles else "")
    notes = [NO_RESULT] if any(line[-1] == NONE for line in lines) else []
    return Sheet(title, [*keys, "zero-shot", "adapted"], [lines], 2, notes)


def leading(metrics: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return title and form of a run's leading figure."""
    figure: Mapping[str, Any] = next(iter(metrics["figures"].values()))
    return figure


def scores(metrics: Mapping[str, Any] | None) -> list[str]:
    """Return a run's leading figure as text, of zero-shot CLIP and adapted; dashes if it has none."""
    if metrics is None or not metrics["tests"]:
        return [NONE, NONE]
    name = next(iter(metrics["figures"]))
    text = percent_text if leading(metrics)["percent"] else number_text
    return [text(metrics[f"zero_shot_{name}"]), text(metrics[name])]
