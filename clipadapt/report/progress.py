"""Live progress bars: over the epochs, and over images that are encoded."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

from clipadapt.report.tables import score_name


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

        def update(row: Mapping[str, float]) -> None:
            name = score_name(row)
            score = f"{100 * row[name]:.1f} %" if name == "accuracy" else f"{row[name]:.3g}"
            text = f"loss {row['loss']:.3f}, training {name} {score}"
            progress.update(bar, update=1, loss=text)

        yield update


@contextmanager
def images(
    console: Console, total: int, done: str = "encoded or kept", transient: bool = False
) -> Iterator[Callable[[int], None]]:
    """A bar over images, with their number per second; it appears with the first of them.

    Args:
        console: where to print.
        total: how many there are.
        done: in words, what becomes of them.
        transient: whether the bar goes when all are done.
    """
    columns = (TextColumn(f"images {done}"), BarColumn(), MofNCompleteColumn(), Speed(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=transient) as progress:
        bar = progress.add_task("", total=total, visible=False)

        def update(count: int) -> None:
            progress.update(bar, update=count, visible=True)

        yield update


class Speed(ProgressColumn):
    """Images per second."""

    def render(self, task: Task) -> Text:
        """The speed, once it is known."""
        return Text("" if task.speed is None else f"{task.speed:,.0f} images/s")
