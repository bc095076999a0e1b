"""Images that can't be read are told before a run starts, or left out and counted."""

import warnings

import pytest
from PIL import Image

from clipadapt.cli import main
from clipadapt.data.broken import check, count_used_images, find_broken, without_broken
from clipadapt.data.few_shot import make_task
from clipadapt.data.images import LazyImages, open_image, verify_image
from clipadapt.data.sources import folder, unlabelled
from clipadapt.data.tasks import UNLABELLED, Source, Split
from clipadapt.errors import DataError, UserError
from tests.broken import BROKEN, break_in, cut, noise


def pets(root, train=3, test=4):
    """Cats and dogs, and a test set of them."""
    for name in ("cat", "dog"):
        for split, count in (("train", train), ("test", test)):
            for number in range(count):
                noise(root / split / name / f"{number}.png")
    return root


def task_of(root, shots=8):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return make_task(folder(str(root)), shots, 1)


def complaint(task, **options):
    with pytest.raises(UserError) as caught:
        check(task, **options)
    return str(caught.value).splitlines()


def test_faults_are_all_told_and_sound_files_are_not(tmp_path):
    paths = [str(noise(tmp_path / f"{number}.jpg")) for number in range(70)]
    cut(tmp_path / "1.jpg")
    (tmp_path / "66.jpg").write_text("no image")
    pictures, seen = LazyImages(paths, open_image, verify_image), []
    for decode in (True, False):
        found = find_broken(pictures, decode, seen.append)
        assert [*found] == [1, 66] and "/1.jpg" in found[1] and "/66.jpg" in found[66]
        assert sum(seen) == 70 and seen.clear() is None
    assert find_broken(pictures[5:60], decode=True) == {}


def test_what_cannot_be_verified_is_only_decoded():
    def load(item):
        raise DataError(f"{item} is broken")

    assert find_broken(LazyImages([1, 2], load), decode=False) == {}
    assert find_broken(LazyImages([1, 2], load), decode=True) == {0: "1 is broken", 1: "2 is broken"}
    assert find_broken([Image.new("RGB", (1, 1))], decode=True) == {}


def test_all_broken_files_are_told_at_once(tmp_path):
    broken = break_in(pets(tmp_path) / "test" / "cat")
    task = task_of(tmp_path)
    first, *lines = complaint(task)
    assert first.startswith(f"{len(BROKEN)} images can't be used: mend or remove them, or leave them out")
    assert len(lines) == len(broken)
    assert all(any(f"'{path}'" in line for line in lines) for path in broken)


