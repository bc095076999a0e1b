"""Methods that see all test images together: seconds and peak memory from features to answers.

    python -m benchmarks.whole_set --images 50000 --classes 1000

Features are drawn around their classes' texts, and are in memory; encoding images isn't measured. Each method has a
fresh process. Memory is the process's peak beyond its memory with the features. Beside it is what one matrix of all
pairs of images would take.
"""

import argparse
import multiprocessing
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from benchmarks.folder import peak_mb
from benchmarks.report import report, seconds_text
from clipadapt.adaptations import Adaptation
from clipadapt.test_time import AnchoredMixture, GaussianMixture, LabelPropagation, WholeSetMethod

METHODS: dict[str, type[WholeSetMethod]] = {
    "transclip": GaussianMixture,
    "stata": AnchoredMixture,
    "zlap": LabelPropagation,
}
OF_TEXT, OF_CLASS = 0.12, 0.5
"""Lengths of the class's text, and of what else its images share, in a feature beside noise of length 1."""


def draw(images: int, classes: int, width: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return unit features `[N, D]`, unit class embeddings `[C, D]`, and the images' classes `[N]`."""
    generator = torch.Generator().manual_seed(0)
    text = functional.normalize(torch.randn(classes, width, generator=generator), dim=-1)
    labels = torch.arange(images) % classes
    shared = OF_TEXT * text + OF_CLASS * functional.normalize(torch.randn(classes, width, generator=generator), dim=-1)
    noise = functional.normalize(torch.randn(images, width, generator=generator), dim=-1)
    return functional.normalize(noise + shared[labels], dim=-1), text, labels


def measure(name: str, images: int, classes: int, width: int) -> dict[str, Any]:
    """Return the row of one method, measured in this process."""
    features, text, labels = draw(images, classes, width)
    adaptation = Adaptation(None, SimpleNamespace(class_names=[], templates=[], words={}))  # type: ignore[arg-type]
    method, before = METHODS[name](), peak_mb()
    began, began_cpu = time.perf_counter(), time.process_time()
    with torch.no_grad():
        logits = method.compute_logits(features, text, adaptation)
    took = {"seconds": time.perf_counter() - began, "cpu_seconds": time.process_time() - began_cpu}
    memory = peak_mb() - before
    accuracies = [float((one.argmax(dim=-1) == labels).float().mean()) for one in (features @ text.T, logits)]
    size = {"method": name, "images": images, "classes": classes, "width": width}
    return {**size, **took, "memory_mb": memory, "pairs_mb": 4 * images**2 / 1e6, "accuracies": accuracies}


def alone(*given: Any) -> dict[str, Any]:
    """Return what `measure` returns, from a fresh process."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(measure, *given).result()


def main(argv: Sequence[str] | None = None) -> None:
    """Measure all methods, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--methods", nargs="+", choices=[*METHODS], default=[*METHODS])
    parser.add_argument("--images", type=int, default=2_000)
    parser.add_argument("--classes", type=int, default=100)
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--out", type=Path, metavar="FILE", help="JSON file to write")
    chosen = parser.parse_args(argv)
    columns = {
        "method": lambda row: row["method"],
        "time": lambda row: seconds_text(row["seconds"]),
        "CPU": lambda row: seconds_text(row["cpu_seconds"]),
        "peak memory": lambda row: f"{row['memory_mb']:,.0f} MB",
        "all pairs": lambda row: f"{row['pairs_mb']:,.0f} MB",
        "accuracy": lambda row: " → ".join(f"{100 * one:.1f} %" for one in row["accuracies"]),
    }
    rows = (alone(name, chosen.images, chosen.classes, chosen.width) for name in chosen.methods)
    report(f"{chosen.images:,} images of {chosen.classes:,} classes together", chosen, columns, rows)


if __name__ == "__main__":
    main()
