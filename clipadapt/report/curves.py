"""Accuracy against shots, one panel per data set; with a single number of shots, the methods ranked instead."""

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
MIN_SEEDS_FOR_INTERVAL = 3
"""Intervals are drawn from this number of seeds on: that of two is 13 times as wide as their distance."""


def few_shot_curves(
    rows: Sequence[Point],
    zero_shot: Mapping[str, Mapping[int, float]],
    path: str | Path,
    schedule_note: str | None = None,
) -> Path:
    """Draw the methods' test accuracy, with 95 % intervals over three or more seeds, or each of two seeds.

    Args:
        rows: points of the curves; accuracies are fractions, an interval is half its width or None.
        zero_shot: zero-shot accuracy by data set and shots.
        path: the PNG file to write.
        schedule_note: a note below the title; None for no note.
    """
    panels = list(dict.fromkeys(row["data"] for row in rows))
    methods = list(dict.fromkeys(row["method"] for row in rows))
    draw: Callable[..., None] = curves if len({row["shots"] for row in rows}) > 1 else ranked_points
    columns = min(COLUMNS, len(panels))
    lines = -(-len(panels) // columns)
    height = max(3.8, 1.6 + (len(methods) + 1) * FONT * LINE_HEIGHT / POINTS_PER_INCH * 1.4)
    figure, axes = figures(len(panels), 6.4 * columns, height * lines, columns)
    for data, panel in zip(panels, axes, strict=True):
        draw(panel, [row for row in rows if row["data"] == data], zero_shot[data], methods)
        panel.set_title(panel_title(data), fontsize=10, pad=14)
    width = round(TITLE_WIDTH * columns)
    lines_above = [textwrap.fill(text, width) for text in (figure_title(rows), schedule_note) if text is not None]
    figure.suptitle("\n".join(lines_above), fontsize=11)
    return save(figure, path)


def panel_title(data: str) -> str:
    """Return a panel's title, wrapped to two lines at most."""
    return textwrap.fill(data, TITLE_WIDTH, max_lines=2, placeholder=" …").replace("$", r"\$")


def figure_title(rows: Sequence[Point]) -> str:
    """Return the title of the figure, which says what its points and bars are."""
    pairs = any(single_seeds(row) for row in rows)
    if any(len(row["values"]) >= MIN_SEEDS_FOR_INTERVAL for row in rows):
        return "Test accuracy, mean and 95 % interval over seeds" + (", or each of two" if pairs else "")
    return "Test accuracy, mean and each of two seeds" if pairs else "Test accuracy"


def half_interval(row: Point) -> float:
    """Return half of the interval around a mean, in percent; NaN if none is drawn."""
    return math.nan if row["interval"] is None or len(row["values"]) < MIN_SEEDS_FOR_INTERVAL else 100 * row["interval"]


def single_seeds(row: Point) -> list[float]:
    """Return the accuracies of two seeds, in percent, which are drawn in place of an interval; else an empty list."""
    return [100 * value for value in row["values"]] if 1 < len(row["values"]) < MIN_SEEDS_FOR_INTERVAL else []


def curves(axes: "Axes", rows: Sequence[Point], zero_shot: Mapping[int, float], methods: Sequence[str]) -> None:
    """Draw a line with its band for each method, labelled at its end."""
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
    axes.set_ylim(_y_limits(rows, zero_shot))
    _label_ends(axes, ends)


def _accuracies(rows: Sequence[Point], zero_shot: Mapping[int, float]) -> list[float]:
    """Return all drawn accuracies, in percent, without intervals."""
    means = [100 * accuracy for accuracy in (*(row["mean"] for row in rows), *zero_shot.values())]
    return [*means, *(value for row in rows for value in single_seeds(row))]


def _y_limits(rows: Sequence[Point], zero_shot: Mapping[int, float]) -> tuple[float, float]:
    """Return limits that show all accuracies, but not the whole of very wide intervals, which few seeds cause."""
    values = _accuracies(rows, zero_shot)
    low, high = min(values), max(values)
    halves = [half_interval(row) for row in rows if not math.isnan(half_interval(row))]
    room = min(max(halves, default=0.0), 0.5 * (high - low)) + 1.0
    return low - room, high + room


def _x_limits(rows: Sequence[Point], zero_shot: Mapping[int, float]) -> tuple[float, float]:
    """Return limits that show all accuracies with their whole intervals."""
    ends = [
        100 * row["mean"] + side * half_interval(row)
        for row in rows
        for side in (-1, 1)
        if not math.isnan(half_interval(row))
    ]
    values = [*_accuracies(rows, zero_shot), *ends]
    room = 0.05 * (max(values) - min(values)) + 0.5
    return min(values) - room, max(values) + room


def _curve(axes: "Axes", points: Sequence[Point], index: int) -> None:
    shots = [row["shots"] for row in points]
    means = np.array([100 * row["mean"] for row in points])
    halves = np.array([half_interval(row) for row in points])
    for row in filter(single_seeds, points):
        axes.plot([row["shots"]] * 2, single_seeds(row), color=_colour(index), **PAIR)
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


def _label_ends(axes: "Axes", ends: Sequence[tuple[int, float, str, str]]) -> None:
    """Write each curve's last value and name beside its end, with labels moved apart and connected to their curves."""
    low, high = axes.get_ylim()
    inches = axes.figure.get_size_inches()[1] / axes.get_subplotspec().get_gridspec().nrows - 1.0  # type: ignore[union-attr]
    gap = (high - low) * FONT * LINE_HEIGHT / POINTS_PER_INCH / inches
    ordered = sorted(ends, key=lambda end: end[1])
    places = spread_apart([end[1] for end in ordered], gap, low, high)
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


def spread_apart(values: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Move rising values as little as possible to be a gap apart, and between `low` and `high` if there is room.

    This is isotonic regression (pool adjacent violators) after subtracting the gaps.
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


def ranked_points(axes: "Axes", rows: Sequence[Point], zero_shot: Mapping[int, float], methods: Sequence[str]) -> None:
    """Draw a point with its interval for each method, the most accurate one on top."""
    ordered = sorted(rows, key=lambda row: row["mean"])
    means = [100 * row["mean"] for row in ordered]
    places = np.arange(len(ordered))
    halves = [half_interval(row) for row in ordered]
    for place, row in enumerate(ordered):
        if single_seeds(row):
            axes.plot(single_seeds(row), [place] * 2, color=BLUE, **PAIR)
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
    axes.set_xlim(_x_limits(rows, zero_shot))
    axes.grid(alpha=0.25)
