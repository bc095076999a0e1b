"""A table of what a data set holds."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from rich.table import Table

from clipadapt.data.tasks import unique_names

if TYPE_CHECKING:
    from clipadapt.data import Source, Split


def splits_table(source: "Source", splits: Mapping[str, "Split"], broken: Mapping[str, int]) -> Table:
    """Images and broken ones of each split, and how many of them a class has."""
    table = Table(title=f"Data: {source.name}, {len(source.class_names):,} classes", title_justify="left")
    table.add_column("split")
    for column in ("images", "broken", "images of a class"):
        table.add_column(column, justify="right")
    for name, split in splits.items():
        of_a_class = spread(split.labels, split.class_names or source.class_names) if split.labelled else "not labelled"
        table.add_row(name, f"{len(split):,}", f"{broken[name]:,}", of_a_class)
    return table


def spread(labels: Sequence[int], class_names: Sequence[str]) -> str:
    """The least and the largest number of images of a class, with the first class that has it."""
    counts = Counter(labels)
    of_classes = [(name, counts[label]) for label, name in enumerate(unique_names(class_names))]
    numbers = [number for _, number in of_classes]
    fewest, most = min(numbers), max(numbers)
    if fewest == most:
        return f"{most:,} each"
    return " to ".join(f"{number:,} ({having(of_classes, number)})" for number in (fewest, most))


def having(of_classes: Sequence[tuple[str, int]], number: int) -> str:
    """The first of the classes with so many images, and how many more there are."""
    first, *more = [name for name, count in of_classes if count == number]
    return f"{first} and {len(more):,} more" if more else first
