"""The HTML report of a study: tables, curves, and changes by class and image, in a self-contained page."""

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

MAX_CLASSES = 30
MAX_IMAGES = 12
THUMBNAIL = 192
WAYS = ("Wrong before, right now", "up-text"), ("Right before, wrong now", "down-text")
TEMPLATE = "page.html.j2"


@dataclass(frozen=True)
class PredictionChanges:
    """A run's predictions compared with zero-shot CLIP's on one of its test sets.

    Attributes:
        title: the run, and the test set if it isn't the first one.
        class_names: names of the C classes.
        labels: labels of the N test images.
        before, after: the class predicted for each image, by zero-shot CLIP and by the run.
        images: the test images, of which only those with a changed prediction are loaded; None if they are missing.
        unread: the reason why they are missing.
    """

    title: str
    class_names: Sequence[str]
    labels: Sequence[int]
    before: Sequence[int]
    after: Sequence[int]
    images: Sequence[Image.Image] | None = None
    unread: str | None = None

    def changed(self, to_right: bool) -> list[int]:
        """Return the indices of images whose prediction became right, or became wrong."""
        triples = enumerate(zip(self.labels, self.before, self.after, strict=True))
        return [place for place, (label, b, a) in triples if b != a and label == (a if to_right else b)]

    def by_class(self) -> list[tuple[str, float]]:
        """Return each class with test images and its change in points of accuracy, the largest gain first."""
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
    """The content of a page, in order.

    Attributes:
        title: the heading.
        lead: paragraphs below the heading.
        sheets: the tables.
        curves: a PNG file; None for no picture.
        gains: runs to compare with zero-shot CLIP class by class.
    """

    title: str
    lead: Sequence[str]
    sheets: Sequence[Sheet]
    curves: Path | None = None
    gains: Sequence[PredictionChanges] = field(default_factory=list)

    def html(self) -> str:
        """Return the page as HTML, pictures included."""
        return render(
            TEMPLATE,
            title=self.title,
            lead=self.lead,
            sheets=self.sheets,
            curves=None if self.curves is None else inline(self.curves.read_bytes(), "png"),
            gains=[template_values(gain) for gain in self.gains],
        )


def render(template: str, **values: Any) -> str:
    """Return a page as HTML, given a template beside this module and its values."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("clipadapt", "report"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    return environment.get_template(template).render(foot=f"Made by clipadapt {__version__}.", **values)


def template_values(gain: PredictionChanges) -> dict[str, Any]:
    """Return the values that the template needs for one run's changes."""
    changes = gain.by_class()
    largest = max((abs(points) for _, points in changes), default=0) or 1
    most = changes if len(changes) <= MAX_CLASSES else largest_changes(changes)
    right, wrong = gain.changed(True), gain.changed(False)
    groups, unread = [], gain.unread
    try:
        groups = [
            (heading(text, len(places)), way, thumbnails(gain, places))
            for (text, way), places in zip(WAYS, (right, wrong), strict=True)
        ]
    except UserError as error:  # a file is gone, or damaged behind its header
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
    """Return the heading of a group of images, with their number if not all are shown."""
    return text if images <= MAX_IMAGES else f"{text} ({MAX_IMAGES} of {images:,})"


def largest_changes(changes: Sequence[tuple[str, float]]) -> list[tuple[str, float]]:
    """Return the largest gains and the largest losses."""
    half = MAX_CLASSES // 2
    return [*changes[:half], *changes[-half:]]


def bar(name: str, points: float, largest: float) -> dict[str, Any]:
    """Return the template values of a class's bar, which points to the right for a gain."""
    side = "up" if points >= 0 else "down"
    return {"name": name, "side": side, "width": round(100 * abs(points) / largest, 1), "text": f"{points:+.1f}"}


def thumbnails(gain: PredictionChanges, places: Sequence[int]) -> list[dict[str, str]]:
    """Return evenly spaced examples of the images at these indices, with their class and both predictions."""
    if gain.images is None:
        return []
    count = min(len(places), MAX_IMAGES)
    found = []
    for place in (places[index * len(places) // count] for index in range(count)):
        label, before, after = (gain.class_names[of[place]] for of in (gain.labels, gain.before, gain.after))
        found.append({"source": thumbnail(gain.images[place]), "label": label, "before": before, "after": after})
    return found


def thumbnail(image: Image.Image, side: int = THUMBNAIL) -> str:
    """Return a small copy of an image, with sides of at most so many pixels, as a data URL."""
    small = image.convert("RGB")
    small.thumbnail((side, side))
    file = io.BytesIO()
    small.save(file, "JPEG", quality=80)
    return inline(file.getvalue(), "jpeg")


def inline(content: bytes, kind: str) -> str:
    """Return an image file as a data URL."""
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
