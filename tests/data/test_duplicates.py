"""Equal and nearly equal images in several splits, or under two labels, are told by a run and by `data verify`."""

import shutil
import warnings

import pytest

from clipadapt.cli import main
from clipadapt.data.few_shot import make_task
from clipadapt.data.sources import drawn, folder


@pytest.fixture
def shapes(tmp_path):
    """Four drawings of each of two classes to learn from, and two to test on."""
    source = drawn()
    classes = len(source.class_names)
    for split, numbers in (("train", range(4)), ("test", range(20, 22))):
        for label, name in enumerate(source.class_names[:2]):
            place = tmp_path / "shapes" / split / name
            place.mkdir(parents=True)
            for number in numbers:
                source.train[number * classes + label][0].save(place / f"{number}.png")
    return tmp_path / "shapes"


def notes(root):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        make_task(folder(str(root)), 4, 1)
    return [str(each.message) for each in caught]


def test_different_images_bring_no_note(shapes, capsys):
    assert notes(shapes) == []
    assert main(["data", "verify", "folder", f"data.root={shapes}"]) == 0


def test_test_images_that_are_learned_from(shapes, capsys):
    shutil.copy(shapes / "train" / "circle" / "0.png", shapes / "test" / "circle" / "copy.png")
    (text,) = notes(shapes)
    assert "1 group of equal images in several of support, test: " in text
    assert "train/circle/0.png (support) = " in text and "test/circle/copy.png (test)" in text
    assert main(["data", "verify", "folder", f"data.root={shapes}"]) == 2
    assert "equal images in several of train, test" in capsys.readouterr().out


def test_one_image_under_two_labels(shapes):
    shutil.copy(shapes / "train" / "circle" / "0.png", shapes / "train" / "square" / "copy.png")
    (shapes / "train" / "square" / "0.png").unlink()
    (text,) = notes(shapes)
    assert "1 group of equal images under several labels: " in text
    assert "circle/0.png (circle) = " in text and "square/copy.png (square)" in text


def test_nearly_equal_images(shapes, capsys):
    from PIL import Image

    image = Image.open(shapes / "train" / "circle" / "1.png")
    image.resize((64, 64)).save(shapes / "test" / "circle" / "larger.png")
    verify = ["data", "verify", "folder", f"data.root={shapes}"]
    assert main(verify) == 0
    assert main([*verify, "duplicates=true"]) == 2
    text = capsys.readouterr().out
    assert (
        "nearly equal (cosine 0.985 or more) images in several of train, test: " in text and "larger.png (test)" in text
    )
    assert main([*verify, "duplicates=false", "backbone=tiny"]) == 2
    assert "backbone=tiny has no meaning here" in capsys.readouterr().err
    assert main([*verify, "duplicates=7"]) == 2
    assert "duplicates=7 does not fit" in capsys.readouterr().err
