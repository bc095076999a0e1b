"""The table of the runs below a folder."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from clipadapt.report.sweeps import leading, scores
from clipadapt.report.tables import NONE, count_text, seconds_text


def show(console: Console, runs: Sequence[Mapping[str, Any]]) -> None:
    """Print a table with a line for each run: its directory, what it is, and its leading figure.

    Args:
        console: where to print.
        runs: each with its `name`; and `method`, `record` and `metrics`, or a `note` in place of them.
    """
    table = Table(title=count_text(len(runs), "run"), title_justify="left", title_style="bold")
    for head in ("directory", "method", "data", "backbone", "shots", "seed", "figure"):
        table.add_column(head, overflow="fold")
    for head in ("zero-shot", "adapted", "time"):
        table.add_column(head, justify="right")
    for run in runs:
        table.add_row(*map(Text, _cells(run)))
    console.print(table)
    for run in runs:
        if "note" in run:
            console.print(Text(f"{run['name']}: {run['note']}"), soft_wrap=True)


def _cells(run: Mapping[str, Any]) -> list[str]:
    if "note" in run:
        return [run["name"], *[NONE] * 9]
    record, metrics = run["record"], run["metrics"]
    figure = leading(metrics)["title"] if metrics["tests"] else NONE
    what = [run["method"], record["task"], record["backbone"]["name"], str(record["shots"]), str(record["seed"])]
    return [run["name"], *what, figure, *scores(metrics), seconds_text(metrics["seconds"])]
