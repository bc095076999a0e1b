"""A default run by its parts: CPU seconds and wall-clock seconds of each, in a process of its own.

    OMP_NUM_THREADS=1 python -m benchmarks.parts engine.epochs=50

Does what `clipadapt` does with the given settings, in a temporary directory, with an empty store of features. The
library's own functions are timed from outside; a part within another counts for itself alone. "imports" has all
packages that the run needs, "other" what belongs to no part: composing the settings, printing, writing the results.
"""

import argparse
import importlib
import pkgutil
import resource
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

PACKAGES = (
    "clipadapt.api",
    "clipadapt.adaptations",
    "clipadapt.objectives",
    "torchmetrics.classification",
    "sklearn.datasets",
    "matplotlib.figure",
)
"""What a default run imports, at the start or when it is first used."""

PARTS = {
    "data": ("clipadapt.runs.run.build_task", "clipadapt.runs.run.validated_images"),
    "backbone": ("clipadapt.backbone.open_clip.CLIP.load",),
    "encoding": ("clipadapt.features.encoder.Encoder.find", "clipadapt.features.encoder.Encoder.compute"),
    "steps": ("clipadapt.engine.run.Run.fit",),
    "evaluation": ("clipadapt.runs.train.evaluate_run",),
    "pictures": ("clipadapt.report.summary.draw_pictures",),
}
"""The library's functions that make up each part."""


def clocks() -> tuple[float, float]:
    """CPU seconds of this process and its ended children, and the wall clock."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used), time.perf_counter()


class Parts:
    """Seconds by part, each without the parts within it."""

    def __init__(self) -> None:
        self.cpu: Counter[str] = Counter()
        self.wall: Counter[str] = Counter()
        self._open = ["other"]
        self._last = clocks()

    def settle(self) -> None:
        """Add the seconds since the last call to the innermost part that is open."""
        now = clocks()
        self.cpu[self._open[-1]] += now[0] - self._last[0]
        self.wall[self._open[-1]] += now[1] - self._last[1]
        self._last = now

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Count the block as a part."""
        self.settle()
        self._open.append(name)
        try:
            yield
        finally:
            self.settle()
            self._open.pop()

    def timed(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """A function that counts as a part; of a generator each step does, not what is done between them."""

        def call(*arguments: Any, **options: Any) -> Any:
            with self.part(name):
                result = function(*arguments, **options)
            return self._steps(name, result) if isinstance(result, Iterator) else result

        return call

    def _steps(self, name: str, steps: Iterator[Any]) -> Iterator[Any]:
        while True:
            with self.part(name):
                value = next(steps, self)
            if value is self:
                return
            yield value


def measure(settings: Sequence[str]) -> list[dict[str, Any]]:
    """Rows of a run with these settings, one a part."""
    parts = Parts()
    with parts.part("imports"):
        for package in PACKAGES:
            importlib.import_module(package)
    from clipadapt.cli.main import run

    with ExitStack() as stack:
        place = stack.enter_context(tempfile.TemporaryDirectory())
        for name, functions in PARTS.items():
            for function in functions:
                stack.enter_context(replaced(function, parts, name))
        run([f"output={place}/runs", f"engine.cache={place}/cache", *settings])
        parts.settle()
    names = ["imports", *PARTS, "other"]
    rows = [{"part": name, "cpu_seconds": parts.cpu[name], "wall_seconds": parts.wall[name]} for name in names]
    total = {"cpu_seconds": parts.cpu.total(), "wall_seconds": parts.wall.total()}
    return [*rows, {"part": "together", **total}]


def replaced(function: str, parts: Parts, name: str) -> Any:
    """A patch that times a function of the library, given by its dotted path."""
    owner, attribute = function.rsplit(".", 1)
    found = pkgutil.resolve_name(owner)
    original = vars(found)[attribute]
    if isinstance(original, classmethod):
        return patch.object(found, attribute, classmethod(parts.timed(name, original.__func__)))
    return patch.object(found, attribute, parts.timed(name, original))


def main(argv: Sequence[str] | None = None) -> None:
    """Run, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("settings", nargs="*", metavar="key=value", help="as of a run on the command line")
    parser.add_argument("--out", type=Path, metavar="FILE", help="JSON file to write")
    chosen = parser.parse_args(argv)
    rows = measure(chosen.settings)
    from benchmarks.report import report, seconds_text  # not before: torch would hide what the imports take

    columns = {
        "part": lambda row: row["part"],
        "CPU": lambda row: seconds_text(row["cpu_seconds"]),
        "wall clock": lambda row: seconds_text(row["wall_seconds"]),
    }
    report("A run by its parts", chosen, columns, rows)


if __name__ == "__main__":
    main()
