"""A process that lives long: memory, file handles, threads and child processes over many predictions, fits and loads.

    python -m benchmarks.long_lives --predictions 10000 --fits 200 --loads 50 --plot docs/long_lives.png

Images are the digits, the backbone is `tiny`. A prediction is one image; a fit is CoOp on one shot with a few steps and
its evaluation on the test set; a load reads a saved run and predicts one image. After each of fifty equal parts of a
kind of work the process is looked at. Growth is the last look less the one after a fifth of the work, when everything
that is made once has been made.
"""

import argparse
import gc
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil
from matplotlib.figure import Figure

import clipadapt
from benchmarks.report import Row, report
from clipadapt.data import Task
from clipadapt.runs.result import Result

LOOKS = 50
"""Looks at the process during each kind of work."""
SETTLED = 5
"""The part of the work, one in so many, after which everything that is made once has been made."""
FIGURES = {"memory": "MB", "file handles": "", "threads": "", "child processes": ""}
"""What is looked at, with its unit."""


def look(process: psutil.Process) -> dict[str, float]:
    """Return resident memory in MB, and the numbers of open file handles, threads and child processes."""
    gc.collect()
    return {
        "memory": process.memory_info().rss / 1e6,
        "file handles": process.num_fds(),
        "threads": process.num_threads(),
        "child processes": len(process.children(recursive=True)),
    }


def fit(task: Task, workers: int, seed: int, cache: Path) -> Result:
    """Return the result of a short fit."""
    settings = {"cpu": True, "workers": workers, "cache": str(cache), "max_steps": 3}
    overrides = [f"method.adaptation.n_ctx={seed % 4 + 1}"]
    return clipadapt.finetune(clipadapt.load_backbone(), task, "coop", overrides, **settings)


def works(chosen: argparse.Namespace, folder: Path) -> Iterator[tuple[str, int, Callable[[int], Any]]]:
    """Yield the name, the count and the function of each kind of work."""
    task = clipadapt.load_task("digits", shots=1)
    images = [image for image, _ in (task.tests["test"][index] for index in range(100))]
    saved = fit(task, 0, 0, folder / "cache").save(folder / "saved")
    predictor = clipadapt.load(saved, device="cpu")
    yield "predictions", chosen.predictions, lambda number: predictor.predict(images[number % len(images)])
    yield "fits", chosen.fits, lambda number: fit(task, chosen.workers, number, folder / "cache")
    yield "loads", chosen.loads, lambda number: clipadapt.load(saved, device="cpu").predict(images[0])


def measure(name: str, count: int, function: Callable[[int], Any]) -> Row:
    """Do a kind of work and look at the process meanwhile."""
    process, looks = psutil.Process(os.getpid()), []
    marks = {max(1, count * part // LOOKS) for part in range(1, LOOKS + 1)}
    for number in range(1, count + 1):
        function(number)
        if number in marks:
            looks.append({"done": number, **look(process)})
    early = next(one for one in looks if one["done"] >= count / SETTLED)
    return {
        "work": name,
        "count": count,
        "growth": {key: looks[-1][key] - early[key] for key in FIGURES},
        "looks": looks,
    }


def draw(rows: Sequence[Row], path: Path) -> None:
    """Draw memory over the share of each work that is done."""
    figure = Figure(figsize=(7, 3.2), layout="constrained")
    axes = figure.subplots()
    for row in rows:
        shares = [100 * one["done"] / row["count"] for one in row["looks"]]
        axes.plot(shares, [one["memory"] for one in row["looks"]], label=f"{row['count']:,} {row['work']}")
    axes.set(xlabel="% done", ylabel="resident memory (MB)", ylim=(0, None))
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=120)


def figure_text(row: Mapping[str, Any], key: str) -> str:
    """Return a figure of the last look, with its growth."""
    unit = f" {FIGURES[key]}" if FIGURES[key] else ""
    return f"{row['looks'][-1][key]:,.0f}{unit} ({row['growth'][key]:+,.0f})"


def main(argv: Sequence[str] | None = None) -> None:
    """Do the work, print, write and draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--predictions", type=int, default=10_000)
    parser.add_argument("--fits", type=int, default=200)
    parser.add_argument("--loads", type=int, default=50)
    parser.add_argument("--workers", type=int, default=0, help="processes of each fit that read images")
    parser.add_argument("--plot", metavar="FILE", help="picture to write")
    parser.add_argument("--out", type=Path, metavar="FILE", help="JSON file to write")
    chosen = parser.parse_args(argv)
    columns = {"work": lambda row: f"{row['count']:,} {row['work']}"}
    columns |= {key: lambda row, key=key: figure_text(row, key) for key in FIGURES}
    with tempfile.TemporaryDirectory() as folder:
        rows: list[Row] = []
        report("A long life", chosen, columns, collect(rows, works(chosen, Path(folder))))
    if chosen.plot:
        draw(rows, Path(chosen.plot))


def collect(rows: list[Row], wanted: Iterator[tuple[str, int, Callable[[int], Any]]]) -> Iterator[Row]:
    """Measure each kind of work, and add its row to a list."""
    for name, count, function in wanted:
        rows.append(measure(name, count, function))
        yield rows[-1]


if __name__ == "__main__":
    main()
