"""The digits, the drawn tasks, and folders of images as people keep them."""

import ast
import os
import pickle
import subprocess
import sys
import threading
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from clipadapt.data.few_shot import make_task
from clipadapt.data.images import fingerprints
from clipadapt.data.sources import digits, drawing_code_hash, drawn, folder, unlabelled
from clipadapt.data.tasks import UNLABELLED
from clipadapt.errors import UserError


def fill(root, *folders, count=3, extension="jpg"):
    """Make folders of small images; each image's red tells its number."""
    for name in folders:
        (root / name).mkdir(parents=True)
        for number in range(count):
            Image.new("RGB", (4, 4), (10 * number, 0, 0)).save(root / name / f"img{number}.{extension}")
    return root


def read(root):
    return folder(str(root))


def test_importing_the_sources_is_light():
    script = (
        "import sys; from clipadapt.data import hub, shards, sources, tables, vision; "
        "heavy = ('sklearn', 'matplotlib', 'scipy', 'torch', 'torchvision', 'pyarrow', 'datasets'); "
        "print([name for name in heavy if name in sys.modules])"
    )
    shown = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "[]"


def test_digits():
    from sklearn.datasets import load_digits

    source, data = digits(), load_digits()
    assert (len(source.train), source.validation, len(source.tests["test"])) == (1000, None, 797)
    assert source.train.labels + source.tests["test"].labels == data.target.tolist()
    assert source.class_names[0] == "zero" and source.class_names[9] == "nine"
    assert source.templates == ["a photo of the digit {}."]
    image, label = source.tests["test"][5]
    assert (image.mode, image.size, label) == ("RGB", (8, 8), data.target[1005])
    np.testing.assert_allclose(np.asarray(image)[..., 1], data.images[1005] * 255 / 16, atol=0.5)
    assert max(np.asarray(image).max() for image in source.train.images) == 255


def test_digits_test_set_is_the_same_for_all_shots_and_seeds():
    first, second = make_task(digits(), 1, 1), make_task(digits(), 16, 3)
    assert first.tests["test"].labels == second.tests["test"].labels
    assert max(second.support_indices + second.validation_indices) < 1000


def test_templates_can_be_replaced(tmp_path):
    root = fill(tmp_path, "cat", "dog")
    for source in (digits(["{}!"]), drawn(templates=["{}!"]), folder(str(root), ["{}!"])):
        assert source.templates == ["{}!"]
    with pytest.raises(UserError, match=r"has no \{\} for the class name"):
        digits(["a digit"])


@pytest.mark.parametrize("name", ["shapes", "pairs", "glyphs"])
def test_drawn(name):
    from clipadapt.data.drawn import STYLES, TASKS, draw_labelled

    source = drawn(name, test_images=130)
    assert source.name == f"drawn-{name}"
    assert list(source.tests) == ["test", *(style for style in STYLES if style != "flat")]
    assert source.class_names == TASKS[name].class_names
    for split, part, style in (
        (source.train, "train", None),
        (source.validation, "val", None),
        (source.tests["test"], "test", None),
        (source.tests["noisy"], "test", "noisy"),
    ):
        image, label = split[7]
        pixels, expected = draw_labelled(name, part, 7, style=style, size=32)
        assert label == expected and split.labels[7] == expected
        assert np.array_equal(np.asarray(image), pixels)
    task = make_task(source, 16, 1)
    assert len(task.support) == 16 * len(source.class_names)


def test_drawn_images_have_the_size_asked_for_and_travel_between_processes():
    source = drawn(size=48)
    again = pickle.loads(pickle.dumps(source.train))
    assert source.train.images[3].size == (48, 48)
    assert again.images[3].tobytes() == source.train.images[3].tobytes()


