"""Images whose label is probably wrong: a table, CSV, and a page with the images."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from clipadapt.report.csv_rows import as_csv
from clipadapt.report.gallery import Card, Gallery
from clipadapt.report.tables import count_text, percent_text

if TYPE_CHECKING:
    from clipadapt.data import Split


@dataclass(frozen=True)
class Suspect:
    """An image whose label is probably wrong.

    Attributes:
        split: name of its split.
        index: of the image in the split.
        image: its name.
        label: the label it has.
        likelier: a likelier one.
        probability: of the likelier label.
    """

    split: str
    index: int
    image: str
    label: str
    likelier: str
    probability: float


def audit_table(suspects: Sequence[Suspect]) -> Table:
    """Return a table with a line for each image, in their order."""
    table = Table("image", "label", "likelier label", "probability", title="Labels that are probably wrong")
    table.title_justify, table.columns[3].justify = "left", "right"
    for one in suspects:
        cells = (Text(cell, overflow="fold") for cell in (one.image, one.label, one.likelier))
        table.add_row(*cells, percent_text(one.probability))
    return table


def audit_csv(suspects: Sequence[Suspect]) -> str:
    """Return CSV with a row for each image, in their order."""
    rows = ([one.split, one.image, one.label, one.likelier, f"{one.probability:.6g}"] for one in suspects)
    return as_csv([["split", "image", "label", "likelier", "probability"], *rows])


def audit_page(title: str, suspects: Sequence[Suspect], splits: Mapping[str, "Split"], notes: Sequence[str]) -> Gallery:
    """Return the page of the images, in their order.

    Args:
        title: the data.
        suspects: the images, the least likely labels first.
        splits: the splits by name.
        notes: what couldn't be checked.
    """
    cards = [
        Card(
            one.image,
            splits[one.split].images,
            one.index,
            [
                PurePath(one.image).name,
                f"labelled {one.label}",
                f"likelier {one.likelier}: {percent_text(one.probability)}",
            ],
        )
        for one in suspects
    ]
    images = sum(map(len, splits.values()))
    return Gallery(
        f"Labels of {title}",
        [f"Of {count_text(images, 'image')}, {len(suspects):,} probably have a wrong label: look at them.", *notes],
        [("The least likely labels come first", cards)] if cards else [],
    )
