"""Drawings for pretraining, and named tasks with labels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from clipadapt.data.drawn.facts import (
    COLOURS,
    OPPOSITE,
    SHAPE_COLOURS,
    STYLES,
    Caption,
    Scene,
    Thing,
    choose,
    describe,
    held_out,
)
from clipadapt.data.drawn.glyphs import DIGITS, LETTERS, UNCLEAR
from clipadapt.data.drawn.painting import paint
from clipadapt.data.drawn.shapes import SHAPES

SPLITS = ("train", "val", "test")
PAIRS = tuple((shape, colour) for shape in SHAPES for colour in SHAPE_COLOURS)
SEEN_PAIRS = tuple(pair for pair in PAIRS if not held_out(*pair))
HELD_OUT_PAIRS = tuple(pair for pair in PAIRS if held_out(*pair))
STYLE_SHARES = (0.32, 0.08, 0.1, 0.12, 0.1, 0.28)
KIND_SHARES = {"shape": 0.46, "digit": 0.34, "letter": 0.2}


@dataclass(frozen=True)
class Drawing:
    """A drawing of the world.

    `image` is [size, size, 3] in bytes; `mask` [size, size] holds each pixel's thing, counted from 1, and 0 for ground;
    `boxes` are (left, top, right, bottom) in pixels, right and bottom outside, one for each of `scene.things`.
    """

    image: np.ndarray
    caption: Caption
    scene: Scene
    mask: np.ndarray
    boxes: tuple[tuple[int, int, int, int], ...]


@dataclass(frozen=True)
class DrawnTask:
    """A classification task of the drawn world; `things` are what each class draws."""

    class_names: list[str]
    templates: list[str]
    things: list[Thing]


SHAPE_TEMPLATES = ["a photo of a {}.", "a drawing of a {}.", "a picture of a {}."]
GLYPH_TEMPLATES = ["a photo of the {}.", "a drawing of the {}.", "a picture of the {}."]
TASKS = {
    "shapes": DrawnTask(list(SHAPES), SHAPE_TEMPLATES, [Thing("shape", name, "") for name in SHAPES]),
    "pairs": DrawnTask(
        [f"{colour} {shape}" for shape, colour in PAIRS],
        SHAPE_TEMPLATES,
        [Thing("shape", shape, colour) for shape, colour in PAIRS],
    ),
    "glyphs": DrawnTask(
        [f"digit {name}" for name in DIGITS] + [f"letter {name}" for name in LETTERS],
        GLYPH_TEMPLATES,
        [Thing("digit", name, "") for name in DIGITS] + [Thing("letter", name, "") for name in LETTERS],
    ),
}


def tightest_box(mask: np.ndarray, number: int) -> tuple[int, int, int, int]:
    """Return the tightest box around a thing's pixels (all zeros if it has none)."""
    rows, columns = np.nonzero(mask == number)
    if len(rows) == 0:
        return (0, 0, 0, 0)
    return int(columns.min()), int(rows.min()), int(columns.max()) + 1, int(rows.max()) + 1


def choose_ground(style: str, taken: list[str], random: np.random.RandomState) -> str:
    """Choose a ground colour that stands out from the colours taken."""
    neutral = {"flat": "white", "sketch": "white", "inverted": "black"}.get(style) or choose(random, ("black", "white"))
    if neutral in taken:
        return "black" if neutral == "white" else "white"
    if random.random_sample() < 0.55 or "black" in taken or "white" in taken:
        return neutral
    used = [np.asarray(COLOURS[name]) for name in taken]
    apart = [name for name in SHAPE_COLOURS if all(np.abs(np.asarray(COLOURS[name]) - rgb).max() > 110 for rgb in used)]
    return choose(random, apart) if apart else neutral


