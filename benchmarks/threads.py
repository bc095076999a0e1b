"""Steps of one or several processes at once, with one thread each or more.

    python -m benchmarks.threads --backbones tiny ViT-B-32 --threads 1 2 --processes 1 2

A step is CoOp's text side (see `benchmarks.prompts`) and the image tower on a few images. All processes of a row start
their steps together and do the same number of them. `--spin` is the value of GOMP_SPINCOUNT: how long threads of GNU's
OpenMP, which PyTorch has on Linux, wait for each other before they sleep.
"""

import argparse
import multiprocessing
import os
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import product
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

from benchmarks.report import Row, report, seconds_text

Clocks = tuple[float, float]


def clocks() -> Clocks:
    """Return the wall clock, and the CPU seconds of this process."""
    return time.perf_counter(), time.process_time()


def make_step(backbone: str) -> Callable[[], None]:
    """Return a step of a backbone with random weights; of `tiny` with its own."""
    import torch  # not before the environment is set

    import clipadapt
    from benchmarks import command, prompts

    clip = clipadapt.load_backbone(backbone, "default" if backbone == "tiny" else None)
    text = prompts.our_step(clip, "shared", command.class_names(10), 16, 32)
    image = prompts.tower(clip, 4)
    del torch

    def step() -> None:
        text()
        image()

    return step


def work(backbone: str, threads: int, steps: int, together: Barrier, found: Any) -> None:
    """Do steps in a process of its own, at the same time as others, and send the seconds of each."""
    import torch

    torch.set_num_threads(threads)
    step = make_step(backbone)
    step()
    together.wait()
    seconds = []
    for _ in range(steps):
        before = clocks()
        step()
        seconds.append(tuple(after - begin for after, begin in zip(clocks(), before, strict=True)))
    found.put(seconds)


def measure(backbone: str, threads: int, processes: int, steps: int) -> Row:
    """Measure a number of processes at once."""
    context = multiprocessing.get_context("spawn")
    together, found = context.Barrier(processes), context.Queue()
    started = [context.Process(target=work, args=(backbone, threads, steps, together, found)) for _ in range(processes)]
    for process in started:
        process.start()
    seconds = [one for _ in started for one in found.get()]
    for process in started:
        process.join()
    wall, cpu = (statistics.median(values) for values in zip(*seconds, strict=True))
    size = {"backbone": backbone, "threads": threads, "processes": processes}
    return {**size, "wall_seconds": wall, "cpu_seconds": cpu, "seconds": seconds}


def measure_all(chosen: argparse.Namespace) -> Iterator[Row]:
    """Measure all combinations, as often as asked for, and compare each with the fair share."""
    if chosen.spin is not None:
        os.environ["GOMP_SPINCOUNT"] = str(chosen.spin)
    for backbone in chosen.backbones:
        for _, processes, threads in product(range(chosen.repeats), chosen.processes, chosen.threads):
            yield measure(backbone, threads, processes, chosen.steps)


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbones", nargs="+", default=["tiny", "ViT-B-32", "ViT-B-16"])
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--spin", type=int, default=None)
    parser.add_argument("--out", type=Path, metavar="FILE", help="JSON file to write")
    chosen = parser.parse_args(argv)
    columns = {
        "backbone": lambda row: row["backbone"],
        "processes": lambda row: str(row["processes"]),
        "threads": lambda row: str(row["threads"]),
        "wall clock of a step": lambda row: seconds_text(row["wall_seconds"]),
        "CPU": lambda row: seconds_text(row["cpu_seconds"]),
    }
    report("Steps of processes at once", chosen, columns, measure_all(chosen))


if __name__ == "__main__":
    main()