def test_code_is_parsed_in_one_thread_only(monkeypatch):
    parse, threads = ast.parse, []
    monkeypatch.setattr(ast, "parse", lambda *given: threads.append(threading.current_thread()) or parse(*given))
    drawing_code_hash.cache_clear()
    fingerprints(drawn(test_images=12).tests["test"].images)
    assert {*threads} == {threading.main_thread()}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "shape"}, "no drawn task 'shape': did you mean 'shapes'"),
        ({"size": 7}, "size of the drawn task 'shapes' must be at least 8, and 7 is not"),
        ({"train_per_class": 0}, "train_per_class .* must be at least 1"),
        ({"validation_per_class": 0}, "validation_per_class .* must be at least 1"),
        ({"name": "pairs", "test_images": 100}, "test_images .* must be at least 120"),
    ],
)
def test_drawn_refuses(options, message):
    with pytest.raises(UserError, match=message):
        drawn(**options)


def test_folder_of_classes(tmp_path):
    source = read(fill(tmp_path / "my_pets", "dog", "cat", "sea_lion", count=12))
    assert source.name == "my_pets"
    assert source.class_names == ["cat", "dog", "sea_lion"]
    assert source.templates == ["a photo of a {}."]
    assert source.validation is None and source.tests == {}
    assert source.train.labels == [0] * 12 + [1] * 12 + [2] * 12
    assert [Path(path).name for path in source.train.images.items[:12]] == [f"img{number}.jpg" for number in range(12)]
    task = make_task(source, shots=4, seed=1)
    assert len(task.tests["test"]) == 36 - 12 - 12


def test_natural_order_of_classes_and_files(tmp_path):
    root = fill(tmp_path, "class 10", "class 2", "Class 1", count=11)
    (root / "class 2" / "nested").mkdir()
    Image.new("RGB", (4, 4)).save(root / "class 2" / "nested" / "a.png")
    source = read(root)
    assert source.class_names == ["Class 1", "class 2", "class 10"]
    assert [Path(path).name for path in source.train.images.items[9:11]] == ["img9.jpg", "img10.jpg"]
    assert source.train.labels.count(1) == 12


@pytest.mark.parametrize("validation", ["val", "valid", "validation", "Val"])
def test_folder_with_splits(tmp_path, validation):
    root = fill(tmp_path, "train/cat", "train/dog", "test/cat", "test/dog", count=6)
    fill(root, f"{validation}/cat", f"{validation}/dog", count=2)
    source = read(root)
    assert (len(source.train), len(source.validation), len(source.tests["test"])) == (12, 4, 12)
    assert source.tests["test"].labels == [0] * 6 + [1] * 6
    assert Path(source.tests["test"].images.items[0]).parent.parent.name == "test"
    assert len(make_task(source, 6, 1).validation) == 4


def test_classes_that_are_the_same_words_to_clip(tmp_path):
    root = fill(tmp_path, "Circle", "circle", "square")
    with pytest.warns(UserWarning, match="the classes 'Circle', 'circle' are the same words to CLIP: name them apart"):
        read(root)


def test_folder_with_train_alone(tmp_path):
    source = read(fill(tmp_path, "train/cat", "train/dog", count=9))
    assert source.class_names == ["cat", "dog"] and source.tests == {} and source.validation is None


def test_a_class_may_be_called_train(tmp_path):
    assert read(fill(tmp_path, "train", "bus", "car")).class_names == ["bus", "car", "train"]


def test_only_visible_image_files_are_read(tmp_path):
    root = fill(tmp_path, "cat", "dog", count=2)
    fill(root, ".cache", "cat/.thumbs")
    for name in ("notes.txt", ".hidden.jpg", "Thumbs.db"):
        (root / "cat" / name).write_text("")
    (root / "readme.md").write_text("")
    source = read(root)
    assert source.class_names == ["cat", "dog"] and len(source.train) == 4


def test_what_an_unpacked_archive_has_of_another_system_is_not_read(tmp_path):
    root = fill(tmp_path, "cat", "dog", "__MACOSX", "__MACOSX/cat", "dog/__MACOSX", count=2)
    (root / "cat" / "._img0.jpg").write_text("")
    source = read(root)
    assert source.class_names == ["cat", "dog"] and len(source.train) == 4
    assert len(unlabelled(str(root), ["cat", "dog"]).train) == 4


