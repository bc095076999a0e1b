"""What is drawn: the data, artists and texts of the figures, and that the file is a picture of them."""

import math

import numpy as np
import pytest
from PIL import Image

from clipadapt.report import pictures

LONG = "a class of $ " + "long " * 10


def saved(path) -> Image.Image:
    with Image.open(path) as image:
        assert max(image.size) < 6000
        return image.convert("RGB")


def pixel_at(image: Image.Image, axes, x: float, y: float) -> tuple[int, int, int]:
    """The colour at a place of a panel in the file."""
    across, up = axes.transData.transform((x, y)) * image.width / axes.figure.bbox.width
    return image.getpixel((round(across), image.height - 1 - round(up)))


def texts(axes) -> dict[tuple[float, float], str]:
    return {text.get_position(): text.get_text() for text in axes.texts}


@pytest.mark.parametrize("classes", [2, 10, 300])
def test_a_confusion_matrix(classes, drawn_figures, tmp_path):
    matrix = np.random.RandomState(0).randint(0, 9, (classes, classes))
    matrix[0] = 0
    matrix[0, 1] = 50
    names = [LONG, *(f"class_{index}" for index in range(1, classes))]
    path = pictures.confusion_matrix(matrix, names, tmp_path / "confusion.png")
    [figure] = drawn_figures
    axes, bar = figure.axes
    [image] = axes.images
    shares = 100 * matrix / matrix.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(image.get_array(), shares)
    assert image.get_visible() and image.get_alpha() is None and image.get_clim() == (0, 100)
    assert bar.get_ylabel() == "share of the true class (%)"
    shown = {(j, i): str(matrix[i, j]) for i in range(classes) for j in range(classes) if matrix[i, j]}
    assert texts(axes) == (shown if classes <= 20 else {})
    assert all(text.get_visible() and not text.get_text().startswith("$") for text in axes.texts)
    labels = [label.get_text() for label in axes.get_yticklabels()]
    places = [int(place) for place in axes.get_yticks()]
    assert labels == [pictures.short_label(names[place]) for place in places] and places[0] == 0
    assert len(labels) == (classes if classes <= 40 else 38)
    correct = 100 * np.trace(matrix) / matrix.sum()
    assert axes.get_title() == f"Confusion matrix: {correct:.1f} % of {matrix.sum():,} test images correct"
    full, empty = (pixel_at(saved(path), axes, j + 0.3, 0.3) for j in (1, 0))  # of the first row, beside the numbers
    assert sum(full) < 250 and sum(empty) > 700


@pytest.mark.parametrize("classes", [2, 10, 300])
def test_the_change_of_each_class(classes, drawn_figures, tmp_path):
    before, after = np.random.RandomState(1).rand(2, classes)
    before[0] = math.nan
    names = [LONG, *(f"class_{index}" for index in range(1, classes))]
    path = pictures.per_class_change(before, after, names, tmp_path / "change.png")
    [axes] = drawn_figures[0].axes
    order = sorted(range(1, classes), key=lambda index: after[index] - before[index])
    order = order if classes <= 50 else order[:25] + order[-25:]
    bars = sorted(axes.patches, key=lambda bar: bar.get_y())
    ends = [sorted(100 * np.array([before[index], after[index]])) for index in order]
    assert [(bar.get_x(), bar.get_x() + bar.get_width()) for bar in bars] == [pytest.approx(pair) for pair in ends]
    assert [bar.get_y() + bar.get_height() / 2 for bar in bars] == pytest.approx(range(len(order)))
    start, end = axes.collections
    for points, values in ((start, before), (end, after)):
        expected = [(100 * values[index], row) for row, index in enumerate(order)]
        np.testing.assert_allclose(points.get_offsets(), expected)
    names_shown = [label.get_text() for label in axes.get_yticklabels()]
    assert names_shown == [f"{names[index]}  {100 * (after[index] - before[index]):+.1f}" for index in order]
    said = {text.get_text() for text in drawn_figures[0].legends[0].get_texts()}
    assert {"zero-shot", "adapted"} <= said
    assert all(artist.get_visible() for artist in (*bars, start, end))
    low, high = ends[-1]
    colour = np.array(pixel_at(saved(path), axes, (low + high) / 2, len(order) - 1))
    assert np.abs(colour - 255).max() > 50


def test_a_learning_curve(drawn_figures, tmp_path):
    history = [{"epoch": i + 1, "loss": 1 / (i + 1), "accuracy": 0.1 * i, "lr": 0.002 / (i + 1)} for i in range(5)]
    path = pictures.learning_curve(history, tmp_path / "learning.png")
    [figure] = drawn_figures
    titles = [axes.get_title() for axes in figure.axes]
    assert titles == ["training loss", "training accuracy (%)", "learning rate"]
    image = saved(path)
    for axes, (key, factor) in zip(figure.axes, (("loss", 1), ("accuracy", 100), ("lr", 1)), strict=True):
        [line] = axes.lines
        assert line.get_visible() and line.get_linestyle() == "-"
        np.testing.assert_allclose(line.get_xydata(), [(row["epoch"], factor * row[key]) for row in history])
        assert min(pixel_at(image, axes, 3, factor * history[2][key])) < 200


def test_every_picture_is_one_file(tmp_path):
    pictures.confusion_matrix(np.eye(2), ["cat", "dog"], tmp_path / "confusion.png")
    assert [path.name for path in tmp_path.iterdir()] == ["confusion.png"]
