"""Pictures of a run and of a study, written as PNG files.

Figures are made without pyplot: nothing global changes and no display is needed; matplotlib is imported when the first
picture is drawn. Every function writes to a temporary file beside `path`, moves it into place and returns `path`.
"""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from clipadapt.files import write
from clipadapt.report.tables import score_name

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DPI = 150
BLUE, ORANGE, GREY = "#2b6ca3", "#d1622b", "#8a8a8a"
MOST_CELLS_WITH_NUMBERS = 20
MOST_LABELS = 40
MOST_BARS_AT_AN_END = 25
LONGEST_NAME = 28


def confusion_matrix(matrix: np.ndarray, class_names: Sequence[str], path: str | Path) -> Path:
    """Which classes are taken for which.

    Args:
        matrix: `[C, C]`, how many test images of the class of the row were classified as the class of the column.
        class_names: names of the C classes.
        path: where the PNG goes.
    """
    classes = len(class_names)
    totals = matrix.sum(axis=1, keepdims=True)
    shares = 100 * matrix / np.maximum(totals, 1)
    labelled = min(classes, MOST_LABELS)
    size = float(np.clip(3.0 + 0.3 * labelled, 5.0, 12.0))
    figure, axes = _figure(size + 1.0, size)
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=100)
    bar = figure.colorbar(image, ax=axes, fraction=0.046, pad=0.03)
    bar.set_label("share of the true class (%)")
    shown = np.arange(0, classes, -(-classes // MOST_LABELS))
    labels = [short_label(class_names[index]) for index in shown.tolist()]
    upright = 90 if max(map(len, labels)) > 3 or classes > MOST_CELLS_WITH_NUMBERS else 0
    axes.set_xticks(shown, labels, rotation=upright, fontsize=8)
    axes.set_yticks(shown, labels, fontsize=8)
    if classes <= MOST_CELLS_WITH_NUMBERS:
        _numbers(axes, matrix, shares)
    axes.set_xlabel("predicted class")
    axes.set_ylabel("true class")
    correct = np.trace(matrix) / max(matrix.sum(), 1)
    axes.set_title(f"Confusion matrix: {100 * correct:.1f} % of {int(matrix.sum()):,} test images correct", fontsize=11)
    return save(figure, path)


def per_class_change(before: np.ndarray, after: np.ndarray, class_names: Sequence[str], path: str | Path) -> Path:
    """What adapting did to each class: a bar from zero-shot to adapted accuracy, sorted by change.

    Of very many classes those with the largest losses and the largest gains are shown.

    Args:
        before: `[C]`, zero-shot accuracies, fractions; NaN for a class without test images, which is left out.
        after: `[C]`, adapted accuracies, likewise.
        class_names: names of the C classes.
        path: where the PNG goes.
    """
    change = np.asarray(after) - np.asarray(before)
    order = np.argsort(change, kind="stable")
    order = order[~np.isnan(change[order])]
    title = "Accuracy per class: zero-shot to adapted"
    if len(order) > 2 * MOST_BARS_AT_AN_END:
        title = f"The {MOST_BARS_AT_AN_END} largest losses and gains of {len(order):,} classes"
        order = np.concatenate([order[:MOST_BARS_AT_AN_END], order[-MOST_BARS_AT_AN_END:]])
    start, end = 100 * np.asarray(before)[order], 100 * np.asarray(after)[order]
    rows = np.arange(len(order))
    figure, axes = _figure(8.0, float(np.clip(1.6 + 0.24 * len(order), 3.0, 14.0)))
    for chosen, colour, label in ((end >= start, BLUE, "gain"), (end < start, ORANGE, "loss")):
        left, width = np.minimum(start, end)[chosen], np.abs(end - start)[chosen]
        axes.barh(rows[chosen], width, left=left, height=0.6, color=colour, alpha=0.55, label=label)
    axes.scatter(start, rows, s=22, facecolor="white", edgecolor=GREY, zorder=3, label="zero-shot")
    axes.scatter(end, rows, s=22, color=np.where(end >= start, BLUE, ORANGE).tolist(), zorder=4, label="adapted")
    names = [f"{short_label(class_names[index])}  {100 * change[index]:+.1f}" for index in order]
    axes.set_yticks(rows, names, fontsize=8)
    axes.set_xlim(-2, 102)
    axes.set_xlabel("accuracy on the test set (%); beside each name the change in points")
    axes.set_title(title, fontsize=11)
    figure.legend(*_used(axes), loc="outside lower center", ncols=4, frameon=False, fontsize=8)
    return save(figure, path)


def learning_curve(history: Sequence[Mapping[str, Any]], path: str | Path) -> Path:
    """Loss, training accuracy and learning rate over the epochs.

    Args:
        history: one record for each epoch with `epoch`, `loss`, a training score such as `accuracy`, and `lr`.
        path: where the PNG goes.
    """
    figure, panels = figures(3, 10.5, 3.2)
    epochs = [record["epoch"] for record in history]
    score = score_name(history[0])
    curves = (
        ("loss", "training loss", 1, BLUE),
        ("accuracy", "training accuracy (%)", 100, ORANGE) if score == "accuracy" else (score, score, 1, ORANGE),
        ("lr", "learning rate", 1, GREY),
    )
    for axes, (key, title, factor, colour) in zip(panels, curves, strict=True):
        values = [factor * record[key] for record in history]
        axes.plot(epochs, values, color=colour, linewidth=1.5, marker="o" if len(epochs) <= 25 else None, markersize=3)
        axes.set_title(title, fontsize=10)
        axes.set_xlabel("epoch")
        axes.locator_params(axis="x", integer=True)
        axes.ticklabel_format(axis="y", scilimits=(-3, 4))
        axes.grid(alpha=0.25)
    panels[2].set_ylim(bottom=0)
    return save(figure, path)


def _figure(width: float, height: float) -> "tuple[Figure, Axes]":
    figure, [axes] = figures(1, width, height)
    return figure, axes


def figures(panels: int, width: float, height: float, columns: int | None = None) -> "tuple[Figure, list[Axes]]":
    """A figure of so many inches with panels in so many columns; beside each other where None."""
    columns = columns or panels
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=DPI, layout="constrained")
    return figure, [figure.add_subplot(-(-panels // columns), columns, index + 1) for index in range(panels)]


def _numbers(axes: "Axes", matrix: np.ndarray, shares: np.ndarray) -> None:
    for (row, column), count in np.ndenumerate(matrix):
        if count:
            colour = "white" if shares[row, column] > 55 else "black"
            axes.text(column, row, f"{int(count)}", ha="center", va="center", fontsize=7, color=colour)


def _used(axes: "Axes") -> tuple[list[Any], list[str]]:
    handles, labels = axes.get_legend_handles_labels()
    return handles, labels


def short_label(name: str) -> str:
    """A name that fits beside an axis and is not read as a formula."""
    short = name if len(name) <= LONGEST_NAME else name[: LONGEST_NAME - 1] + "…"
    return short.replace("$", r"\$")


def save(figure: "Figure", path: str | Path) -> Path:
    """Write a figure as PNG, whole or not at all."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    content = io.BytesIO()
    figure.savefig(content, format="png")
    write(path, content.getvalue())
    return path
