"""Counts and times of a server, in the text format of Prometheus."""

import itertools
import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator, Sequence

import psutil

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
SIZES = (1, 2, 4, 8, 16, 32, 64)


class Histogram:
    """Counts of values by upper bounds.

    Args:
        name: of the metric.
        text: what it is.
        bounds: the upper bounds, ascending; the last bin is without bound.
    """

    def __init__(self, name: str, text: str, bounds: Sequence[float]) -> None:
        self.name, self.text, self.bounds = name, text, bounds
        self.counts, self.sum = [0] * (len(bounds) + 1), 0.0

    def add(self, value: float) -> None:
        """Count a value."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value

    def lines(self) -> Iterator[str]:
        """Yield the lines of the metric."""
        yield from _head(self.name, self.text, "histogram")
        names = [*map(str, self.bounds), "+Inf"]
        for name, count in zip(names, itertools.accumulate(self.counts), strict=True):
            yield f'{self.name}_bucket{{le="{name}"}} {count}'
        yield f"{self.name}_sum {self.sum:.6f}"
        yield f"{self.name}_count {sum(self.counts)}"


class Metrics:
    """What a server has done since it started."""

    def __init__(self) -> None:
        self.statuses: Counter[int] = Counter()
        self.images = 0
        self.seconds = Histogram("clipadapt_request_seconds", "Seconds from a request to its answer.", SECONDS)
        self.sizes = Histogram("clipadapt_batch_images", "Images of a batch.", SIZES)
        self._began, self._process = time.monotonic(), psutil.Process()

    def answered(self, status: int, images: int, seconds: float) -> None:
        """Count an answer to a request for predictions."""
        self.statuses[status] += 1
        self.images += images
        self.seconds.add(seconds)

    def text(self, queued: int) -> str:
        """Return the metrics, with the number of images that wait."""
        gauges = {
            "clipadapt_queued_images": ("Images that are accepted and not answered yet.", queued),
            "clipadapt_uptime_seconds": ("Seconds since the start.", round(time.monotonic() - self._began, 3)),
            "process_resident_memory_bytes": ("Memory of the process.", self._process.memory_info().rss),
        }
        lines = [*_head("clipadapt_requests_total", "Requests for predictions, by status.", "counter")]
        lines += [f'clipadapt_requests_total{{status="{key}"}} {count}' for key, count in sorted(self.statuses.items())]
        lines += [*_head("clipadapt_images_total", "Images answered.", "counter")]
        lines += [f"clipadapt_images_total {self.images}", *self.seconds.lines(), *self.sizes.lines()]
        for name, (text, value) in gauges.items():
            lines += [*_head(name, text, "gauge"), f"{name} {value}"]
        return "\n".join(lines) + "\n"


def _head(name: str, text: str, kind: str) -> list[str]:
    return [f"# HELP {name} {text}", f"# TYPE {name} {kind}"]
