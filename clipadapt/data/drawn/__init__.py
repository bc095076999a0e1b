"""The drawn world: coloured shapes and glyphs with captions, masks and boxes, each a pure function of (seed, index)."""

from clipadapt.data.drawn.facts import (
    COLOURS,
    SHAPE_COLOURS,
    STYLES,
    Caption,
    Claim,
    Scene,
    Thing,
    describe,
    facts,
    held_out,
    truth_matrix,
)
from clipadapt.data.drawn.glyphs import DIGITS, LETTERS
from clipadapt.data.drawn.shapes import SHAPES
from clipadapt.data.drawn.tasks import (
    HELD_OUT_PAIRS,
    PAIRS,
    SEEN_PAIRS,
    SPLITS,
    TASKS,
    Drawing,
    DrawnTask,
    draw,
    draw_labelled,
)

__all__ = [
    "COLOURS",
    "DIGITS",
    "HELD_OUT_PAIRS",
    "LETTERS",
    "PAIRS",
    "SEEN_PAIRS",
    "SHAPES",
    "SHAPE_COLOURS",
    "SPLITS",
    "STYLES",
    "TASKS",
    "Caption",
    "Claim",
    "Drawing",
    "DrawnTask",
    "Scene",
    "Thing",
    "describe",
    "draw",
    "draw_labelled",
    "facts",
    "held_out",
    "truth_matrix",
]
