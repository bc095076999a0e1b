"""Digits and letters: typeset in matplotlib's fonts, and digits drawn with a pen."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from clipadapt.data.drawn.fields import Field, centred, from_raster

DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
# The letter o is left out, and so are l and I: nobody can tell them from a zero and a one.
LETTERS = tuple("abcdefghijklmnpqrstuvwxyz")
UNCLEAR = ("l", "I")
FONTS = (
    *(f"DejaVuSans{cut}" for cut in ("", "-Bold", "-Oblique", "-BoldOblique")),
    *(f"DejaVuSansMono{cut}" for cut in ("", "-Bold", "-Oblique", "-BoldOblique")),
    *(f"DejaVuSerif{cut}" for cut in ("", "-Bold", "-Italic", "-BoldItalic")),
    *(f"STIXGeneral{cut}" for cut in ("", "Bol", "Italic", "BolIta")),
    *("cmr10", "cmb10", "cmss10", "cmtt10"),
)
Stroke = tuple[bool, tuple[tuple[float, float], ...]]


@cache
def typeset_field(character: str, font: str) -> Field:
    """Return the field of a character in one of FONTS; raise OSError if matplotlib does not bring the font."""
    import matplotlib  # here, since it is slow to import and only its folder is wanted

    path = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / f"{font}.ttf"
    face = ImageFont.truetype(str(path), 150)
    image = Image.new("L", (400, 400))
    ImageDraw.Draw(image).text((100, 80), character, font=face, fill=255)
    return from_raster(centred(image.crop(image.getbbox())))


def characters(name: str) -> list[str]:
    """Return the characters that a glyph's name may stand for: "seven" -> ["7"], "a" -> ["a", "A"]."""
    if name in DIGITS:
        return [str(DIGITS.index(name))]
    return [character for character in (name, name.upper()) if character not in UNCLEAR]


def line(*points: tuple[float, float]) -> Stroke:
    """Make a stroke of straight pieces."""
    return False, points


def curve(*points: tuple[float, float]) -> Stroke:
    """Make a smooth stroke through the points."""
    return True, points


def oval(centre: float, across: float, down: float) -> Stroke:
    """Make a closed stroke around (0, centre)."""
    angles = -np.pi / 2 + 2 * np.pi * np.arange(10) / 8
    return curve(*((float(across * np.cos(a)), float(centre + down * np.sin(a))) for a in angles))


