"""A self-contained HTML page of images in groups, each with what is to be said of it."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from PIL import Image

from clipadapt.errors import UserError
from clipadapt.report.page import render, thumbnail
from clipadapt.report.tables import count_text

TEMPLATE = "gallery.html.j2"
MAX_CARDS = 300
"""Images that a page shows, which is some 10 MB."""
SMALL = 96


@dataclass(frozen=True)
class Card:
    """An image of a page.

    Attributes:
        name: of the image.
        images, index: where the image is, which is loaded when the page is made.
        lines: what is said of it.
        near: images and indices of similar ones, each with its label.
    """

    name: str
    images: Sequence[Image.Image]
    index: int
    lines: Sequence[str]
    near: Sequence[tuple[Sequence[Image.Image], int, str]] = ()


@dataclass(frozen=True)
class Gallery:
    """A page of images in groups, in order.

    Attributes:
        title: the heading.
        lead: paragraphs below the heading.
        groups: headings with their images.
    """

    title: str
    lead: Sequence[str]
    groups: Sequence[tuple[str, Sequence[Card]]] = field(default_factory=list)

    def html(self) -> str:
        """Return the page as HTML, with the first images included."""
        total, left = sum(len(cards) for _, cards in self.groups), MAX_CARDS
        groups = []
        for heading, cards in self.groups:
            if left > 0:
                groups.append({"heading": heading, "cards": [card_values(card) for card in cards[:left]]})
            left -= len(cards)
        hidden = [f"The first {count_text(MAX_CARDS, 'image')} of {total:,} are shown."] if total > MAX_CARDS else []
        return render(TEMPLATE, title=self.title, lead=[*self.lead, *hidden], groups=groups)


def card_values(card: Card) -> dict[str, Any]:
    """Return the template values of an image; one that can't be read has an empty picture, and the reason."""
    source, lines = "data:,", [*card.lines]
    try:
        source = thumbnail(card.images[card.index])
    except UserError as error:
        lines.append(f"It can't be shown: {error}")
    near = [(thumbnail(images[index], SMALL), label) for images, index, label in card.near]
    return {"name": card.name, "source": source, "lines": lines, "near": near}
