"""The table of the runs below a folder."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from clipadapt.paths import shorten
from clipadapt.report.sweeps import leading, scores
from clipadapt.report.tables import NONE, count_text, seconds_text


def show(console: Console, runs: Sequence[Mapping[str, Any]]) -> None:
    """Print a table with a line for each run: its directory, what it is, and its leading figure.

    Args:
        console: where to print.
        runs: each with its `name` and the `settings` that tell it apart; and `method`, `record` and `metrics`, or a
            `note` in place of them.
    """
    figures = dict.fromkeys(leading(run["metrics"])["title"] for run in runs if _measured(run))
    title = count_text(len(runs), "run") + (f": {', '.join(figures)}" if figures else "")
    table = Table(title=title, title_justify="left", title_style="bold")
    told = any(run["settings"] for run in runs)
    for head in ("directory", "method", "data", *["settings"] * told):
        table.add_column(head, overflow="fold")
    for head in ("zero-shot", "adapted", "time"):
        table.add_column(head, justify="right", no_wrap=True)
    for run in runs:
        table.add_row(*map(Text, _cells(run, told)))
    console.print(table)
    for run in runs:
        if "note" in run:
            console.print(Text(f"{run['name']}: {run['note']}"), soft_wrap=True)


def _measured(run: Mapping[str, Any]) -> bool:
    return "metrics" in run and bool(run["metrics"]["tests"])


def _cells(run: Mapping[str, Any], told: bool) -> list[str]:
    if "note" in run:
        return [run["name"], *[NONE] * (5 + told)]
    record, metrics, settings = run["record"], run["metrics"], [settings_text(run["settings"])] * told
    return [run["name"], run["method"], record["task"], *settings, *scores(metrics), seconds_text(metrics["seconds"])]


def settings_text(settings: Mapping[str, Any]) -> str:
    """Return settings as on the command line, each shortened."""
    texts = {key: value if isinstance(value, str) else json.dumps(value) for key, value in settings.items()}
    return " ".join(f"{key}={shorten(text)}" for key, text in texts.items())
