"""A folder of many small images: seconds and peak memory until the first batch.

    python -m benchmarks.folder --images 100000

Creates a folder of so many JPEGs in 100 classes, half of them to learn from and half to test on, as hard links to a few
files, and measures the stages of a run before it learns, one after the other in the same process: find the images, draw
16 shots, check every file of the run, read the first batch. Memory is the peak of the process, beyond its memory at the
start. The last stage drops broken images, for which it decodes every image of the run.
"""

import argparse
import os
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from clipadapt.data import Source, Task, check, make_task, without_broken
from clipadapt.data.sources import folder

CLASSES, SHOTS, BATCH = 100, 16, 32
DIFFERENT = 20
SIZE = (48, 64, 3)


def make(root: Path, images: int) -> Path:
    """Create the folder: train and test folders with a folder per class, half of the images in each."""
    files = []
    for number in range(DIFFERENT):
        files.append(root / f"{number}.jpg")
        Image.fromarray(np.random.default_rng(number).integers(0, 256, SIZE, dtype=np.uint8)).save(files[-1])
    top = root / "folder"
    for number in range(images):
        split, label = ("train", "test")[number % 2], number // 2 % CLASSES
        place = top / split / f"class{label}" / f"image{number // 2 // CLASSES}.jpg"
        place.parent.mkdir(parents=True, exist_ok=True)
        os.link(files[number % DIFFERENT], place)
    return top


def peak_mb() -> float:
    """Return the peak memory of this process so far, in megabytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10


def first_batch(task: Task) -> np.ndarray:
    """Return the first images of the support set, decoded, `[B, height, width, 3]`."""
    return np.stack([np.asarray(task.support.images[index]) for index in range(BATCH)])


def stages(root: Path) -> list[dict[str, Any]]:
    """Return seconds and added peak memory of each stage."""
    rows: list[dict[str, Any]] = []
    before = peak_mb()

    def stage(name: str, do: Callable[[], Any]) -> Any:
        began = time.perf_counter()
        result = do()
        rows.append({"stage": name, "seconds": time.perf_counter() - began, "memory_mb": peak_mb() - before})
        return result

    source: Source = stage("find", lambda: folder(str(root)))
    task: Task = stage("draw", lambda: make_task(source, SHOTS, seed=1))
    stage("look", lambda: check(task))
    stage("first batch", lambda: first_batch(task))
    stage("leave out", lambda: without_broken(task))
    return rows


def main(argv: Sequence[str] | None = None) -> None:
    """Create the folder, measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=100_000)
    parser.add_argument("--out", type=Path, metavar="FILE", help="JSON file to write")
    chosen = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as place:
        rows = stages(make(Path(place), chosen.images))
    from benchmarks.report import report, seconds_text  # not before: torch would hide what the stages take

    columns = {
        "stage": lambda row: row["stage"],
        "time": lambda row: seconds_text(row["seconds"]),
        "peak memory": lambda row: f"{row['memory_mb']:,.0f} MB",
    }
    report(f"A folder of {chosen.images:,} images", chosen, columns, rows)


if __name__ == "__main__":
    main()
