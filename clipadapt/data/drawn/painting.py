"""Painting of scenes: where each thing stands, its edge, its colour, and the style of the whole."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image

from clipadapt.data.drawn.facts import COLOURS, Scene, Thing
from clipadapt.data.drawn.fields import Field
from clipadapt.data.drawn.glyphs import DIGITS, FONTS, Skeleton, pen_form, typeset_field
from clipadapt.data.drawn.shapes import shape_field

FREELY_TURNED = ("arrow", "crescent", "star")
AREAS = {
    None: [((0.0, 0.0), (1.0, 1.0))],
    "left of": [((-0.5, 0.0), (0.5, 1.0)), ((0.5, 0.0), (0.5, 1.0))],
    "right of": [((0.5, 0.0), (0.5, 1.0)), ((-0.5, 0.0), (0.5, 1.0))],
    "above": [((0.0, -0.5), (1.0, 0.5)), ((0.0, 0.5), (1.0, 0.5))],
    "below": [((0.0, 0.5), (1.0, 0.5)), ((0.0, -0.5), (1.0, 0.5))],
}


@dataclass(frozen=True)
class Placed:
    """A form in the frame [-1, 1] squared: where it stands, how it is turned, warped and emboldened."""

    form: Field | Skeleton
    centre: np.ndarray
    matrix: np.ndarray
    waves: np.ndarray
    bold: float

    def distances(self, cells: int) -> np.ndarray:
        """Return the distances `[cells, cells]` inside the edge at the pixels, in units of half the frame."""
        steps = (np.arange(cells) + 0.5) * (2 / cells) - 1
        frame = np.stack(np.meshgrid(steps, steps)).reshape(2, -1) - self.centre[:, None]
        own = np.linalg.solve(self.matrix, frame)
        across, down, phase, strength = self.waves
        own = own + strength[:, None] * np.sin(across[:, None] * own[0] + down[:, None] * own[1] + phase[:, None])
        scale = np.sqrt(abs(np.linalg.det(self.matrix)))
        return ((self.form.sample(own) + self.bold) * scale).reshape(cells, cells)


def choose_form(thing: Thing, random: np.random.RandomState) -> Field | Skeleton:
    """Choose the form that a thing is drawn with: its shape, one of the fonts, or (digits) a pen."""
    if thing.kind == "shape":
        return shape_field(thing.name)
    if thing.kind == "digit":
        if random.random_sample() < 0.5:
            return pen_form(thing.name, random)
        return typeset_field(str(DIGITS.index(thing.name)), FONTS[random.randint(len(FONTS))])
    return typeset_field(thing.name.upper() if thing.capital else thing.name, FONTS[random.randint(len(FONTS))])


def turned(thing: Thing, random: np.random.RandomState) -> np.ndarray:
    """Return a matrix `[2, 2]` that turns, shears and stretches a thing without changing its area."""
    drawn = random.standard_normal(3)
    looseness = (0.12, 0.08, 0.05) if thing.kind == "shape" else (0.14, 0.17, 0.17)
    angle, stretch, shear = drawn * looseness
    if thing.name in FREELY_TURNED and thing.kind == "shape":
        angle = random.uniform(-np.pi, np.pi)
    cosine, sine = np.cos(angle), np.sin(angle)
    squeezed = np.array([[np.exp(stretch), shear], [0.0, np.exp(-stretch)]])
    return np.array([[cosine, -sine], [sine, cosine]]) @ squeezed


def boldness(thing: Thing, form: Field | Skeleton, random: np.random.RandomState) -> float:
    """Return how far the edge is moved outwards: 0 for shapes and the pen, thin to fat for typeset glyphs."""
    if thing.kind == "shape" or isinstance(form, Skeleton):
        return 0.0
    return random.uniform(max(0.05 - form.depth, -0.6 * form.depth), 0.12)


def place(thing: Thing, area: tuple[tuple[float, float], tuple[float, float]], random: np.random.RandomState) -> Placed:
    """Choose a form for a thing and where and how it stands in an area (its centre and half its sides)."""
    form = choose_form(thing, random)
    bold = boldness(thing, form, random)
    matrix = turned(thing, random)
    middle, sides = np.asarray(area[0]), np.asarray(area[1])
    reach = np.abs(matrix) @ (np.asarray(form.half_extents) + max(bold, 0))
    least, most = (0.5, 0.95) if thing.kind == "shape" else (0.6, 1.05)
    fit = random.uniform(least, most) * (sides / reach).min()
    room = np.maximum(sides - fit * reach, 0)
    centre = middle + room * random.uniform(-1, 1, 2)
    softest = 0.03 if thing.kind == "shape" else 0.07
    waves = np.stack([*random.uniform(-3, 3, (2, 2)), random.uniform(0, 2 * np.pi, 2), random.uniform(0, softest, 2)])
    return Placed(form, centre, matrix * fit, waves, bold)


def shade(name: str, random: np.random.RandomState) -> np.ndarray:
    """Return a colour `[3]` near the named one, in [0, 255]."""
    return np.clip(np.asarray(COLOURS[name]) + random.uniform(-14, 14, 3) + random.uniform(-10, 10), 0, 255)


def ground_shade(scene: Scene, random: np.random.RandomState) -> np.ndarray:
    """Return the ground's colour `[3]`: paper-like if flat or sketched, dark if inverted, either way otherwise."""
    colour = shade(scene.ground, random)
    if scene.ground in ("black", "white"):
        towards = 255 - np.asarray(COLOURS[scene.ground], dtype=np.float64)
        return colour + random.uniform(0, 0.2) * (towards - colour)
    dark = scene.style == "inverted" or (scene.style not in ("flat", "sketch") and random.random_sample() < 0.5)
    return colour + random.uniform(0.5, 0.75) * ((0.0 if dark else 255.0) - colour)


