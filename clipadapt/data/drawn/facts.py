"""Scenes, captions, and which captions are true of which scenes.

A scene has a set of facts and a caption a set of claims; a caption is true of a scene when its claims are facts of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from clipadapt.data.drawn.glyphs import DIGITS
from clipadapt.data.drawn.shapes import SHAPES

COLOURS = {
    "red": (220, 30, 35),
    "orange": (250, 140, 20),
    "yellow": (240, 220, 40),
    "green": (35, 155, 60),
    "cyan": (45, 205, 215),
    "blue": (35, 70, 215),
    "purple": (125, 40, 165),
    "pink": (250, 145, 190),
    "brown": (120, 70, 30),
    "gray": (128, 128, 128),
    "black": (15, 15, 15),
    "white": (245, 245, 245),
}
SHAPE_COLOURS = tuple(COLOURS)[:10]
STYLES = ("flat", "sketch", "textured", "noisy", "pixelated", "inverted")
OPPOSITE = {"left of": "right of", "right of": "left of", "above": "below", "below": "above"}
FRAMES = ("{}", "a photo of {}", "a drawing of {}", "a picture of {}", "an image of {}", "this is {}")
STYLE_FRAMES = {
    "flat": ("a flat drawing of {}", "a plain picture of {}"),
    "sketch": ("a sketch of {}", "an outline drawing of {}"),
    "textured": ("a textured drawing of {}", "a textured picture of {}"),
    "noisy": ("a noisy photo of {}", "a noisy picture of {}"),
    "pixelated": ("a pixelated photo of {}", "a pixelated picture of {}"),
    "inverted": ("an inverted picture of {}", "a picture of {} on a dark background"),
}
Claim = tuple[str | None, ...]


@dataclass(frozen=True)
class Thing:
    """A drawn object: its kind ("shape", "digit" or "letter"), its name, its colour, and whether it is a capital."""

    kind: str
    name: str
    colour: str
    capital: bool = False


@dataclass(frozen=True)
class Scene:
    """A scene to draw: one or two things (the first is `relation` the second), the style, the ground's colour."""

    things: tuple[Thing, ...]
    style: str
    ground: str
    relation: str | None = None


@dataclass(frozen=True)
class Caption:
    """A sentence and the claims it makes."""

    text: str
    claims: frozenset[Claim]


def held_out(shape: str, colour: str) -> bool:
    """Return whether pretraining never draws this pair (20 of 120 pairs); raise ValueError for unknown names."""
    return (SHAPES.index(shape) - SHAPE_COLOURS.index(colour)) % 6 == 0


def true_names(thing: Thing) -> list[str]:
    """Return all correct names of a thing, the simplest first."""
    if thing.kind != "letter":
        return [thing.name]
    return [f"letter {thing.name}", f"{'capital' if thing.capital else 'small'} letter {thing.name}"]


def thing_facts(thing: Thing) -> list[Claim]:
    """Return all claims that are true of one thing by itself."""
    return [("is", colour, name) for colour in (None, thing.colour) for name in (*true_names(thing), thing.kind, None)]


def facts(scene: Scene) -> frozenset[Claim]:
    """Return all claims that are true of a scene and that a caption can make."""
    found: list[Claim] = [("style", scene.style), ("ground", scene.ground)]
    for thing in scene.things:
        found += thing_facts(thing)
    if scene.relation is not None:
        first, second = scene.things
        for one in (None, first.colour):
            for other in (None, second.colour):
                found.append((scene.relation, one, first.name, other, second.name))
                found.append((OPPOSITE[scene.relation], other, second.name, one, first.name))
    return frozenset(found)


