"""A task's fingerprint tells files that were swapped, and reads little of large ones."""

import os
import tarfile

import numpy as np
import pytest
from PIL import Image

from clipadapt.data import marks
from clipadapt.data.few_shot import make_task
from clipadapt.data.shards import webdataset
from clipadapt.data.sources import digits, folder


@pytest.fixture
def pets(tmp_path):
    """Bitmaps, which all have one size."""
    for place in ("train/cat", "train/dog", "test/cat", "test/dog"):
        (tmp_path / place).mkdir(parents=True)
        for number in range(2):
            path, seed = tmp_path / place / f"{number}.bmp", len(place) * 7 + number + ("dog" in place) * 2
            noise = np.random.default_rng(seed).integers(0, 255, (8, 8, 3), np.uint8)
            Image.fromarray(noise).save(path)
    return tmp_path


def fingerprint(root):
    return make_task(folder(str(root)), 2, 1).fingerprint


@pytest.mark.parametrize("split", ["train", "test"])
def test_swapped_files_change_the_fingerprint(pets, split):
    before = fingerprint(pets)
    assert fingerprint(pets) == before
    cat, dog = (pets / split / name / "0.bmp" for name in ("cat", "dog"))
    (pets / split / "cat" / "0.bmp").rename(pets / "kept")
    dog.rename(cat)
    (pets / "kept").rename(dog)
    assert fingerprint(pets) != before


def test_copies_of_the_files_have_the_same_fingerprint(pets):
    before = fingerprint(pets)
    for path in pets.rglob("*.bmp"):
        content = path.read_bytes()
        path.unlink()
        path.write_bytes(content)
    assert fingerprint(pets) == before


def test_a_change_anywhere_in_a_small_file_is_seen_and_little_is_read_of_a_large_one(tmp_path):
    path, found = tmp_path / "a.bmp", set()
    for place in range(0, 32 * 1024, 997):
        content = bytearray(32 * 1024)
        content[place] = 1
        path.write_bytes(content)
        marks.hash_blocks.cache_clear()
        found.add(marks.find_mark(str(path)))
    assert len(found) == len(range(0, 32 * 1024, 997))
    first, *_, last = marks.offsets(10_000_000)
    assert first == 0 and last == 10_000_000 - marks.BLOCK and len(marks.offsets(10_000_000)) == marks.BLOCKS


def test_files_in_shards_have_marks_and_images_in_memory_none(pets):
    for name in ("a", "b"):
        with tarfile.open(pets / f"{name}.tar", "w") as archive:
            for label, kind in enumerate(("cat", "dog")):
                archive.add(pets / "train" / kind / "0.bmp", f"{label}.bmp")
                (pets / "label").write_text(str(label if name == "a" else 1 - label))
                archive.add(pets / "label", f"{label}.cls")
    images = [webdataset(str(pets / f"{name}.tar"), class_names=["cat", "dog"]).train.images for name in ("a", "b")]
    assert marks.find_marks(images[0]) == marks.find_marks(images[1]) and len({*marks.find_marks(images[0])}) == 2
    assert marks.find_marks(digits().train.images) == []
    assert marks.find_mark(str(pets / "gone")) is None
    os.mkfifo(pets / "pipe.png")
    assert marks.find_mark(str(pets / "pipe.png")) is None


def test_a_change_is_seen_though_the_time_was_set_back(pets):
    path, before = pets / "train" / "cat" / "0.bmp", fingerprint(pets)
    state, content = path.stat(), path.read_bytes()
    path.write_bytes(content[:-8] + bytes(8))
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))
    assert fingerprint(pets) != before