@pytest.mark.parametrize("extension", ["JPG", "jpeg", "PNG", "bmp", "gif", "webp", "tif", "Tiff"])
def test_extensions(tmp_path, extension):
    assert len(read(fill(tmp_path, "cat", "dog", extension=extension)).train) == 6


def test_folder_that_is_missing(tmp_path):
    with pytest.raises(UserError, match=r"there is no image folder '.*nowhere'"):
        read(tmp_path / "nowhere")


def test_folder_that_is_a_file(tmp_path):
    (tmp_path / "a.jpg").write_text("")
    with pytest.raises(UserError, match=r"a\.jpg' is a file"):
        read(tmp_path / "a.jpg")


def test_folder_that_is_empty(tmp_path):
    with pytest.raises(UserError, match="is empty: put the images of each class in a folder of its name"):
        read(tmp_path)


def test_folder_without_class_folders(tmp_path):
    with pytest.raises(UserError, match="holds images but no class folders"):
        read(fill(tmp_path, "cat") / "cat")


def test_folder_of_one_class(tmp_path):
    with pytest.raises(UserError, match="has one class, cat; a task needs at least two"):
        make_task(read(fill(tmp_path, "cat")), 1, 1)


@pytest.mark.parametrize("place", ["", "train", "test", "val"])
def test_class_folder_without_images(tmp_path, place):
    if place:
        fill(tmp_path, "train/cat", "train/dog", "train/bird")
    root = fill(tmp_path, *(() if place == "train" else [f"{place}/cat".strip("/"), f"{place}/dog".strip("/")]))
    (root / place / "owl").mkdir()
    (root / place / "owl" / "notes.txt").write_text("")
    with pytest.raises(UserError, match=r"these class folders have no images: owl \(read are bmp, "):
        read(root)


def test_empty_test_folder(tmp_path):
    root = fill(tmp_path, "train/cat", "train/dog")
    (root / "test").mkdir()
    with pytest.raises(UserError, match=r"test' is empty"):
        read(root)


@pytest.mark.parametrize("split", ["test", "val"])
def test_classes_that_train_lacks(tmp_path, split):
    root = fill(tmp_path, "train/cat", "train/dog", f"{split}/cat", f"{split}/dog", f"{split}/Dogs")
    with pytest.raises(UserError, match=f"{split}' has classes that the train folder lacks: Dogs: did you mean 'dog'"):
        read(root)


def test_classes_that_test_lacks_are_told_when_the_task_is_made(tmp_path):
    source = read(fill(tmp_path, "train/cat", "train/dog", "train/owl", "test/cat", "test/dog"))
    with pytest.warns(UserWarning, match="no images in 'test' of owl"):
        make_task(source, 1, 1)


def test_test_folder_without_train(tmp_path):
    source = read(fill(tmp_path, "test/cat", "test/dog"))
    assert source.class_names == ["cat", "dog"] and not len(source.train) and len(source.tests["test"]) == 6
    with pytest.raises(UserError, match="has the folder val but no train folder beside it"):
        read(fill(tmp_path / "other", "val/cat", "val/dog"))


def test_trainval_is_named_where_there_is_no_train_folder(tmp_path):
    root = fill(tmp_path, "trainval/cat", "trainval/dog", "test/cat", "test/dog")
    with pytest.raises(UserError, match=r"has the folder test but no train folder beside it, only trainval: say"):
        read(root)


def test_eval_is_said_without_an_article(tmp_path):
    with pytest.raises(UserError, match="has the folder eval with folders in it, and beside it cat, dog: if eval is a"):
        read(fill(tmp_path, "cat", "dog", "eval/cat", "eval/dog"))


def test_test_folder_beside_classes(tmp_path):
    with pytest.raises(
        UserError, match=r"and beside it cat, dog: if test is a split, data\.test=test takes it for one"
    ):
        read(fill(tmp_path, "cat", "dog", "test/cat", "test/dog"))


def test_two_folders_for_one_split(tmp_path):
    with pytest.raises(UserError, match="two folders for one split: val and validation"):
        read(fill(tmp_path, "train/cat", "train/dog", "val/cat", "validation/cat"))


