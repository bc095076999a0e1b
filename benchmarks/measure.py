"""What the benchmarks measure with: sides timed in turn, the machine's matrix products, the peak of memory."""

import os
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks.operations import Work
from clipadapt.backbone.open_clip import CLIP

Step = Callable[[], object]

LEAST_PRODUCTS = {"cpu": 4e9, "cuda": 2e11}
"""Multiply-adds that are timed together, so that neither the clock nor the wait for the device counts."""


class Product:
    """Matrix products of the work's shape, rows x W times W x 4W.

    Attributes:
        multiply_adds: of one call.
    """

    def __init__(self, work: Work, clip: CLIP) -> None:
        like = {"device": clip.device, "dtype": clip.dtype}
        self.left = torch.randn(work.rows, work.width, **like)
        self.right = torch.randn(work.width, 4 * work.width, **like)
        self.out = torch.empty(work.rows, 4 * work.width, **like)
        single = work.rows * 4 * work.width**2
        self.count = max(1, round(LEAST_PRODUCTS[clip.device.type] / single))
        self.multiply_adds = self.count * single

    def __call__(self) -> None:
        """Multiply."""
        for _ in range(self.count):
            torch.mm(self.left, self.right, out=self.out)


def timed(step: Step, device: torch.device) -> float:
    """Seconds that a step takes until the device is done with it."""
    wait(device)
    began = time.perf_counter()
    step()
    wait(device)
    return time.perf_counter() - began


def wait(device: torch.device) -> None:
    """Wait until the device has done all it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def interleaved(sides: Mapping[str, Step], repeats: int, device: torch.device) -> dict[str, list[float]]:
    """Seconds of each side's repeats: all sides in turn, then again; a first round isn't counted."""
    rounds = [{name: timed(side, device) for name, side in sides.items()} for _ in range(repeats + 1)]
    return {name: [seconds[name] for seconds in rounds[1:]] for name in sides}


def compare(
    sides: Mapping[str, Step],
    works: Sequence[Work],
    clip: CLIP,
    repeats: int,
    factor: float = 1,
    ours: Callable[[Mapping[str, list[float]]], list[float]] = lambda seconds: seconds["ours"],
) -> dict[str, Any]:
    """Time our side, the plain side and the matrix products of the works in turn.

    Args:
        sides: steps by name; "plain" is one of them.
        works: what our side can't do without.
        clip: the backbone, on its device.
        repeats: of each side.
        factor: how many times the plain step has to be taken for what our side does.
        ours: our side's seconds from those of the steps.

    Returns:
        Medians of the seconds, their ratio, the floor, and all repeats, ready for JSON.
    """
    products = {f"product {i}": Product(work, clip) for i, work in enumerate(works)}
    seconds = interleaved({**sides, **products}, repeats, clip.device)
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    rates = [product.multiply_adds / medians[name] for name, product in products.items()]
    floor = sum(work.multiply_adds / rate for work, rate in zip(works, rates, strict=True))
    own = statistics.median(ours(seconds))
    return {
        "ours_seconds": own,
        "plain_seconds": factor * medians["plain"],
        "plain_factor": factor,
        "ratio": factor * medians["plain"] / own,
        "floor_seconds": floor,
        "floor_share": floor / own,
        "floor": [{**vars(work), "multiply_adds_per_second": rate} for work, rate in zip(works, rates, strict=True)],
        "median_seconds": medians,
        "seconds": seconds,
    }


def peak_bytes(step: Step, device: torch.device) -> int:
    """Most memory that torch holds during a step, beyond what it held before.

    The step runs once before, so that what is allocated only once counts as held. On a CPU every allocation is
    followed; a step that frees what was held before would look larger than it is.
    """
    step()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        held = torch.cuda.memory_allocated(device)
        step()
        return torch.cuda.max_memory_allocated(device) - held
    os.environ.setdefault("KINETO_LOG_LEVEL", "9")  # the profiler's own messages
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        step()
    events = [event for event in profiled.profiler.kineto_results.events() if event.name() == "[memory]"]
    held = peak = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        held += event.nbytes()
        peak = max(peak, held)
    return peak
