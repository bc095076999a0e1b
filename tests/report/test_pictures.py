import math

import numpy as np
import pytest
from PIL import Image

from clipadapt.report import pictures


def ink(path) -> float:
    """Share of the pixels that aren't white."""
    with Image.open(path) as image:
        assert max(image.size) < 6000
        return float((np.asarray(image.convert("L")) < 250).mean())


@pytest.mark.parametrize("classes", [2, 10, 300])
def test_pictures_of_few_and_of_many_classes(classes, tmp_path):
    names = [f"class_{i} of $ {'long ' * 10}" for i in range(classes)]
    matrix = np.random.RandomState(0).randint(0, 9, (classes, classes))
    before, after = np.random.RandomState(1).rand(2, classes)
    before[0] = math.nan
    drawn = [
        pictures.confusion_matrix(matrix, names, tmp_path / "confusion.png"),
        pictures.per_class_change(before, after, names, tmp_path / "change.png"),
    ]
    assert all(ink(path) > 0.01 for path in drawn)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["change.png", "confusion.png"]


def test_a_learning_curve(tmp_path):
    history = [{"epoch": i + 1, "loss": 1 / (i + 1), "accuracy": 0.5, "lr": 0.002} for i in range(5)]
    assert ink(pictures.learning_curve(history, tmp_path / "learning.png")) > 0.005
