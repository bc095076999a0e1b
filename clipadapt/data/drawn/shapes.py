"""The named shapes, each as a signed distance field."""

from __future__ import annotations

from functools import cache

import numpy as np
from PIL import Image, ImageDraw

from clipadapt.data.drawn.fields import Field, centred, from_raster

SIDE = 512
SHAPES = (
    "circle",
    "square",
    "triangle",
    "star",
    "cross",
    "heart",
    "diamond",
    "pentagon",
    "hexagon",
    "ring",
    "crescent",
    "arrow",
)
POLYGONS: dict[str, list[tuple[float, float]]] = {
    "square": [(-1, -1), (1, -1), (1, 1), (-1, 1)],
    "triangle": [(0, -1), (1, 0.8), (-1, 0.8)],
    "cross": [
        *[(-0.33, -1), (0.33, -1), (0.33, -0.33), (1, -0.33), (1, 0.33), (0.33, 0.33)],
        *[(0.33, 1), (-0.33, 1), (-0.33, 0.33), (-1, 0.33), (-1, -0.33), (-0.33, -0.33)],
    ],
    "diamond": [(0, -1), (0.62, 0), (0, 1), (-0.62, 0)],
    "arrow": [(-1, -0.28), (0.1, -0.28), (0.1, -0.75), (1, 0), (0.1, 0.75), (0.1, 0.28), (-1, 0.28)],
}


def regular(corners: int, inner: float = 1.0) -> list[tuple[float, float]]:
    """Return the corners of a regular polygon; `inner` < 1 draws in every second one (a star)."""
    angles = -np.pi / 2 + 2 * np.pi * np.arange(corners) / corners
    radii = np.where(np.arange(corners) % 2, inner, 1.0)
    return [(float(r * np.cos(a)), float(r * np.sin(a))) for r, a in zip(radii, angles, strict=True)]


def heart() -> list[tuple[float, float]]:
    """Return the outline of a heart."""
    turn = np.linspace(0, 2 * np.pi, 90)
    across = 16 * np.sin(turn) ** 3
    up = 13 * np.cos(turn) - 5 * np.cos(2 * turn) - 2 * np.cos(3 * turn) - np.cos(4 * turn)
    return [(float(x), float(y)) for x, y in zip(across / 17, -up / 17, strict=True)]


def outline(name: str) -> list[tuple[float, float]]:
    """Return the corners (x right, y down) of a shape with one outline."""
    computed: dict[str, tuple[int, float]] = {
        "pentagon": (5, 1.0),
        "hexagon": (6, 1.0),
        "star": (10, 0.42),
        "circle": (90, 1.0),
    }
    if name in computed:
        return regular(*computed[name])
    return heart() if name == "heart" else POLYGONS[name]


def disc(draw: ImageDraw.ImageDraw, centre: float, radius: float, fill: int) -> None:
    """Fill a circle at half height; centre and radius in [0, 1] of the side."""
    low, high = SIDE * (0.5 - radius), SIDE * (0.5 + radius)
    shift = SIDE * (centre - 0.5)
    draw.ellipse((low + shift, low, high + shift, high), fill=fill)


@cache
def shape_field(name: str) -> Field:
    """Return the field of a named shape; raise KeyError for a name that is not in SHAPES."""
    image = Image.new("L", (SIDE, SIDE))
    draw = ImageDraw.Draw(image)
    if name in ("ring", "crescent"):
        disc(draw, 0.5, 0.4, 255)
        disc(draw, *((0.5, 0.22) if name == "ring" else (0.66, 0.33)), fill=0)
    else:
        draw.polygon([(SIDE * (0.5 + 0.4 * x), SIDE * (0.5 + 0.4 * y)) for x, y in outline(name)], fill=255)
    return from_raster(centred(image.crop(image.getbbox())))