def ink_colour(style: str, random: np.random.RandomState) -> str:
    """Choose a colour for a glyph: mostly black or white, whichever the style's ground is not."""
    if random.random_sample() < 0.35:
        return choose(random, SHAPE_COLOURS)
    dark = {"flat": True, "sketch": True, "inverted": False}.get(style)
    return "black" if (random.random_sample() < 0.5 if dark is None else dark) else "white"


def completed(thing: Thing, style: str, random: np.random.RandomState) -> Thing:
    """Return the thing with what its class leaves open: a colour, and for letters whether it is a capital."""
    if thing.kind == "shape":
        return thing if thing.colour else Thing("shape", thing.name, choose(random, SHAPE_COLOURS))
    capital = thing.kind == "letter" and (random.random_sample() < 0.5 or thing.name in UNCLEAR)
    capital = capital and thing.name.upper() not in UNCLEAR
    return Thing(thing.kind, thing.name, ink_colour(style, random), capital)


def random_thing(style: str, random: np.random.RandomState) -> Thing:
    """Choose a thing for pretraining; a shape is never one of the held-out pairs."""
    kind = tuple(KIND_SHARES)[random.choice(3, p=tuple(KIND_SHARES.values()))]
    if kind == "shape":
        shape, colour = SEEN_PAIRS[random.randint(len(SEEN_PAIRS))]
        return Thing("shape", shape, colour)
    return completed(Thing(kind, choose(random, DIGITS if kind == "digit" else LETTERS), ""), style, random)


def random_scene(random: np.random.RandomState) -> Scene:
    """Choose a scene for pretraining: one thing, or two shapes and how they lie."""
    style = STYLES[random.choice(len(STYLES), p=STYLE_SHARES)]
    things: tuple[Thing, ...] = (random_thing(style, random),)
    relation = None
    if things[0].kind == "shape" and random.random_sample() < 0.25:
        shape, colour = SEEN_PAIRS[random.randint(len(SEEN_PAIRS))]
        things, relation = (*things, Thing("shape", shape, colour)), choose(random, tuple(OPPOSITE))
    return Scene(things, style, choose_ground(style, [thing.colour for thing in things], random), relation)


def draw(seed: int, index: int, size: int = 32) -> Drawing:
    """Draw picture number `index` of the world `seed` for pretraining: a pure function of its arguments.

    Args:
        seed: The world, from 0.
        index: Which of its drawings, from 0.
        size: Side of the image in pixels, at least 8.
    """
    random = np.random.RandomState([seed, 0, index])
    scene = random_scene(random)
    image, mask = paint(scene, size, random)
    boxes = tuple(tightest_box(mask, number) for number in range(1, len(scene.things) + 1))
    return Drawing(image, describe(scene, random), scene, mask, boxes)


def draw_labelled(
    task: str, split: str, index: int, seed: int = 0, style: str | None = None, size: int = 32
) -> tuple[np.ndarray, int]:
    """Draw image `[size, size, 3]` and label number `index` of a task's split: a function of the arguments alone.

    Labels go round the classes (index modulo their number); the splits draw from streams of their own, none of them
    pretraining's.

    Args:
        task: One of TASKS.
        split: "train", "val" or "test".
        index: Which drawing, from 0.
        seed: The world, from 0.
        style: One of STYLES; None is the main one, "flat". The others make shifted test sets.
        size: Side of the image in pixels, at least 8.

    Raises:
        ValueError: For a task, split or style there isn't.
    """
    for given, known in ((task, tuple(TASKS)), (split, SPLITS), (style or "flat", STYLES)):
        if given not in known:
            raise ValueError(f"the drawn world has no {given!r}; it has {', '.join(known)}")
    label = index % len(TASKS[task].class_names)
    stream = 1 + SPLITS.index(split) + len(SPLITS) * tuple(TASKS).index(task)
    random = np.random.RandomState([seed, stream, index])
    thing = completed(TASKS[task].things[label], style or "flat", random)
    scene = Scene((thing,), style or "flat", choose_ground(style or "flat", [thing.colour], random))
    return paint(scene, size, random)[0], label
