"""Corrupted images: what each kind does, and that it is the same every time."""

import pickle
from typing import get_args

import numpy as np
import pytest
from PIL import Image

from clipadapt.data.corruptions import CORRUPTIONS, Name, corrupted
from clipadapt.data.images import fingerprints
from clipadapt.data.tasks import Split

RANDOM = np.random.default_rng(0)
PICTURES = [Image.fromarray(RANDOM.integers(0, 256, (32, 48, 3), dtype=np.uint8)) for _ in range(2)]
SPLIT = Split([*PICTURES, Image.new("RGB", (300, 400), (90, 120, 200))], [0, 1, 1])


def pixels(image):
    return np.asarray(image).astype(float)


def distance(name, severity, index=0):
    clean = pixels(SPLIT.images[index])
    return np.abs(pixels(corrupted(SPLIT, name, severity).images[index]) - clean).mean()


def test_every_name_has_a_corruption():
    assert {*get_args(Name)} == {*CORRUPTIONS}


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_worse_with_every_severity(name):
    distances = [distance(name, severity) for severity in range(1, 6)]
    assert distances[0] > 0 and distances == sorted(distances)


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_the_same_every_time_and_in_every_process(name):
    split = corrupted(SPLIT, name, 3)
    again = pickle.loads(pickle.dumps(split))
    assert [a.tobytes() for a in split.images] == [b.tobytes() for b in again.images]
    assert split.labels == SPLIT.labels and split.images[0].size == (48, 32)


def test_noise_is_drawn_for_each_image():
    twice = Split([PICTURES[0]] * 2, [0, 0])
    first, second = corrupted(twice, "gaussian_noise", 1).images
    assert first.tobytes() != second.tobytes()


def test_large_images_are_cropped_to_224():
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
