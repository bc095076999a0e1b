"""Corrupted images: what each kind does, and that it is the same every time."""

import pickle
from itertools import pairwise
from typing import get_args

import numpy as np
import pytest
from PIL import Image, ImageOps
from sklearn.datasets import load_sample_image

from clipadapt.data.corruptions import CORRUPTIONS, Name, centre_crop, corrupted
from clipadapt.data.images import fingerprints
from clipadapt.data.tasks import Split

RANDOM = np.random.default_rng(0)
PICTURES = [Image.fromarray(RANDOM.integers(0, 256, (32, 48, 3), dtype=np.uint8)) for _ in range(2)]
PHOTOGRAPH = ImageOps.fit(Image.fromarray(load_sample_image("china.jpg")), (224, 224))
SPLIT = Split([*PICTURES, Image.new("RGB", (300, 400), (90, 120, 200))], [0, 1, 1])


def pixels(image):
    return np.asarray(image).astype(float)


def distances(name, side):
    """How far a photograph is from itself when it is corrupted at each severity, on average over pixels and draws."""
    photograph = PHOTOGRAPH.resize((side, side))
    split = Split([photograph] * 4, [0] * 4)
    found = [[pixels(image) for image in corrupted(split, name, severity).images] for severity in range(1, 6)]
    return [np.abs(np.stack(images) - pixels(photograph)).mean() for images in found]


def test_every_name_has_a_corruption():
    assert [*get_args(Name)] == [*CORRUPTIONS] and len(CORRUPTIONS) == 15
    assert all(len(values) == len({*values}) == 5 for _, values in CORRUPTIONS.values())


@pytest.mark.parametrize("side", [224, 64])
@pytest.mark.parametrize("name", [name for name in CORRUPTIONS if name != "elastic_transform"])
def test_further_with_every_severity(name, side):
    found = distances(name, side)
    assert found[0] > 0 and found[-1] > 1.1 * found[0] and len({*found}) == 5
    assert all(later > 0.95 * sooner for sooner, later in pairwise(found))  # some of ImageNet-C's are about as strong


def test_elastic_shifts_further_and_then_ripples_more():
    apply, values = CORRUPTIONS["elastic_transform"]
    clean = PHOTOGRAPH.resize((112, 112))

    def mean_distance(value):
        return np.mean(
            [
                np.abs(pixels(apply(clean, value, np.random.default_rng(seed))) - pixels(clean)).mean()
                for seed in range(8)
            ]
        )

    found = [mean_distance(value) for value in values]
    assert 0 < found[0] < found[1] and 0 < found[2] < found[3] < found[4]


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_the_same_every_time_and_in_every_process(name):
    split = corrupted(SPLIT, name, 3)
    again = pickle.loads(pickle.dumps(split))
    assert [a.tobytes() for a in split.images] == [b.tobytes() for b in again.images]
    assert split.labels == SPLIT.labels and split.images[0].size == (48, 32) and split.images[0].mode == "RGB"


@pytest.mark.parametrize("size", [(1, 1), (2, 3), (40, 3)])
@pytest.mark.parametrize("name", CORRUPTIONS)
def test_images_of_a_few_pixels(name, size):
    tiny = Split([Image.new("RGB", size, (90, 120, 200))], [0])
    assert [corrupted(tiny, name, severity).images[0].size for severity in (1, 5)] == [size, size]


def test_noise_is_drawn_for_each_image():
    twice = Split([PICTURES[0]] * 2, [0, 0])
    first, second = corrupted(twice, "gaussian_noise", 1).images
    assert first.tobytes() != second.tobytes()


def test_large_images_are_cropped_to_the_middle():
    wide = Image.fromarray(np.linspace(0, 255, 500)[None, :, None].repeat(375, 0).repeat(3, 2).astype(np.uint8))
    found = pixels(centre_crop(wide))
    assert found.shape == (224, 224, 3)
    rim = (500 - 224 * 375 / 256) / 2  # what is cut off on the left of the original
    assert found[0, 0, 0] == pytest.approx(255 * rim / 500, abs=1.5)
    assert found[0, -1, 0] == pytest.approx(255 * (500 - rim) / 500, abs=1.5)
    assert corrupted(SPLIT, "contrast", 1).images[2].size == (224, 224)


def test_gaussian_noise_has_imagenet_cs_deviation():
    grey = Split([Image.new("RGB", (200, 200), (128, 128, 128))], [0])
    assert pixels(corrupted(grey, "gaussian_noise", 1).images[0]).std() == pytest.approx(0.08 * 255, rel=0.02)


def test_contrast_keeps_the_mean():
    found = pixels(corrupted(SPLIT, "contrast", 5).images[0])
    assert found.mean(axis=(0, 1)) == pytest.approx(pixels(PICTURES[0]).mean(axis=(0, 1)), abs=0.6)
    assert found.std() == pytest.approx(0.05 * pixels(PICTURES[0]).std(), rel=0.1)


def test_what_stands_for_an_image_tells_corruptions_apart():
    kinds = [corrupted(SPLIT, name, severity) for name in ("contrast", "pixelate") for severity in (1, 2)]
    found = [mark for kind in kinds for mark in fingerprints(kind.images)]
    assert len({*found}) == len(found)
    assert fingerprints(corrupted(SPLIT, "contrast", 1).images) == fingerprints(kinds[0].images)
