"""Progress bars over epochs and over images."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

from clipadapt.report.tables import score_name


@contextmanager
def epochs(console: Console, done: int, total: int) -> Iterator[Callable[[Mapping[str, float]], None]]:
    """Show a bar from `done` to `total` epochs; yields a function that takes an epoch's record and advances the bar."""
    columns = (
        TextColumn("epoch"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[loss]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, disable=total == 0 or is_hidden(console)) as progress:
        bar = progress.add_task("", total=total, completed=done, loss="")

        def update(row: Mapping[str, float]) -> None:
            name = score_name(row)
            score = f"{100 * row[name]:.1f} %" if name == "accuracy" else f"{row[name]:.3g}"
            text = f"loss {row['loss']:.3f}, training {name} {score}"
            progress.update(bar, advance=1, loss=text)

        yield update


@contextmanager
def images(
    console: Console, total: int, done: str = "encoded or cached", transient: bool = False
) -> Iterator[Callable[[int], None]]:
    """Show a bar over images with their number per second, from the first one on; yields a function to advance it.

    Args:
        console: the console to print to.
        total: the number of images.
        done: a verb for what is done to them, in the past participle.
        transient: whether the bar disappears at the end.
    """
    columns = (TextColumn(f"images {done}"), BarColumn(), MofNCompleteColumn(), Speed(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=transient, disable=is_hidden(console)) as progress:
        bar = progress.add_task("", total=total, visible=False)

        def update(count: int) -> None:
            progress.update(bar, advance=count, visible=True)

        yield update


def is_hidden(console: Console) -> bool:
    """Return whether a console shows no bars: it is quiet, or of a notebook without ipywidgets, which draws them."""
    return console.quiet or (console.is_jupyter and find_spec("ipywidgets") is None)


class Speed(ProgressColumn):
    """A column with the images per second."""

    def render(self, task: Task) -> Text:
        """Return the speed, once it is known."""
        return Text("" if task.speed is None else f"{task.speed:,.0f} images/s")
