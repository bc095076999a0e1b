"""Split folders by the names that people give them, and what else folders and names may mean."""

import unicodedata

import pytest
from PIL import Image

from clipadapt.data.sources import folder
from clipadapt.data.splits import group_by_split
from clipadapt.errors import UserError

CLASSES = ("cat", "dog")


def fill(root, *folders, names=CLASSES, count=2):
    for place in folders:
        for name in names:
            (root / place / name).mkdir(parents=True, exist_ok=True)
            for number in range(count):
                Image.new("RGB", (4, 4)).save(root / place / name / f"{number}.png")
    return root


def sizes(root, **options):
    source = folder(str(root), **options)
    found = {"train": source.train, "val": source.validation, **source.tests}
    return {part: len(split) for part, split in found.items() if split is not None}


@pytest.mark.parametrize(
    ("names", "parts"),
    [
        ("Train VALID Test", "train val test"),
        ("training dev testing", "train val test"),
        ("TRAIN eval", "train test"),
        ("train eval test", "train val test"),
        ("train dev eval", "train val test"),
        ("train_images test_images", "train test"),
        ("trainset hold-out", "train test"),
        ("train2017 validation2017", "train val"),
        ("Training-Set held_out", "train test"),
    ],
)
def test_splits_have_usual_names_in_any_case(tmp_path, names, parts):
    for count, name in enumerate(names.split(), start=1):
        fill(tmp_path, name, count=count)
    assert sizes(tmp_path) == {part: 2 * count for count, part in enumerate(parts.split(), start=1)}


def test_a_name_of_its_own_goes_before_one_with_other_words():
    assert group_by_split(["train", "train_old", "cat"]) == {"train": ["train"]}
    assert group_by_split(["images", "data", "7", ""]) == {}


def test_folders_of_the_same_names_are_splits(tmp_path):
    fill(tmp_path, "learn", count=3)
    fill(tmp_path, "check")
    with pytest.warns(
        UserWarning, match=r"so they are the classes, learn \(with more images\) is for training and check"
    ):
        assert sizes(tmp_path) == {"train": 6, "test": 4}
    assert sizes(tmp_path, splits=False) == {"train": 10}
    assert sizes(tmp_path, train="check", test="learn") == {"train": 4, "test": 6}
    with pytest.raises(UserError, match="has no folder 'lern' for a split: did you mean 'learn'"):
        sizes(tmp_path, train="lern")


def test_three_folders_of_the_same_names_are_asked_for(tmp_path):
    fill(tmp_path, "art", "photo", "sketch")
    with pytest.raises(UserError, match=r"if art, photo, sketch are splits, say which is which with data\.train=…"):
        sizes(tmp_path)


def test_splits_in_class_folders(tmp_path):
    fill(tmp_path, "cat", "dog", names=("train", "Testing"), count=3)
    with pytest.warns(UserWarning, match="hold Testing, train, which are taken for splits"):
        assert sizes(tmp_path) == {"train": 6, "test": 6}
    assert folder(str(tmp_path)).class_names == ["cat", "dog"]


def test_a_class_called_train_with_folders_in_it(tmp_path):
    fill(tmp_path, "train")
    fill(tmp_path, "", names=("bus", "car"))
    choice = r"beside it bus, car: if train is a split, data\.train=train .* if all are classes, data\.splits=false"
    with pytest.raises(UserError, match=choice):
        sizes(tmp_path)
    assert folder(str(tmp_path), splits=False).class_names == ["bus", "car", "train"]
    assert folder(str(tmp_path), train="train").class_names == ["cat", "dog"]


def test_one_class_in_two_forms_of_unicode(tmp_path):
    composed, decomposed = (unicodedata.normalize(form, "café") for form in ("NFC", "NFD"))
    fill(tmp_path, "train", names=(composed, "tea"))
    fill(tmp_path, "test", names=(decomposed, "tea"))
    source = folder(str(tmp_path))
    assert source.class_names == [composed, "tea"] and source.tests["test"].labels == [0, 0, 1, 1]
    fill(tmp_path, "train", names=(decomposed,))
    assert folder(str(tmp_path)).train.labels.count(0) == 4
