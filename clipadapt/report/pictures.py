"""Pictures of a run and of a study, written as PNG files.

Figures are made without pyplot, so no global state changes and no display is needed; matplotlib is imported when the
first picture is drawn. Every function writes its file atomically and returns `path`.
"""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from clipadapt.files import make_folder, write_atomically
from clipadapt.report.fonts import covering_fonts
from clipadapt.report.tables import score_name

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DPI = 150
BLUE, ORANGE, GREY = "#2b6ca3", "#d1622b", "#8a8a8a"
MAX_NUMBERED_CLASSES = 20
MAX_LABELS = 40
MAX_BARS_PER_END = 25
MAX_NAME_LENGTH = 28


def confusion_matrix(matrix: np.ndarray, class_names: Sequence[str], path: str | Path) -> Path:
    """Draw the confusion matrix of the test images.

    Args:
        matrix: `[C, C]`, the number of test images of the row's class that were classified as the column's class.
        class_names: names of the C classes.
        path: the PNG file to write.
    """
    classes = len(class_names)
    totals = matrix.sum(axis=1, keepdims=True)
    shares = 100 * matrix / np.maximum(totals, 1)
    labelled = min(classes, MAX_LABELS)
    size = float(np.clip(3.0 + 0.3 * labelled, 5.0, 12.0))
    figure, axes = _figure(size + 1.0, size)
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=100)
    bar = figure.colorbar(image, ax=axes, fraction=0.046, pad=0.03)
    bar.set_label("share of the true class (%)")
    shown = np.arange(0, classes, -(-classes // MAX_LABELS))
    labels = [short_label(class_names[index]) for index in shown.tolist()]
    upright = 90 if max(map(len, labels)) > 3 or classes > MAX_NUMBERED_CLASSES else 0
    axes.set_xticks(shown, labels, rotation=upright, fontsize=8)
    axes.set_yticks(shown, labels, fontsize=8)
    if classes <= MAX_NUMBERED_CLASSES:
        _numbers(axes, matrix, shares)
    axes.set_xlabel("predicted class")
    axes.set_ylabel("true class")
    correct = np.trace(matrix) / max(matrix.sum(), 1)
    axes.set_title(f"Confusion matrix: {100 * correct:.1f} % of {int(matrix.sum()):,} test images correct", fontsize=11)
    return save(figure, path)


def per_class_change(before: np.ndarray, after: np.ndarray, class_names: Sequence[str], path: str | Path) -> Path:
    """Draw a bar for each class from its zero-shot to its adapted accuracy, sorted by change.

    If there are very many classes, only the largest losses and the largest gains are shown.

    Args:
        before: `[C]`, zero-shot accuracies, fractions; NaN for a class without test images, which is left out.
        after: `[C]`, adapted accuracies, likewise.
        class_names: names of the C classes.
        path: the PNG file to write.
    """
    change = np.asarray(after) - np.asarray(before)
    order = np.argsort(change, kind="stable")
    order = order[~np.isnan(change[order])]
    title = "Accuracy per class: zero-shot to adapted"
    if len(order) > 2 * MAX_BARS_PER_END:
        title = f"The {MAX_BARS_PER_END} largest losses and gains of {len(order):,} classes"
        order = np.concatenate([order[:MAX_BARS_PER_END], order[-MAX_BARS_PER_END:]])
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
    """Draw loss, training accuracy and learning rate over the epochs.

    Args:
        history: one record per epoch with `epoch`, `loss`, a training score such as `accuracy` and `lr`.
        path: the PNG file to write.
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
    """Return a figure of this size in inches, with panels in so many columns; in one row if `columns` is None."""
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
    """Shorten a name to fit beside an axis, and escape it so that matplotlib doesn't read it as a formula."""
    short = name if len(name) <= MAX_NAME_LENGTH else name[: MAX_NAME_LENGTH - 1] + "…"
    return short.replace("$", r"\$")


def save(figure: "Figure", path: str | Path) -> Path:
    """Write a figure as PNG, atomically."""
    path = Path(path)
    make_folder(path.parent)
    write_atomically(path, render(figure))
    return path


def render(figure: "Figure") -> bytes:
    """Return a figure as PNG."""
    content = io.BytesIO()
    with covering_fonts(figure):
        figure.savefig(content, format="png")
    return content.getvalue()
