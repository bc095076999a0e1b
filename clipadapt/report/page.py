"""One page about a study: its tables, its curves, and what became of classes and images; it needs no other file."""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image

from clipadapt import __version__
from clipadapt.errors import UserError
from clipadapt.report.sheets import Sheet
from clipadapt.report.tables import count_text

MOST_CLASSES = 30
MOST_IMAGES = 12
THUMBNAIL = 192
WAYS = ("Wrong before, right now", "up-text"), ("Right before, wrong now", "down-text")
TEMPLATE = "page.html.j2"


@dataclass(frozen=True)
class PredictionChanges:
    """A run against zero-shot on one of its test sets.

    Attributes:
        title: which run, and which test set where that isn't its first.
        class_names: of the C classes.
        labels: of the N test images.
        before, after: the class predicted for each, by zero-shot and by the run.
        images: the test images; looked at only where the answer changed. None where they can't be had.
        unread: why not.
    """

    title: str
    class_names: Sequence[str]
    labels: Sequence[int]
    before: Sequence[int]
    after: Sequence[int]
    images: Sequence[Image.Image] | None = None
    unread: str | None = None

    def changed(self, to_right: bool) -> list[int]:
        """Images whose answer became right, or was right before and no longer is."""
        triples = enumerate(zip(self.labels, self.before, self.after, strict=True))
        return [place for place, (label, b, a) in triples if b != a and label == (a if to_right else b)]

    def by_class(self) -> list[tuple[str, float]]:
        """Classes with test images, and by how many points of accuracy each changed; the largest gain first."""
        totals, changes = [0] * len(self.class_names), [0] * len(self.class_names)
        for label, before, after in zip(self.labels, self.before, self.after, strict=True):
            totals[label] += 1
            changes[label] += (after == label) - (before == label)
        found = [
            (name, 100 * change / total)
            for name, change, total in zip(self.class_names, changes, totals, strict=True)
            if total
        ]
        return sorted(found, key=lambda pair: -pair[1])


@dataclass(frozen=True)
class Page:
    """What a page says, in this order.

    Attributes:
        title: its heading.
        lead: paragraphs below it.
        sheets: tables.
        curves: a PNG; None for no picture.
        gains: runs looked at class by class.
    """

    title: str
    lead: Sequence[str]
    sheets: Sequence[Sheet]
    curves: Path | None = None
    gains: Sequence[PredictionChanges] = field(default_factory=list)

    def html(self) -> str:
        """The page as HTML, pictures included."""
        from jinja2 import Environment, PackageLoader, StrictUndefined

        environment = Environment(
            loader=PackageLoader("clipadapt", "report"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
        )
        return environment.get_template(TEMPLATE).render(
            title=self.title,
            lead=self.lead,
            sheets=self.sheets,
            curves=None if self.curves is None else inline(self.curves.read_bytes(), "png"),
            gains=[shown(gain) for gain in self.gains],
            foot=f"Made by clipadapt {__version__}.",
        )


def shown(gain: PredictionChanges) -> dict[str, Any]:
    """Gains as the template has them."""
    changes = gain.by_class()
    largest = max((abs(points) for _, points in changes), default=0) or 1
    most = changes if len(changes) <= MOST_CLASSES else extremes(changes)
    right, wrong = gain.changed(True), gain.changed(False)
    groups, unread = [], gain.unread
    try:
        groups = [
            (heading(text, len(places)), way, thumbnails(gain, places))
            for (text, way), places in zip(WAYS, (right, wrong), strict=True)
        ]
    except UserError as error:  # a file was damaged in a place that its header doesn't tell of, or is gone
        unread = f"the images can't be shown: {error}"
    return {
        "title": gain.title,
        "right_text": f"{count_text(len(right), 'answer')} became right",
        "wrong_text": f"{len(wrong):,} became wrong",
        "bars": [bar(name, points, largest) for name, points in most],
        "hidden": f"{len(changes) - len(most):,} classes between these aren't shown"
        if len(most) < len(changes)
        else "",
        "groups": groups,
        "unread": unread,
    }


def heading(text: str, images: int) -> str:
    """What stands above images, with their number where not all are shown."""
    return text if images <= MOST_IMAGES else f"{text} ({MOST_IMAGES} of {images:,})"


def extremes(changes: Sequence[tuple[str, float]]) -> list[tuple[str, float]]:
    """The largest gains and the largest losses."""
    half = MOST_CLASSES // 2
    return [*changes[:half], *changes[-half:]]


def bar(name: str, points: float, largest: float) -> dict[str, Any]:
    """A class's bar, to the right for a gain."""
    side = "up" if points >= 0 else "down"
    return {"name": name, "side": side, "width": round(100 * abs(points) / largest, 1), "text": f"{points:+.1f}"}


def thumbnails(gain: PredictionChanges, places: Sequence[int]) -> list[dict[str, str]]:
    """A few of the images at these places, spread evenly, with their class and both answers."""
    if gain.images is None:
        return []
    count = min(len(places), MOST_IMAGES)
    found = []
    for place in (places[index * len(places) // count] for index in range(count)):
        label, before, after = (gain.class_names[of[place]] for of in (gain.labels, gain.before, gain.after))
        found.append({"source": thumbnail(gain.images[place]), "label": label, "before": before, "after": after})
    return found


def thumbnail(image: Image.Image) -> str:
    """A small copy of an image, to stand in a page."""
    small = image.convert("RGB")
    small.thumbnail((THUMBNAIL, THUMBNAIL))
    file = io.BytesIO()
    small.save(file, "JPEG", quality=80)
    return inline(file.getvalue(), "jpeg")


def inline(content: bytes, kind: str) -> str:
    """An image file as an address that holds it."""
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
