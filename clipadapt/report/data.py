"""A table of a data set's splits."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from clipadapt.data.tasks import unique_names

if TYPE_CHECKING:
    from clipadapt.data import Source, Split


def splits_table(source: "Source", splits: Mapping[str, "Split"], broken: Mapping[str, int]) -> Table:
    """Return a table of the images, broken images and images per class of each split."""
    table = Table(title=Text(f"Data: {source.name}, {len(source.class_names):,} classes"), title_justify="left")
    table.add_column("split")
    for column in ("images", "broken", "images of a class"):
        table.add_column(column, justify="right")
    for name, split in splits.items():
        of_a_class = (
            images_per_class_text(split.labels, split.class_names or source.class_names)
            if split.labelled
            else "not labelled"
        )
        table.add_row(Text(name), f"{len(split):,}", f"{broken[name]:,}", Text(of_a_class))
    return table


def images_per_class_text(labels: Sequence[int], class_names: Sequence[str]) -> str:
    """Return the least and largest number of images per class, with the first class that has it."""
    counts = Counter(labels)
    of_classes = [(name, counts[label]) for label, name in enumerate(unique_names(class_names))]
    numbers = [number for _, number in of_classes]
    fewest, most = min(numbers), max(numbers)
    if fewest == most:
        return f"{most:,} each"
    return " to ".join(f"{number:,} ({classes_with(of_classes, number)})" for number in (fewest, most))


def classes_with(of_classes: Sequence[tuple[str, int]], number: int) -> str:
    """Return the first class with this number of images, and how many other classes have it."""
    first, *more = [name for name, count in of_classes if count == number]
    return f"{first} and {len(more):,} more" if more else first