def truth_matrix(scene_facts: Sequence[frozenset[Claim]], claims: Sequence[frozenset[Claim]]) -> np.ndarray:
    """Return which captions are true of which images, as booleans `[images, captions]`.

    Args:
        scene_facts: The facts of each image, from `facts`.
        claims: The claims of each caption.
    """
    numbers: dict[Claim, int] = {}
    for said in claims:
        for claim in said:
            numbers.setdefault(claim, len(numbers))
    known = np.zeros((len(scene_facts), len(numbers)), dtype=np.float32)
    wanted = np.zeros((len(claims), len(numbers)), dtype=np.float32)
    for row, found in enumerate(scene_facts):
        known[row, [numbers[fact] for fact in found if fact in numbers]] = 1
    for row, said in enumerate(claims):
        wanted[row, [numbers[claim] for claim in said]] = 1
    return known @ wanted.T == wanted.sum(axis=1)


def choose(random: np.random.RandomState, options: Sequence[str]) -> str:
    """Return one of the options at random."""
    return options[random.randint(len(options))]


def with_article(words: str, random: np.random.RandomState) -> str:
    """Return the words after "a" or "the"; "a" becomes "an" only sometimes, since prompts often have "a" there too."""
    if random.random_sample() < 0.15:
        return f"the {words}"
    return f"an {words}" if words[0] in "aeiou" and random.random_sample() < 0.5 else f"a {words}"


def noun(thing: Thing, name: str | None, random: np.random.RandomState) -> str:
    """Return the noun for a name: "circle", "digit seven", "number 7", "letter a", or "thing" if the name is None."""
    if name is None:
        return "thing"
    if name not in DIGITS:
        return name
    written = name if random.random_sample() < 0.75 else str(DIGITS.index(name))
    return f"{choose(random, ('digit', 'digit', 'number'))} {written}"


def phrase(thing: Thing, random: np.random.RandomState, specific: bool = False) -> tuple[str, str | None, str | None]:
    """Return words for a thing, with the colour and the name they claim (each may be None unless `specific`)."""
    names = true_names(thing)
    name: str | None = names[0] if random.random_sample() < 0.8 else choose(random, names)
    colour = thing.colour if random.random_sample() < 0.45 else None
    vague = random.random_sample()
    if not specific and vague < 0.12:
        name = thing.kind if vague < 0.06 else None
        colour = thing.colour if name is None else colour
    named = noun(thing, name, random)
    if colour is None and thing.kind != "shape" and name is not None:
        return f"{'the' if random.random_sample() < 0.8 else 'a'} {named}", None, name
    return with_article(f"{colour} {named}" if colour else named, random), colour, name


def describe_pair(scene: Scene, random: np.random.RandomState) -> tuple[str, list[Claim]]:
    """Return words and claims for a scene of two things: their relation, or only what they are."""
    order = random.permutation(2)
    first, second = (scene.things[place] for place in order)
    words, colour, name = phrase(first, random, specific=True)
    other_words, other_colour, other_name = phrase(second, random, specific=True)
    if random.random_sample() < 0.4 or scene.relation is None:
        return f"{words} and {other_words}", [("is", colour, name), ("is", other_colour, other_name)]
    relation = scene.relation if order[0] == 0 else OPPOSITE[scene.relation]
    joint = f"to the {relation}" if relation.endswith("of") and random.random_sample() < 0.3 else relation
    return f"{words} {joint} {other_words}", [(relation, colour, first.name, other_colour, second.name)]


def describe(scene: Scene, random: np.random.RandomState) -> Caption:
    """Return a true caption of a scene; chance decides how specific it is."""
    if len(scene.things) == 2 and random.random_sample() < 0.75:
        words, claims = describe_pair(scene, random)
    else:
        words, colour, name = phrase(scene.things[random.randint(len(scene.things))], random)
        claims = [("is", colour, name)]
    extra = random.random_sample()
    frame = choose(random, FRAMES)
    if extra < 0.1:
        frame, claims = choose(random, STYLE_FRAMES[scene.style]), [*claims, ("style", scene.style)]
    elif extra < 0.18:
        words, claims = f"{words} on a {scene.ground} background", [*claims, ("ground", scene.ground)]
    stop = "." if random.random_sample() < 0.5 else ""
    return Caption(frame.format(words) + stop, frozenset(claims))
