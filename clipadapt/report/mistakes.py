"""Mistakes on test images, grouped by confusion: a table, CSV, and a page with the images."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from clipadapt.report.csv_rows import as_csv
from clipadapt.report.gallery import Card, Gallery
from clipadapt.report.predictions import NO_WORDS, SEPARATOR, WORD_COLUMNS, ClassNames
from clipadapt.report.tables import count_text, percent_text

if TYPE_CHECKING:
    from clipadapt.data import Split


@dataclass(frozen=True)
class Neighbour:
    """A support image that is near another image.

    Attributes:
        index: of the image in the support set.
        image: its name.
        label: its class.
        cosine: of the images' frozen features.
    """

    index: int
    image: str
    label: str
    cosine: float


@dataclass(frozen=True)
class Mistake:
    """A test image that was answered wrongly.

    Attributes:
        test: name of its test set.
        index: of the image in the test set.
        image: its name.
        truth, answer: its class, and the one that it was taken for.
        probability: of the answer.
        nearest: support images, the nearest first.
    """

    test: str
    index: int
    image: str
    truth: str
    answer: str
    probability: float
    nearest: Sequence[Neighbour] = ()

    @property
    def confusion(self) -> str:
        """Return the class and the answer in words."""
        return f"{self.truth} → {self.answer}"

    @property
    def nearest_labels(self) -> str:
        """Return the labels of the nearest images with their cosines in words."""
        return ", ".join(f"{one.label} ({one.cosine:.2f})" for one in self.nearest)


def in_order(mistakes: Sequence[Mistake]) -> list[Mistake]:
    """Return mistakes by test set, the most frequent confusions first, the most confident answers first in each."""
    sizes = Counter((one.test, one.truth, one.answer) for one in mistakes)
    tests = [*dict.fromkeys(one.test for one in mistakes)]

    def place(one: Mistake) -> tuple[int, int, str, str, float]:
        size = sizes[one.test, one.truth, one.answer]
        return tests.index(one.test), -size, one.truth, one.answer, -one.probability

    return sorted(mistakes, key=place)


def group(mistakes: Sequence[Mistake]) -> dict[str, list[Mistake]]:
    """Return mistakes, which are in order, by confusion; its heading names the test set if there are several."""
    several = len({one.test for one in mistakes}) > 1
    found: dict[str, list[Mistake]] = {}
    for one in mistakes:
        found.setdefault(f"{one.test}: {one.confusion}" if several else one.confusion, []).append(one)
    return found


def mistakes_table(mistakes: Sequence[Mistake]) -> Table:
    """Return a table of mistakes, which are in order, a section for each confusion."""
    table = Table("image", "probability", "nearest support images", title=count_text(len(mistakes), "mistake"))
    table.title_justify, table.columns[1].justify = "left", "right"
    for heading, some in group(mistakes).items():
        table.add_row(Text(f"{heading} ({len(some):,})", "bold"))
        for one in some:
            image = Text(f"  {one.image}", overflow="fold")
            table.add_row(image, percent_text(one.probability), Text(one.nearest_labels), end_section=one is some[-1])
    return table


def mistakes_csv(mistakes: Sequence[Mistake], words: ClassNames = NO_WORDS) -> str:
    """Return CSV of mistakes: test set, image, class, answer, probability, and the nearest images with their labels.

    If there are `words`, names for CLIP of classes, the last columns are those of the class and the answer.
    """
    most = max((len(one.nearest) for one in mistakes), default=0)
    near = [f"{name}_{k}" for k in range(1, most + 1) for name in ("nearest", "label", "cosine")]
    rows = [["test", "image", "truth", "answer", "probability", *near, *WORD_COLUMNS[: 2 * bool(words)]]]
    for one in mistakes:
        cells = [cell for each in one.nearest for cell in (each.image, each.label, f"{each.cosine:.6g}")]
        cells += [""] * (3 * most - len(cells)) if words else []
        named = [SEPARATOR.join(words.get(name, ())) for name in (one.truth, one.answer)] if words else []
        rows.append([one.test, one.image, one.truth, one.answer, f"{one.probability:.6g}", *cells, *named])
    return as_csv(rows)


def mistakes_page(title: str, mistakes: Sequence[Mistake], tests: Mapping[str, "Split"], support: "Split") -> Gallery:
    """Return the page of mistakes, which are in order.

    Args:
        title: the run.
        mistakes: of the run.
        tests: its test sets.
        support: the images that it learned from.
    """

    def card(one: Mistake) -> Card:
        lines = [PurePath(one.image).name, f"{one.answer}: {percent_text(one.probability)}"]
        near = [(support.images, each.index, f"{each.label} {each.cosine:.2f}") for each in one.nearest]
        return Card(one.image, tests[one.test].images, one.index, lines, near)

    images = sum(map(len, tests.values()))
    return Gallery(
        f"Mistakes: {title}",
        [
            f"{count_text(len(mistakes), 'test image')} of {images:,} answered wrongly, by class → answer; the most "
            "frequent confusions come first, and in each the most confident answers. Near images are those with the "
            "largest cosine of the frozen backbone's features."
        ],
        [(f"{heading} ({len(some):,})", [card(one) for one in some]) for heading, some in group(mistakes).items()],
    )
