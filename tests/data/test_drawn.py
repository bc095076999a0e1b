import numpy as np
import pytest

from clipadapt.data import drawn
from clipadapt.data.sources import statements


def test_a_drawing_is_a_function_of_seed_and_index():
    one, same, other = drawn.draw(3, 7), drawn.draw(3, 7), drawn.draw(4, 7)
    assert np.array_equal(one.image, same.image) and one.caption == same.caption and one.boxes == same.boxes
    assert not np.array_equal(one.image, other.image)


@pytest.mark.parametrize("size", [16, 32, 64])
def test_masks_and_boxes_say_where_things_are(size):
    for index in range(40):
        drawing = drawn.draw(0, index, size)
        assert drawing.image.shape == (size, size, 3) and drawing.image.dtype == np.uint8
        assert drawing.mask.shape == (size, size) and drawing.mask.max() <= len(drawing.scene.things)
        assert len(drawing.boxes) == len(drawing.scene.things)
        for number, (left, top, right, bottom) in enumerate(drawing.boxes, start=1):
            rows, columns = np.nonzero(drawing.mask == number)
            if len(rows):
                assert (left, top, right, bottom) == (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)


def test_one_thing_fills_its_box_on_some_ground():
    things = [drawn.draw(0, index) for index in range(60)]
    seen = [drawing for drawing in things if (drawing.mask == 1).any()]
    assert len(seen) > 55
    assert np.mean([(drawing.mask > 0).mean() for drawing in seen]) > 0.05


def test_own_captions_are_true():
    drawings = [drawn.draw(1, index) for index in range(200)]
    truth = drawn.truth_matrix([drawn.facts(d.scene) for d in drawings], [d.caption.claims for d in drawings])
    assert truth.diagonal().all()


def test_the_truth_matrix_says_which_claims_are_facts():
    drawings = [drawn.draw(2, index) for index in range(80)]
    found = [drawn.facts(d.scene) for d in drawings]
    claims = [d.caption.claims for d in drawings]
    naive = np.array([[said <= known for said in claims] for known in found])
    assert np.array_equal(drawn.truth_matrix(found, claims), naive)
    assert 0.01 < naive.mean() < 0.5


def test_claims_of_colour_shape_and_relation_are_told_apart():
    red, blue = drawn.Thing("shape", "circle", "red"), drawn.Thing("shape", "square", "blue")
    scene = drawn.Scene((red, blue), "flat", "white", "left of")
    known = drawn.facts(scene)
    assert ("is", "red", "circle") in known and ("is", "blue", "circle") not in known
    assert ("left of", None, "circle", None, "square") in known
    assert ("right of", "blue", "square", None, "circle") in known
    assert ("left of", None, "square", None, "circle") not in known


@pytest.mark.slow
def test_held_out_pairs_are_never_drawn_in_pretraining():
    assert len(drawn.HELD_OUT_PAIRS) >= 0.15 * len(drawn.PAIRS)
    assert {shape for shape, _ in drawn.SEEN_PAIRS} == set(drawn.SHAPES)
    assert {colour for _, colour in drawn.SEEN_PAIRS} == set(drawn.SHAPE_COLOURS)
    for index in range(1500):
        for thing in drawn.draw(0, index, 8).scene.things:
            assert thing.kind != "shape" or not drawn.held_out(thing.name, thing.colour)


@pytest.mark.parametrize("task", sorted(drawn.TASKS))
def test_labelled_drawings_are_balanced_and_splits_differ(task):
    classes = len(drawn.TASKS[task].class_names)
    images = {split: drawn.draw_labelled(task, split, 5) for split in drawn.SPLITS}
    assert {label for _, label in images.values()} == {5 % classes}
    assert not np.array_equal(images["train"][0], images["test"][0])
    assert [drawn.draw_labelled(task, "val", i, size=8)[1] for i in range(classes + 2)] == [*range(classes), 0, 1]


def test_styles_look_different():
    flat, sketch = (drawn.draw_labelled("shapes", "test", 1, style=style)[0] for style in ("flat", "sketch"))
    assert not np.array_equal(flat, sketch)


def test_unknown_names_are_refused():
    for arguments in (("cats", "test", 0), ("shapes", "tests", 0)):
        with pytest.raises(ValueError, match="the drawn world has no"):
            drawn.draw_labelled(*arguments)
    with pytest.raises(ValueError, match="the drawn world has no"):
        drawn.draw_labelled("shapes", "test", 0, style="cubist")


def test_comments_and_docstrings_do_not_change_what_identifies_a_drawing(tmp_path):
    plain, explained, other = (tmp_path / name for name in ("plain.py", "explained.py", "other.py"))
    plain.write_text("SIDE = 2\n\ndef double(number=SIDE):\n    return 2 * number\n")
    explained.write_text(
        '"""Squares."""\nSIDE = 2  # pixels\n\ndef double(number=SIDE):\n    """Double it."""\n'
        "    return (2 *\n        number)\n"
    )
    other.write_text(plain.read_text().replace("SIDE = 2", "SIDE = 3"))
    assert statements(plain) == statements(explained) != statements(other)
