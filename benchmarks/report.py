"""Output of a benchmark: a table for the terminal, and a self-contained JSON file."""

import json
import os
import platform
import subprocess
import sys
from argparse import Namespace
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import open_clip
import torch
from rich import box
from rich.console import Console
from rich.table import Table

import clipadapt

Row = Mapping[str, Any]
Columns = Mapping[str, Callable[[Row], str]]

WIDTH = 120
"""Characters per line if the output is not a terminal."""


def seconds_text(seconds: float) -> str:
    """Return a duration with three digits."""
    return f"{1000 * seconds:.3g} ms" if seconds < 1 else f"{seconds:,.3g} s" if seconds < 1000 else f"{seconds:,.0f} s"


def plain_text(value: str, row: Row) -> str:
    """Return a figure of the plain side as text, with the size it was scaled from if it wasn't measured."""
    return f"{value}\nscaled from\n{row['scaled']}" if row["scaled"] else value


COMPARISON: Columns = {
    "ours": lambda row: seconds_text(row["ours_seconds"]),
    "plain": lambda row: plain_text(seconds_text(row["plain_seconds"]), row),
    "plain / ours": lambda row: f"{row['ratio']:.3g}",
    "floor": lambda row: seconds_text(row["floor_seconds"]),
    "floor / ours": lambda row: f"{100 * row['floor_share']:.0f} %",
}
"""Columns of rows from `measure.compare`; `scaled` is the size that the plain side is scaled from, or None."""


def difference_text(row: Row) -> str:
    """Return the relative difference of both sides' results as text, if both computed the same classes."""
    return "-" if row["difference"] is None else f"{row['difference']:.1e}"


def report(title: str, chosen: Namespace, columns: Columns, rows: Iterable[Row]) -> None:
    """Print rows as a table, with the settings and the machine, and write them as JSON.

    Args:
        title: the title of the table.
        chosen: the command's options.
        columns: the table's columns: functions from a row to a text.
        rows: the rows, measured as the iterator advances; the JSON file is complete after each.
    """
    settings = {name: value for name, value in vars(chosen).items() if name != "out"}
    content: dict[str, Any] = {"title": title, "settings": settings, "machine": machine(), "rows": []}
    table = Table(*columns, title=title, title_justify="left", box=box.SIMPLE_HEAD)
    for row in rows:
        table.add_row(*[text(row) for text in columns.values()])
        content["rows"].append(row)
        if chosen.out:
            chosen.out.write_text(json.dumps(content, indent=2) + "\n")
    console = Console(width=None if sys.stdout.isatty() else WIDTH)
    console.print(table)
    facts = ", ".join(f"{name} {value}" for name, value in {**settings, **content["machine"]}.items())
    console.print(facts, markup=False, highlight=False)


def machine() -> dict[str, Any]:
    """Return the machine and the versions; `load` is the number of busy processes before the first measurement."""
    return {
        "processor": processor(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "open_clip": open_clip.__version__,
        "clipadapt": clipadapt.__version__,
        "commit": commit(),
        "load": os.getloadavg()[0],
    }


def processor() -> str:
    """Return the CPU's model, as the system names it."""
    information = Path("/proc/cpuinfo")
    lines = information.read_text().splitlines() if information.is_file() else []
    models = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor() or platform.machine()


def commit() -> str | None:
    """Return the checkout's commit, marked if files differ from it; None outside a checkout."""
    root = Path(__file__).parent
    describe = ["git", "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    try:
        done = subprocess.run(describe, cwd=root, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()
