"""What the page shows of the images that are dropped onto it, as HTML that loads nothing from elsewhere."""

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from clipadapt.data.images import open_checked
from clipadapt.demo.shown_run import ShownRun
from clipadapt.errors import DataError, UserError
from clipadapt.paths import shorten
from clipadapt.report.page import render, thumbnail

TOP, MOST_IMAGES, MOST_PIXELS, MOST_NAMES = 5, 32, 50_000_000, 1000
"""Classes of an answer; images, pixels of an image and class names that are taken at once."""
LOG = logging.getLogger(__name__)


class Demo:
    """Answers what is dropped onto the page.

    Args:
        runs: the runs that answer, side by side.
    """

    def __init__(self, runs: Sequence[ShownRun]) -> None:
        self.runs = list(runs)

    def answer(self, paths: Sequence[str] | None, names: str | None, looks: bool, near: bool) -> str:
        """Return the answers to image files as HTML; a file that can't be read has the reason in its place.

        Args:
            paths: the files.
            names: class names in place of the runs', one a line; none for those.
            looks: whether to show where the models look.
            near: whether to show the nearest images that were learned from.
        """
        try:
            classes, files = read_names(names or ""), [*(paths or [])]
            problem = f"The first {MOST_IMAGES} of {len(files)} images are shown." if len(files) > MOST_IMAGES else ""
            cards = [self._card(path, classes, looks, near) for path in files[:MOST_IMAGES]]
        except UserError as error:
            cards, problem = [], str(error)
        return render("demo.html.j2", cards=cards, problem=problem)

    def _card(self, path: str, names: Sequence[str], looks: bool, near: bool) -> dict[str, Any]:
        name = shorten(Path(path).name)
        try:
            check_size(path)
            image = self.runs[0].predictor.framing.read(path)
        except UserError as error:
            return {"name": name, "error": without_folder(str(error), path), "source": "", "runs": []}
        return {
            "name": name,
            "error": "",
            "source": thumbnail(image, 320),
            "runs": [self._answers(run, path, names, looks, near) for run in self.runs],
        }

    def _answers(self, run: ShownRun, path: str, names: Sequence[str], looks: bool, near: bool) -> dict[str, Any]:
        """Return what a run says of an image: each part, or a sentence why not."""
        parts: Mapping[str, Callable[[], Any]] = {
            "classes": lambda: run.probabilities(path, names)[:TOP],
            **({"looks": lambda: thumbnail(run.attention(path), 224)} if looks else {}),
            **({"near": lambda: [near_values(one) for one in run.nearest(path)]} if near else {}),
        }
        found: dict[str, Any] = {"title": run.title, "classes": [], "looks": "", "near": [], "notes": []}
        for key, make in parts.items():
            try:
                found[key] = make()
            except UserError as error:
                found["notes"].append(without_folder(str(error), path))
            except Exception:
                LOG.exception("an answer failed")
                found["notes"].append("this failed: the terminal of the demo says why")
        return found


def near_values(one: Any) -> dict[str, str]:
    """Return what the page shows of a near image."""
    return {"source": thumbnail(one.image, 96), "text": f"{one.label} {one.cosine:.2f}"}


def read_names(text: str) -> list[str]:
    """Return the class names of a text, one a line.

    Raises:
        UserError: there is one alone, one is there twice, or there are too many.
    """
    names = [line.strip() for line in text.splitlines() if line.strip()]
    if len(names) == 1:
        raise UserError("One class name alone says nothing of an image: give two or more, one a line.")
    if len({*names}) < len(names):
        raise UserError("A class name is there twice.")
    if len(names) > MOST_NAMES:
        raise UserError(f"There are {len(names):,} class names, and {MOST_NAMES:,} are taken here.")
    return names


def check_size(path: str) -> None:
    """Check the number of pixels in an image's header; raises DataError."""
    with open_checked(path) as (_, header):
        pixels = header.width * header.height
        if pixels > MOST_PIXELS:
            raise DataError(f"it has {pixels:,} pixels, and {MOST_PIXELS:,} are taken here; make it smaller")


def without_folder(message: str, path: str) -> str:
    """Return a message with a file's name in place of the path that the page has put it to."""
    return message.replace(path, Path(path).name)