@pytest.mark.parametrize(
    ("side", "reason"), [(9_459, "image file is truncated"), (9_460, "it claims 89,491,600 pixels, and more than")]
)
def test_a_cut_image_of_89_million_pixels_is_told_before_the_fit(tmp_path, capsys, side, reason):
    train, tested = (pets(tmp_path / "pets") / split / "cat" / "large.png" for split in ("train", "test"))
    Image.new("1", (side, side)).save(train)  # once below the number of pixels that are decoded, once above it
    train.write_bytes(train.read_bytes()[: train.stat().st_size // 2])
    tested.write_bytes(train.read_bytes())
    words = ["data=folder", f"data.root={tmp_path / 'pets'}", f"output={tmp_path / 'out'}", "engine.cpu=true"]
    assert main(["method=zero_shot", "shots=8", *words]) == 2
    _, first, *lines = capsys.readouterr().err.splitlines()  # a note comes first: there are fewer than 8
    assert first.startswith("clipadapt: 2 images can't be used") and len(lines) == 2
    assert all(f"'{path}' can't be read: {reason}" in line for path, line in zip((train, tested), lines, strict=True))
    assert not (tmp_path / "out").exists()


def test_support_and_validation_are_decoded_and_the_others_are_not(tmp_path):
    task = task_of(pets(tmp_path, train=6), shots=2)
    support, validation = (split.images.items[0] for split in (task.support, task.validation))
    tested = task.tests["test"].images.items[0]
    for path in (support, validation, tested):
        noise_inside(path)
    first, *lines = complaint(task)
    assert first.startswith("2 images") and support in lines[0] and validation in lines[1]


def noise_inside(path):
    """Change the middle of an image file, so that only decoding finds it."""
    with open(path, "r+b") as file:
        file.seek(600)
        file.write(bytes(400))


def test_a_long_list_ends_with_how_many_more_there_are(tmp_path):
    pets(tmp_path, test=40)
    for path in (tmp_path / "test").rglob("*.png"):
        path.write_text("no image")
    first, *lines, last = complaint(task_of(tmp_path))
    assert first.startswith("80 images") and len(lines) == 50
    assert last == "  and 30 more; clipadapt data verify with the same data lists all"


def test_an_image_in_two_splits_is_told_once(tmp_path):
    cut(tmp_path / "a.png")
    split = Split(LazyImages([str(tmp_path / "a.png")] * 2, open_image, verify_image), [0, 1])
    task = make_task(Source("pets", ["cat", "dog"], ["{}"], split, None, {"test": split}), 1, 1)
    first, *lines = complaint(task)
    assert first.startswith("an image can't be used") and len(lines) == 1


def test_unlabelled_images_are_looked_at(tmp_path):
    noise(tmp_path / "0.png")
    (tmp_path / "a.png").write_text("no image")
    task = make_task(unlabelled(str(tmp_path), ["cat", "dog"]), 1, 1)
    assert "a.png' can't be read" in complaint(task)[1]
    with pytest.warns(UserWarning, match="1 of 2 images is broken, and left out of 'pool'"):
        sound = without_broken(task)
    assert (sound.pool.labels, sound.pool_indices, len(sound.pool)) == ([UNLABELLED], [0], 1)
    (tmp_path / "0.png").unlink()
    with pytest.raises(UserError, match="all images in 'pool' are broken"):
        without_broken(task)


def test_a_labelled_pool_is_looked_at_where_it_is_used(tmp_path):
    task = task_of(pets(tmp_path, train=9), shots=1)
    taken = {*task.support_indices, *task.validation_indices}
    index = next(number for number in range(18) if number not in taken)
    cut(tmp_path / "train" / ("cat" if index < 9 else "dog") / f"{index % 9}.png")
    check(task)
    assert len(complaint(task, pool=True)) == 2
    assert count_used_images(task) == 2 + 2 + 8 and count_used_images(task, pool=True) == 2 + 2 + 8 + 18
    assert without_broken(task) == task
    with pytest.warns(UserWarning, match="1 of 18 images is broken, and left out of 'pool'"):
        assert without_broken(task, pool=True).pool_indices == [number for number in range(18) if number != index]


def test_broken_images_are_left_out_and_counted(tmp_path):
    clean = task_of(pets(tmp_path / "clean"))
    broken = {split: break_in(pets(tmp_path / "mixed") / split / "cat") for split in ("train", "test")}
    with pytest.warns(UserWarning) as caught:
        task = without_broken(task_of(tmp_path / "mixed", shots=20))
    count = len(BROKEN)
    assert [str(warning.message) for warning in caught if "left out" in str(warning.message)] == [
        f"mixed: {count} of {6 + count} images are broken, and left out of 'support'",
        f"mixed: {count} of {8 + count} images are broken, and left out of 'test'",
    ]
    for name, split, expected in (("train", "support", clean.support), ("test", "test", clean.tests["test"])):
        found = task.support if split == "support" else task.tests["test"]
        assert found.labels == expected.labels
        assert [path.replace("mixed", "clean") for path in found.images.items] == [*expected.images.items]
        assert all(any(str(path) in text for text in task.left_out[split]) for path in broken[name])
        assert len(task.left_out[split]) == count
    check(task)
    pool = folder(str(tmp_path / "mixed")).train.images.items
    assert [pool[index] for index in task.support_indices] == [*task.support.images.items]


def test_nothing_broken_brings_no_warning(tmp_path):
    task = task_of(pets(tmp_path))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert without_broken(task) == task


def test_spares_take_the_place_of_broken_images(tmp_path):
    task = task_of(pets(tmp_path, train=9), shots=3)
    cut(tmp_path / "train" / "cat" / f"{task.support_indices[1]}.png")
    cut(tmp_path / "train" / "cat" / f"{task.validation_indices[0]}.png")
    again = task_of(tmp_path, shots=3)
    assert again.support_indices == task.support_indices
    with pytest.warns(UserWarning, match="1 of 6 images is broken, and left out of 'support'; 1 others of their"):
        found = without_broken(again)
    assert without_broken(again).support_indices == found.support_indices
    changed = [place for place in range(6) if found.support_indices[place] != task.support_indices[place]]
    assert changed == [1] and found.support.labels == task.support.labels
    assert len({*found.support_indices, *found.validation_indices}) == 12
    pool = folder(str(tmp_path)).train.images.items
    assert [pool[index] for index in found.support_indices] == [*found.support.images.items]
    assert [pool[index] for index in found.validation_indices] == [*found.validation.images.items]
    check(found)


def test_spares_of_a_test_set_that_is_what_is_left_leave_it(tmp_path):
    root = pets(tmp_path, train=9) / "train"
    task = task_of(root, shots=3)
    cut(root / "cat" / f"{task.support_indices[0]}.png")
    with pytest.warns(UserWarning, match="1 of 6 images"):
        found = without_broken(task_of(root, shots=3))
    assert len(found.support) == 6 and len(task.tests["test"]) - len(found.tests["test"]) == 1
    assert not {*found.support.images.items} & {*found.tests["test"].images.items}


@pytest.mark.parametrize(("split", "name"), [("train", "support"), ("test", "test")])
def test_a_class_that_would_be_left_empty(tmp_path, split, name):
    pets(tmp_path)
    for path in (tmp_path / split / "dog").iterdir():
        path.write_text("no image")
    with pytest.raises(UserError, match=rf"all images in '{name}' of dog are broken: mend or replace them"):
        without_broken(task_of(tmp_path))


def test_a_validation_split_may_be_left_empty(tmp_path):
    task = task_of(pets(tmp_path, train=4), shots=2)
    for path in task.validation.images.items:
        open(path, "w").close()
    with pytest.warns(UserWarning, match="4 of 4 images are broken, and left out of 'validation'"):
        assert without_broken(task).validation_indices == []


def test_the_halves_of_base_to_new_have_their_own_classes(tmp_path):
    for name in ("cat", "dog", "owl", "fox"):
        for part in ("train", "test"):
            noise(tmp_path / part / name / "0.png")
    (tmp_path / "test" / "owl" / "0.png").write_text("no image")
    with pytest.raises(UserError, match="all images in 'new' of owl are broken"):
        without_broken(make_task(folder(str(tmp_path)), 1, 1, classes="base"))