LOOP = ((0.45, -0.5), (0.1, -0.05), (-0.4, -0.2), (-0.45, -0.7), (0.0, -1.0), (0.4, -0.8), (0.45, -0.5))
HOOK = ((-0.55, -0.55), (-0.3, -0.95), (0.2, -0.98), (0.55, -0.6), (0.4, -0.1), (-0.1, 0.4), (-0.6, 0.95))
BELLY = ((-0.05, -0.2), (0.5, 0.1), (0.55, 0.6), (0.1, 1.0), (-0.55, 0.8))
BOWL = ((-0.5, -0.1), (-0.05, -0.3), (0.5, 0.0), (0.55, 0.55), (0.1, 1.0), (-0.55, 0.8))
PEN: dict[str, tuple[tuple[Stroke, ...], ...]] = {
    "zero": ((oval(0, 0.75, 1),), (oval(0, 0.5, 1),), (oval(0, 0.95, 0.95),)),
    "one": (
        (line((0, -1), (0, 1)),),
        (line((-0.4, -0.5), (0, -1), (0, 1)),),
        (line((-0.4, -0.5), (0, -1), (0, 1)), line((-0.45, 1), (0.45, 1))),
        (line((-0.25, -0.75), (0.05, -1), (0.05, 1)), line((-0.35, 1), (0.4, 1))),
    ),
    "two": (
        (curve(*HOOK), line((-0.6, 0.95), (0.6, 0.95))),
        (curve(*HOOK[:-1], (-0.5, 0.9), (-0.55, 0.6), (-0.25, 0.6), (0.1, 0.9), (0.6, 0.9)),),
        (curve(*HOOK[:4], (0.5, -0.3), (0.1, 0.3)), line((0.1, 0.3), (-0.6, 1), (0.6, 0.95))),
    ),
    "three": (
        (
            curve((-0.5, -0.75), (-0.1, -1), (0.45, -0.75), (0.4, -0.3), (-0.05, -0.05)),
            curve((-0.05, -0.05), (0.5, 0.2), (0.55, 0.65), (0.1, 1), (-0.55, 0.75)),
        ),
        (line((-0.5, -1), (0.5, -1), (-0.05, -0.2)), curve(*BELLY)),
        (
            curve((-0.55, -0.8), (0, -1), (0.4, -0.6), (-0.2, -0.05)),
            curve((-0.2, -0.05), (0.4, 0.1), (0.5, 0.7), (-0.6, 1)),
        ),
    ),
    "four": (
        (line((0.25, 1), (0.25, -1), (-0.6, 0.35), (0.65, 0.35)),),
        (line((-0.45, -0.9), (-0.5, 0.1), (0.55, 0.1)), line((0.35, -0.9), (0.3, 1))),
        (line((-0.1, -1), (-0.6, 0.2), (0.6, 0.2)), line((0.3, -0.4), (0.1, 1))),
    ),
    "five": (
        (line((0.5, -1), (-0.4, -1), (-0.5, -0.1)), curve(*BOWL)),
        (curve((0.5, -0.95), (-0.2, -0.95), (-0.45, -0.5), (-0.1, -0.15), (0.45, 0.2), (0.4, 0.8), (-0.5, 0.9)),),
        (line((-0.35, -1), (-0.45, -0.15)), curve(*BOWL), line((-0.35, -1), (0.55, -1))),
    ),
    "six": (
        (
            curve(
                *[(0.4, -1), (-0.2, -0.6), (-0.55, 0.1), (-0.45, 0.75), (0, 1)],
                *[(0.5, 0.7), (0.45, 0.2), (0, 0), (-0.5, 0.35)],
            ),
        ),
        (curve((0.1, -1), (-0.35, -0.2), (-0.5, 0.6), (0, 1), (0.5, 0.65), (0.2, 0.15), (-0.45, 0.5)),),
    ),
    "seven": (
        (line((-0.55, -1), (0.55, -1), (-0.1, 1)),),
        (line((-0.55, -1), (0.55, -1), (-0.1, 1)), line((-0.35, 0.05), (0.45, 0.05))),
        (line((-0.55, -0.7), (-0.55, -1), (0.55, -1)), curve((0.55, -1), (0.15, -0.2), (0, 0.3), (-0.05, 1))),
        (curve((-0.6, -0.8), (-0.2, -1), (0.5, -0.9), (0.2, -0.1), (-0.2, 1)), line((-0.4, 0.1), (0.5, -0.05))),
    ),
    "eight": (
        (
            curve(
                *[(0.4, -0.75), (0, -1), (-0.45, -0.7), (-0.3, -0.25), (0.1, 0), (0.5, 0.4), (0.4, 0.85), (0, 1)],
                *[(-0.45, 0.8), (-0.45, 0.35), (-0.05, 0), (0.35, -0.3), (0.4, -0.75)],
            ),
        ),
        (oval(-0.5, 0.45, 0.48), oval(0.48, 0.55, 0.5)),
        (oval(-0.55, 0.35, 0.42), oval(0.42, 0.45, 0.55)),
    ),
    "nine": (
        (curve(*LOOP), line((0.45, -0.7), (0.4, 1))),
        (curve(*LOOP), curve((0.45, -0.6), (0.5, 0.1), (0.3, 0.7), (-0.4, 1))),
        (curve(*LOOP), line((0.45, -0.6), (-0.1, 1))),
    ),
}


@dataclass(frozen=True)
class Skeleton:
    """A form drawn with a pen: points [P, 2] along its strokes and half the pen's width."""

    points: np.ndarray
    depth: float

    @property
    def half_extents(self) -> tuple[float, float]:
        """Half the width and half the height of the inked form."""
        across, down = np.abs(self.points).max(axis=0) + self.depth
        return float(across), float(down)

    def sample(self, points: np.ndarray) -> np.ndarray:
        """Return the distances `[...]` inside the ink at points `[2, ...]` of the form's own square."""
        places = points.reshape(2, -1)
        squares = (places**2).sum(axis=0)[:, None] + (self.points**2).sum(axis=1) - 2 * places.T @ self.points.T
        return self.depth - np.sqrt(np.maximum(squares.min(axis=1), 0)).reshape(points.shape[1:])


def along(smooth: bool, corners: np.ndarray, pieces: int = 9) -> np.ndarray:
    """Return points along a stroke through corners `[K, 2]`: straight, or a Catmull-Rom curve."""
    part = np.linspace(0, 1, pieces)[:, None, None]
    start, end = corners[:-1], corners[1:]
    if not smooth:
        return (start + part * (end - start)).reshape(-1, 2)
    before = np.concatenate([corners[:1], corners[:-2]])
    after = np.concatenate([corners[2:], corners[-1:]])
    bend = 2 * before - 5 * start + 4 * end - after
    twist = 3 * start - before - 3 * end + after
    return (start + 0.5 * part * (end - before + part * (bend + part * twist))).reshape(-1, 2)


def pen_form(name: str, random: np.random.RandomState) -> Skeleton:
    """Write a digit, one of DIGITS, with a pen: one of its ways of writing, with an unsteady hand."""
    ways = PEN[name]
    hand = random.uniform(0.01, 0.1)
    strokes = []
    for smooth, corners in ways[random.randint(len(ways))]:
        unsteady = np.asarray(corners, dtype=np.float64) + hand * random.standard_normal((len(corners), 2))
        strokes.append(along(smooth, unsteady))
    points = np.concatenate(strokes)
    low, high = points.min(axis=0), points.max(axis=0)
    return Skeleton((points - (low + high) / 2) * (2 / (high - low).max()), random.uniform(0.07, 0.26))
