"""Accuracy against shots, a panel for each data set; with one number of shots, the methods in order instead."""

import math
import textwrap
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from clipadapt.report.pictures import BLUE, GREY, ORANGE, figures, save, short_label
from clipadapt.report.rows import Point
from clipadapt.report.tables import shots_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLOURS = [BLUE, ORANGE, "#3d8b57", "#8657a6", "#b03a5b", "#6b5b45", "#b58900", "#2a8f99"]
LINES = ["-", "--", ":", "-."]
MARKERS = "osD^vPX*"
COLUMNS = 3
POINTS_PER_INCH = 72
FONT, LINE_HEIGHT = 7.5, 1.3
LEADER = {"arrowstyle": "-", "relpos": (0, 0.5), "linewidth": 0.6, "alpha": 0.6, "shrinkA": 1, "shrinkB": 2}
PAIR: dict[str, Any] = {"marker": ".", "markersize": 5, "linewidth": 0.8, "alpha": 0.7}
ZERO_SHOT = "zero-shot"
TITLE_WIDTH = 44
FEWEST_SEEDS = 3
"""Of an interval in a picture: that of two is 13 times as wide as their distance, so they are shown themselves."""


def few_shot_curves(
    rows: Sequence[Point],
    zero_shot: Mapping[str, Mapping[int, float]],
    path: str | Path,
    schedule_note: str | None = None,
) -> Path:
    """Test accuracy of methods with 95 % intervals over seeds; of two seeds, each.

    Args:
        rows: points of the curves; accuracies are fractions, an interval is half a width or None.
        zero_shot: accuracy without adapting by data set and shots.
        path: where the PNG goes.
        schedule_note: what has to stand beside it.
    """
    panels = list(dict.fromkeys(row["data"] for row in rows))
    methods = list(dict.fromkeys(row["method"] for row in rows))
    draw: Callable[..., None] = curves if len({row["shots"] for row in rows}) > 1 else in_order
    columns = min(COLUMNS, len(panels))
    lines = -(-len(panels) // columns)
    height = max(3.8, 1.6 + (len(methods) + 1) * FONT * LINE_HEIGHT / POINTS_PER_INCH * 1.4)
    figure, axes = figures(len(panels), 6.4 * columns, height * lines, columns)
    for data, panel in zip(panels, axes, strict=True):
        draw(panel, [row for row in rows if row["data"] == data], zero_shot[data], methods)
        panel.set_title(panel_title(data), fontsize=10, pad=14)
    width = round(TITLE_WIDTH * columns)
    lines_above = [textwrap.fill(text, width) for text in (title_of(rows), schedule_note) if text is not None]
    figure.suptitle("\n".join(lines_above), fontsize=11)
    return save(figure, path)


def panel_title(data: str) -> str:
    """What stands above a panel, on two lines at most."""
    return textwrap.fill(data, TITLE_WIDTH, max_lines=2, placeholder=" …").replace("$", r"\$")


def title_of(rows: Sequence[Point]) -> str:
    """What a picture shows."""
    pairs = any(pair(row) for row in rows)
    if any(len(row["values"]) >= FEWEST_SEEDS for row in rows):
        return "Test accuracy, mean and 95 % interval over seeds" + (", or each of two" if pairs else "")
    return "Test accuracy, mean and each of two seeds" if pairs else "Test accuracy"


def half(row: Point) -> float:
    """Half the interval that is drawn around a mean, in percent; NaN where none is."""
    return math.nan if row["interval"] is None or len(row["values"]) < FEWEST_SEEDS else 100 * row["interval"]


def pair(row: Point) -> list[float]:
    """The accuracies of two seeds, in percent, which are drawn in place of their interval; empty where there is one."""
    return [100 * value for value in row["values"]] if 1 < len(row["values"]) < FEWEST_SEEDS else []


def curves(axes: "Axes", rows: Sequence[Point], zero_shot: Mapping[int, float], methods: Sequence[str]) -> None:
    """A line with its band for each method, named where it ends."""
    shots = sorted({row["shots"] for row in rows})
    ends = []
    for index, method in enumerate(methods):
        points = sorted((row for row in rows if row["method"] == method), key=lambda row: row["shots"])
        if points:
            _curve(axes, points, index)
            ends.append((points[-1]["shots"], 100 * points[-1]["mean"], short_label(method), _colour(index)))
    heights = [100 * zero_shot[count] for count in shots]
    axes.plot(shots, heights, color=GREY, linestyle="--", linewidth=1.3, zorder=1)
    ends.append((shots[-1], heights[-1], ZERO_SHOT, GREY))
    axes.set_xscale("log", base=2)
    axes.set_xticks(shots, [str(count) for count in shots])
    axes.minorticks_off()
    axes.set_xlabel("shots (labelled images per class)")
    axes.set_ylabel("accuracy (%)")
    axes.grid(alpha=0.25)
    axes.set_ylim(_frame(rows, zero_shot))
    _name_ends(axes, ends)


def _accuracies(rows: Sequence[Point], zero_shot: Mapping[int, float]) -> list[float]:
    """All that is drawn but for intervals."""
    means = [100 * accuracy for accuracy in (*(row["mean"] for row in rows), *zero_shot.values())]
    return [*means, *(value for row in rows for value in pair(row))]


def _frame(rows: Sequence[Point], zero_shot: Mapping[int, float]) -> tuple[float, float]:
    """All accuracies, but only a part of intervals that are wider than all of these: few seeds make very wide ones."""
    values = _accuracies(rows, zero_shot)
    low, high = min(values), max(values)
    halves = [half(row) for row in rows if not math.isnan(half(row))]
    room = min(max(halves, default=0.0), 0.5 * (high - low)) + 1.0
    return low - room, high + room


def _span(rows: Sequence[Point], zero_shot: Mapping[int, float]) -> tuple[float, float]:
    """All accuracies with the whole of their intervals."""
    ends = [100 * row["mean"] + side * half(row) for row in rows for side in (-1, 1) if not math.isnan(half(row))]
    values = [*_accuracies(rows, zero_shot), *ends]
    room = 0.05 * (max(values) - min(values)) + 0.5
    return min(values) - room, max(values) + room


def _curve(axes: "Axes", points: Sequence[Point], index: int) -> None:
    shots = [row["shots"] for row in points]
    means = np.array([100 * row["mean"] for row in points])
    halves = np.array([half(row) for row in points])
    for row in filter(pair, points):
        axes.plot([row["shots"]] * 2, pair(row), color=_colour(index), **PAIR)
    axes.fill_between(shots, means - halves, means + halves, color=_colour(index), alpha=0.12, linewidth=0)
    around = index // len(COLOURS)
    axes.plot(
        shots,
        means,
        color=_colour(index),
        linestyle=LINES[around % len(LINES)],
        marker=MARKERS[(index + around) % len(MARKERS)],
        linewidth=1.5,
        markersize=4.5,
    )


def _colour(index: int) -> str:
    return COLOURS[index % len(COLOURS)]


def _name_ends(axes: "Axes", ends: Sequence[tuple[int, float, str, str]]) -> None:
    """Write each curve's last value and name beside it, the names moved apart and tied to their curves."""
    low, high = axes.get_ylim()
    inches = axes.figure.get_size_inches()[1] / axes.get_subplotspec().get_gridspec().nrows - 1.0  # type: ignore[union-attr]
    gap = (high - low) * FONT * LINE_HEIGHT / POINTS_PER_INCH / inches
    ordered = sorted(ends, key=lambda end: end[1])
    places = apart([end[1] for end in ordered], gap, low, high)
    for (shots, value, name, colour), place in zip(ordered, places, strict=True):
        axes.annotate(
            f"{value:.1f}  {name}",
            xy=(shots, value),
            xytext=(1.05, (place - low) / (high - low)),
            textcoords="axes fraction",
            color=colour,
            fontsize=FONT,
            va="center",
            annotation_clip=False,
            arrowprops=LEADER | {"color": colour},
        )


def apart(values: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Rising values, moved as little as need be to be a gap apart, and between `low` and `high` where there is room.

    Less the gaps below them they have to rise, and the nearest values that do are means of what doesn't.
    """
    blocks: list[tuple[float, int]] = []
    for index, value in enumerate(values):
        mean, count = value - index * gap, 1
        while blocks and blocks[-1][0] > mean:
            before, size = blocks.pop()
            mean, count = (before * size + mean * count) / (size + count), count + size
        blocks.append((mean, count))
    level = np.repeat([mean for mean, _ in blocks], [count for _, count in blocks])
    level = np.maximum(np.minimum(level, high - (len(values) - 1) * gap), low)
    return [float(place) for place in level + gap * np.arange(len(values))]


def in_order(axes: "Axes", rows: Sequence[Point], zero_shot: Mapping[int, float], methods: Sequence[str]) -> None:
    """A point with its interval for each method, the most accurate one on top."""
    ordered = sorted(rows, key=lambda row: row["mean"])
    means = [100 * row["mean"] for row in ordered]
    places = np.arange(len(ordered))
    halves = [half(row) for row in ordered]
    for place, row in enumerate(ordered):
        if pair(row):
            axes.plot(pair(row), [place] * 2, color=BLUE, **PAIR)
    axes.errorbar(means, places, xerr=halves, fmt="o", color=BLUE, markersize=5, capsize=3, linewidth=1.2)
    for count, accuracy in zero_shot.items():
        axes.axvline(100 * accuracy, color=GREY, linestyle="--", linewidth=1.3, zorder=1)
        axes.annotate(
            f"{ZERO_SHOT}  {100 * accuracy:.1f}",
            xy=(100 * accuracy, 1),
            xycoords=("data", "axes fraction"),
            xytext=(0, 3),
            textcoords="offset points",
            color=GREY,
            fontsize=FONT,
            ha="center",
        )
        axes.set_xlabel(f"accuracy (%) at {shots_text(count)}")
    axes.set_yticks(places, [f"{short_label(row['method'])}  {100 * row['mean']:.1f}" for row in ordered], fontsize=8)
    axes.set_ylim(-0.7, len(ordered) - 0.3)
    axes.set_xlim(_span(rows, zero_shot))
    axes.grid(alpha=0.25)
