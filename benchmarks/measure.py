"""Measurements: interleaved timings of both sides, the machine's matrix product rate, and peak memory."""

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
"""Multiply-adds that are timed together: enough that neither the clock nor the device's latency counts."""


class Product:
    """Matrix products in the shape of a work: rows x W times W x 4W.

    Attributes:
        multiply_adds: the number in one call.
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
        """Compute the products."""
        for _ in range(self.count):
            torch.mm(self.left, self.right, out=self.out)


def timed(step: Step, device: torch.device) -> float:
    """Return the seconds that a step takes, until the device has finished it."""
    wait(device)
    began = time.perf_counter()
    step()
    wait(device)
    return time.perf_counter() - began


def wait(device: torch.device) -> None:
    """Wait until the device has finished all its work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def interleaved(sides: Mapping[str, Step], repeats: int, device: torch.device) -> dict[str, list[float]]:
    """Return each side's seconds: all sides in turn in each round; the first round is not counted."""
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
    """Time our side, the plain side and the matrix products of the works, in turn.

    Args:
        sides: steps by name; "plain" is one of them.
        works: the least work of our side.
        clip: the backbone, on its device.
        repeats: the number of timings of each side.
        factor: the number of plain steps that do the same as our side.
        ours: returns our side's seconds, given those of the steps.

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
    """Return the peak memory that torch allocates during a step, beyond its memory before.

    The step runs once before, so that memory that is allocated only once is not counted. On a CPU every allocation is
    traced; a step that frees memory allocated before would look larger than it is.
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
