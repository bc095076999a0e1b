"""A live progress bar over the epochs."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn


@contextmanager
def epochs(console: Console, done: int, total: int) -> Iterator[Callable[[Mapping[str, float]], None]]:
    """A bar from `done` to `total` epochs; the function it yields takes an epoch's record and moves it on."""
    columns = (
        TextColumn("epoch"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[loss]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, disable=total == 0) as progress:
        bar = progress.add_task("", total=total, completed=done, loss="")

        def advance(row: Mapping[str, float]) -> None:
            text = f"loss {row['loss']:.3f}, training accuracy {100 * row['accuracy']:.1f} %"
            progress.update(bar, advance=1, loss=text)

        yield advance