def test_image_folders_beside_train_are_told(tmp_path):
    root = fill(tmp_path, "train/cat", "train/dog", "extra/cat", "extra/dog")
    with pytest.warns(UserWarning, match="has the folder train, so its extra is not read"):
        read(root)


def test_other_folders_beside_train_are_not(tmp_path):
    root = fill(tmp_path, "train/cat", "train/dog")
    (root / "annotations").mkdir()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        read(root)


def test_folder_that_may_not_be_read(tmp_path, monkeypatch):
    root = fill(tmp_path, "cat", "dog")

    def refuse(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("os.scandir", refuse)
    with pytest.raises(UserError, match="may not be read by this user"):
        read(root)


def test_links_are_followed_once(tmp_path):
    root = fill(tmp_path, "pets/cat", "pets/dog", "elsewhere/more")
    (root / "pets" / "cat" / "again").symlink_to(root / "pets" / "cat")
    (root / "pets" / "cat" / "further").symlink_to(root / "elsewhere")
    assert read(root / "pets").train.labels == [0] * 6 + [1] * 3


def test_a_folder_below_that_may_not_be_read(tmp_path, monkeypatch):
    root, scandir = fill(tmp_path, "cat/white", "dog"), os.scandir

    def refuse(path):
        if str(path).endswith("white"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr("os.scandir", refuse)
    with pytest.raises(UserError, match="white' may not be read by this user"):
        read(root)


def test_folder_with_all_images_taken(tmp_path):
    with pytest.warns(UserWarning, match="no test images: up to 4 images a class are all its 8"):
        make_task(read(fill(tmp_path, "cat", "dog", count=4)), 4, 1)


def test_folder_home_is_understood(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(fill(tmp_path, "pets/cat", "pets/dog")))
    assert read("~/pets").class_names == ["cat", "dog"]


@pytest.mark.parametrize("folders", [["."], ["summer/beach", "winter"], ["train/cat", "val/dog"]])
def test_images_without_labels(tmp_path, folders):
    for name in folders:
        fill(tmp_path / "photos", name) if name != "." else fill(tmp_path, "photos")
    source = unlabelled(str(tmp_path / "photos"), ["cat", "dog"])
    assert (source.name, source.class_names, source.templates) == ("photos", ["cat", "dog"], ["a photo of a {}."])
    assert source.train.labels == [UNLABELLED] * 3 * len(folders) and not source.train.labelled
    assert source.validation is None and source.tests == {}
    task = make_task(source, shots=2, seed=1)
    assert (len(task.support), len(task.validation), task.tests) == (0, 0, {})
    assert len(task.pool) == len(source.train) and not task.labelled


def test_images_without_labels_and_a_test_folder(tmp_path):
    source = unlabelled(str(fill(tmp_path, "more", "Test/dog", "Test/cat")), ["cat", "dog"])
    assert len(source.train) == 3
    assert source.tests["test"].labels == [0] * 3 + [1] * 3
    with pytest.warns(UserWarning, match="no images in 'test' of owl"):
        assert len(make_task(unlabelled(str(tmp_path), ["cat", "owl", "dog"]), 2, 1).tests["test"]) == 6


def test_images_without_labels_that_are_no_task(tmp_path):
    root = fill(tmp_path, "test/cat", "test/dog")
    with pytest.raises(UserError, match=r"has no images to learn from \(read are bmp, "):
        unlabelled(str(root), ["cat", "dog"])
    fill(tmp_path, "more")
    with pytest.raises(UserError, match=r"test' has classes that data\.class_names lacks: dog: did you mean 'dogs'"):
        unlabelled(str(root), ["cat", "dogs"])
    with pytest.raises(UserError, match="has one class, cat; a task needs at least two"):
        make_task(unlabelled(str(root / "more"), ["cat"]), 1, 1)
    with pytest.raises(UserError, match="there is no image folder"):
        unlabelled(str(root / "nowhere"), ["cat", "dog"])
