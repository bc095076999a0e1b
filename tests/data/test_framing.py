"""How images that aren't square are seen, and what the views of support images are."""

import numpy as np
import pytest
import torch
from PIL import Image

import clipadapt
from clipadapt.data.framing import Framing, crop_note
from clipadapt.data.images import fingerprints
from clipadapt.data.tasks import Split
from clipadapt.data.transforms import transform_for
from clipadapt.errors import DataError, SettingsError
from clipadapt.runs.tasks import augmentation

CPU = torch.device("cpu")
WIDE = Image.fromarray(np.arange(4 * 16 * 3, dtype=np.uint8).reshape(4, 16, 3))
TALL = WIDE.transpose(Image.Transpose.ROTATE_90)


def test_a_crop_leaves_an_image_as_it_is():
    assert Framing()(WIDE) is WIDE


@pytest.mark.parametrize("image", [WIDE, TALL])
def test_padding_keeps_every_pixel_in_the_middle_of_a_square_of_the_colour(image):
    square = np.asarray(Framing("pad", "#010203")(image))
    top, left = ((16 - side) // 2 for side in (image.height, image.width))
    assert square.shape == (16, 16, 3)
    assert np.array_equal(square[top : top + image.height, left : left + image.width], np.asarray(image))
    assert {*map(tuple, square[:, :6].reshape(-1, 3))} >= {(1, 2, 3)} and tuple(square[0, 0]) == (1, 2, 3)


@pytest.mark.parametrize("image", [WIDE, TALL])
def test_squashing_stretches_the_shorter_side(image):
    assert Framing("squash")(image).size == (16, 16)
    plain = Image.new("RGB", image.size, "red")
    assert Framing("squash")(plain).tobytes() == Image.new("RGB", (16, 16), "red").tobytes()


def test_an_unknown_colour_is_refused():
    with pytest.raises(DataError, match=r"^task\.pad_colour='reddish' is no colour: give a name, such as white"):
        Framing("pad", "reddish")


def test_every_split_of_a_task_is_seen_alike_and_has_keys_of_its_own(tmp_path):
    make_folder(tmp_path)
    tasks = {how: clipadapt.load_task("folder", root=str(tmp_path), shots=1, resize=how) for how in ("pad", "squash")}
    for task in tasks.values():
        for split in (task.support, task.validation, task.pool, *task.tests.values()):
            assert all(image.size == (64, 64) for image in split.images)
    pad, squash = (fingerprints(task.support.images) for task in tasks.values())
    assert not {*pad} & {*squash}


def make_folder(root):
    for name, colour in (("red", "red"), ("blue", "blue")):
        for index in range(3):
            (root / name).mkdir(exist_ok=True)
            Image.new("RGB", (64, 16), colour).save(root / name / f"{index}.png")


def test_a_run_keeps_how_it_sees_images(tmp_path, clip):
    (tmp_path / "images").mkdir()
    make_folder(tmp_path / "images")
    task = clipadapt.load_task("folder", root=str(tmp_path / "images"), shots=1, views=0, resize="squash")
    result = clipadapt.finetune(clip, task, "zero_shot", workers=0, cpu=True, cache=None)
    run = result.save(tmp_path / "run")
    predictor = clipadapt.load(run)
    wide = tmp_path / "images" / "red" / "0.png"
    squashed = Image.open(wide).resize((64, 64))
    torch.testing.assert_close(predictor.predict_proba(wide), predictor.predict_proba(squashed))
    other = clipadapt.evaluate(run, "folder", root=str(tmp_path / "images"))
    assert other["tests"]["test"]["accuracy"] == result.metrics["accuracy"]


def test_thin_images_are_noted_where_the_crop_cuts_them(tmp_path):
    thin, square = (Split([image] * 3, [0] * 3) for image in (WIDE, WIDE.resize((16, 16))))
    assert "leaves out over half of 3 of 3 images" in crop_note(thin)
    assert crop_note(square) is None and crop_note(Split([], [])) is None
    make_folder(tmp_path)
    with pytest.warns(UserWarning, match="task.resize=pad or task.resize=squash shows all of each"):
        clipadapt.load_task("folder", root=str(tmp_path), shots=1)


@pytest.mark.parametrize(
    ("choice", "word"), [("crop", "crop"), (["mirror", "crop"], "crop_mirror"), (["mirror"], "mirror"), ([], "none")]
)
def test_augmentations_are_named_one_by_one_or_together(choice, word):
    assert augmentation(choice) == word
    task = clipadapt.load_task("digits", shots=1, augment=choice, views=4)
    assert task.augmentation == word and task.views == (0 if word == "none" else 4)


def test_other_augmentations_are_refused():
    with pytest.raises(SettingsError, match=r"^task\.augment=.*does not fit"):
        clipadapt.load_task("digits", augment="rotate")
    with pytest.raises(SettingsError, match=r"there is no key data\.resize: it is called task\.resize now"):
        clipadapt.config.compose(["data.resize=pad"])


def test_views_are_mirrored_only_where_that_was_asked_for(clip):
    image = Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 40, 3), dtype=np.uint8))
    seeds = [*range(8)]
    views = {}
    for augment in ("none", "mirror", "crop", "crop_mirror"):
        transform = transform_for(clip, augment)
        views[augment] = transform.pixels([transform.read(image)] * len(seeds), seeds, CPU)
    mirrored = [not torch.equal(one, other) for one, other in zip(views["none"], views["mirror"], strict=True)]
    assert 0 < sum(mirrored) < len(seeds)
    flipped = torch.tensor(mirrored)[:, None, None, None]
    torch.testing.assert_close(views["mirror"], torch.where(flipped, views["none"].flip(-1), views["none"]))
    pairs = [*zip(views["crop"], views["crop_mirror"], strict=True)]
    changed = [not torch.equal(one, other) for one, other in pairs]
    assert 0 < sum(changed) < len(seeds) and all(
        torch.equal(one, other) or torch.equal(one.flip(-1), other) for one, other in pairs
    )
    assert len({transform_for(clip, augment).recipe for augment in views}) == 4