def pattern(cells: int, random: np.random.RandomState) -> np.ndarray:
    """Return stripes, checks or dots `[cells, cells]` between 0 and 1."""
    steps = np.arange(cells) / cells
    rows, columns = np.meshgrid(steps, steps, indexing="ij")
    angle, pitch = random.uniform(0, np.pi), random.uniform(4, 9) * 2 * np.pi
    along = np.sin(pitch * (np.cos(angle) * columns + np.sin(angle) * rows))
    across = np.sin(pitch * (np.cos(angle) * rows - np.sin(angle) * columns))
    chosen = (along, along * across, np.minimum(along, across))[random.randint(3)]
    return np.clip(0.5 + 2 * chosen, 0, 1)


def filling(scene: Scene, thing: Thing, cells: int, random: np.random.RandomState) -> np.ndarray:
    """Return the colours a thing is filled with, `[1, 1, 3]`, or `[cells, cells, 3]` if textured."""
    colour = shade(thing.colour, random)[None, None]
    if scene.style != "textured":
        return colour
    darker = random.uniform(0.45, 0.75)
    other = colour * darker if colour.mean() > 70 else 255 - (255 - colour) * darker
    return colour + pattern(cells, random)[..., None] * (other - colour)


def coverage(scene: Scene, distances: np.ndarray, pixel: float, softness: float, line: float) -> np.ndarray:
    """Return how much of each pixel is inked, 0 to 1; sketched things only within `line` of their edge."""
    inside = line - np.abs(distances) if scene.style == "sketch" else distances
    return np.clip(0.5 + inside / (softness * pixel), 0, 1)


def choose_resolution(scene: Scene, size: int, random: np.random.RandomState) -> int:
    """Choose the resolution that a scene is drawn at before it is enlarged to `size`."""
    if scene.style == "pixelated":
        return min(size, random.randint(10, 16))
    coarse = random.random_sample() < (0.1 if scene.things[0].kind == "shape" else 0.55)
    return min(size, random.randint(8, 18)) if coarse else size


def enlarged(canvas: np.ndarray, size: int, style: str, random: np.random.RandomState) -> np.ndarray:
    """Return a canvas `[n, n, 3]` as bytes `[size, size, 3]`."""
    image = np.clip(canvas, 0, 255).astype(np.uint8)
    if image.shape[0] == size:
        return image
    smooth = (Image.Resampling.BICUBIC, Image.Resampling.BICUBIC, Image.Resampling.BILINEAR)[random.randint(3)]
    kind = Image.Resampling.NEAREST if style == "pixelated" else smooth
    return np.asarray(Image.fromarray(image).resize((size, size), kind))


def paint(scene: Scene, size: int, random: np.random.RandomState) -> tuple[np.ndarray, np.ndarray]:
    """Paint a scene: image `[size, size, 3]` and mask `[size, size]` of each pixel's thing (from 1; 0 is ground)."""
    resolution = choose_resolution(scene, size, random)
    fine = 2 if resolution < size else 1
    cells = fine * resolution
    glyph = scene.things[0].kind != "shape"
    softness = random.uniform(1, 3.5) if glyph and random.random_sample() < 0.5 else random.uniform(1, 1.5)
    line = random.uniform(0.05, 0.09)
    slope = random.uniform(-12, 12, 2) @ np.stack(np.meshgrid(*[np.linspace(-1, 1, cells)] * 2)).reshape(2, -1)
    canvas = ground_shade(scene, random) + slope.reshape(cells, cells, 1)
    mask = np.zeros((size, size), dtype=np.uint8)
    for number, (thing, area) in enumerate(zip(scene.things, AREAS[scene.relation], strict=True), start=1):
        placed = place(thing, area, random)
        distances = placed.distances(cells)
        ink = coverage(scene, distances, 2 / resolution, softness, line)[..., None]
        canvas = canvas + ink * (filling(scene, thing, cells, random) - canvas)
        mask[(distances if cells == size else placed.distances(size)) > 0] = number
    canvas = canvas.reshape(resolution, fine, resolution, fine, 3).mean(axis=(1, 3))
    if scene.style == "noisy":
        canvas = canvas + random.uniform(12, 40) * random.standard_normal(canvas.shape)
    return enlarged(canvas, size, scene.style, random), mask
