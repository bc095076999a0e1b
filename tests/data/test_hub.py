"""Data sets in the hub's formats, from folders on this disk: nothing is fetched."""

import pickle
import subprocess
import sys
import time

import pytest
from PIL import Image

import clipadapt
from clipadapt.data.broken import check
from clipadapt.data.few_shot import make_task
from clipadapt.data.hub import huggingface
from clipadapt.errors import UserError

datasets = pytest.importorskip("datasets")


@pytest.fixture(autouse=True)
def offline(monkeypatch, tmp_path):
    """No network, no progress bars, and a cache of the test's own."""
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "hub")
    datasets.disable_progress_bars()


def colours(reds):
    return [Image.new("RGB", (4, 4), (red, 0, 0)) for red in reds]


def table(labels, first=0, names=("polar_bear", "owl"), **columns):
    """A split whose images' red counts from `first`."""
    label = datasets.ClassLabel(names=[*names]) if names else datasets.Value("string")
    features = datasets.Features({"image": datasets.Image(), "label": label})
    data = {"image": colours(range(first, first + len(labels))), "label": labels}
    made = datasets.Dataset.from_dict(data, features)
    for name, values in columns.items():
        made = made.add_column(name, values)
    return made


def write(folder, **splits):
    """Splits as a repository of Parquet files has them."""
    (folder / "data").mkdir(parents=True, exist_ok=True)
    for name, split in splits.items():
        split.to_parquet(folder / "data" / f"{name}-00000-of-00001.parquet")
    return str(folder)


def reds(split):
    return [image.getpixel((0, 0))[0] for image in split.images]


def test_splits_columns_and_classes_are_found(tmp_path):
    root = write(tmp_path / "bears", train=table([0, 1, 0, 1]), validation=table([1], 50), test=table([1, 0], 90))
    source = huggingface(root)
    assert (source.name, source.class_names) == ("bears", ["polar bear", "owl"])
    assert source.train.labels == [0, 1, 0, 1] and reds(source.train) == [0, 1, 2, 3]
    assert source.validation.labels == [1] and source.tests["test"].labels == [1, 0]
    assert reds(source.tests["test"]) == [90, 91] and source.templates == ["a photo of a {}."]


def test_one_split_is_the_pool(tmp_path):
    source = huggingface(write(tmp_path, test=table([0, 1] * 8)), templates=["{}!"], class_names=["bear", "bird"])
    assert len(source.train) == 16 and source.validation is None and source.tests == {}
    assert source.class_names == ["bear", "bird"] and source.templates == ["{}!"]
    task = make_task(source, shots=2, seed=1)
    check(task)
    assert [image.getpixel((0, 0))[0] for image in task.support.images] == task.support_indices


def test_splits_by_name(tmp_path):
    root = write(tmp_path, train=table([0, 1]), validation=table([1, 0, 1], 50))
    source = huggingface(root, test="validation")
    assert source.validation is None and len(source.tests["test"]) == 3
    assert len(huggingface(root, train="validation", validation="train").train) == 3


def test_columns_by_name(tmp_path):
    data = table([0, 1], fine=["x", "y"]).rename_column("label", "coarse").rename_column("image", "picture")
    root = write(tmp_path, train=data)
    assert huggingface(root).class_names == ["polar bear", "owl"]
    source = huggingface(root, label="fine", image="picture")
    assert source.class_names == ["x", "y"] and source.train.labels == [0, 1]


@pytest.mark.parametrize("kind", ["string", "int64"])
def test_labels_without_names(tmp_path, kind):
    data = table(["0", "1", "0"], names=None).cast_column("label", datasets.Value(kind))
    root = write(tmp_path, train=data)
    assert huggingface(root, class_names=["cat", "dog"]).train.labels == [0, 1, 0]
    with pytest.raises(UserError, match="are numbers: say what they stand for"):
        huggingface(root)


def test_secret_test_labels(tmp_path):
    root = write(tmp_path, train=table([0, 1] * 5), validation=table([0, 1], 50), test=table([-1, -1], 90))
    source = huggingface(root)
    assert source.tests == {} and source.validation.labels == [0, 1]
    for options in ({"test": "test"}, {"train": "test"}):
        with pytest.raises(UserError, match="has images without label in its split 'test'"):
            huggingface(root, **options)


def test_a_folder_that_was_saved(tmp_path):
    datasets.DatasetDict(train=table([0, 1]), test=table([1], 9)).save_to_disk(tmp_path / "both")
    table([0, 1, 1]).save_to_disk(tmp_path / "one")
    assert reds(huggingface(str(tmp_path / "both")).tests["test"]) == [9]
    assert huggingface(str(tmp_path / "one")).train.labels == [0, 1, 1]
    with pytest.raises(UserError, match=r"so there is nothing to stream: leave out data\.streaming"):
        huggingface(str(tmp_path / "one"), streaming=1)


def test_a_folder_of_image_files_fetched_or_streamed(tmp_path):
    root = tmp_path / "animals"
    for number, name in enumerate(("train/cat/a", "train/dog/b", "test/cat/c", "test/dog/d")):
        (root / name).parent.mkdir(parents=True)
        Image.new("RGB", (4, 4), (number, 0, 0)).save(root / f"{name}.png")
    for streaming in (None, 1):
        source = huggingface(str(root), streaming=streaming)
        assert source.class_names == ["cat", "dog"] and reds(source.train) == [0, 1]
        content = source.tests["test"].images.content
        assert content(0) == (root / "test" / "cat" / "c.png").read_bytes()


def test_images_travel_between_processes_without_their_bytes(tmp_path):
    big = [Image.effect_noise((200, 200), 50).convert("RGB") for _ in range(20)]
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["a", "b"])})
    root = write(tmp_path, train=datasets.Dataset.from_dict({"image": big, "label": [0, 1] * 10}, features))
    images = huggingface(root).train.images
    pickled = pickle.dumps(images)
    assert len(pickled) < 20_000 < len(images.content(0))
    assert pickle.loads(pickled)[3].tobytes() == big[3].tobytes()


def test_damaged_images_are_named(tmp_path):
    data = datasets.Dataset.from_dict({"image": [{"bytes": b"none", "path": None}] * 8, "label": ["a", "b"] * 4})
    source = huggingface(write(tmp_path, train=data), image="image")
    with pytest.raises(UserError, match="image-0' can't be read: it is not an image"):
        source.train.images[0]
    with pytest.raises(UserError, match="image-1' can't be read"):
        check(make_task(source, shots=1, seed=1))


def test_the_first_images_of_each_class_are_streamed_once(tmp_path, monkeypatch):
    root = write(tmp_path / "data", train=table([0, 0, 0, 1, 0, 1, 1]), test=table([1, 0, 1], 50))
    source = huggingface(root, streaming=2)
    assert source.train.labels == [0, 0, 1, 1] and reds(source.train) == [0, 1, 3, 5]
    assert source.tests["test"].labels == [1, 0, 1]
    monkeypatch.setattr(
        "clipadapt.data.hub_rows.first_rows_per_class", lambda *given: pytest.fail("it was fetched again")
    )
    assert reds(huggingface(root, streaming=2).train) == [0, 1, 3, 5]
    with pytest.raises(pytest.fail.Exception, match="fetched again"):
        huggingface(root, streaming=1)


def test_a_stream_ends_when_all_classes_are_full():
    from clipadapt.data.hub_rows import first_rows_per_class

    rows = iter([{"label": label} for label in (0, 0, 1, 0, 1)])
    assert [row["label"] for row in first_rows_per_class(rows, "label", 2, 1)] == [0, 1]
    assert [*rows] == [{"label": 0}, {"label": 1}]
    secret = iter([{"label": -1}] * 9)
    assert len([*first_rows_per_class(secret, "label", 2, 1)]) == 1 and len([*secret]) == 8


def test_a_stream_of_unknown_classes_is_refused(tmp_path):
    root = write(tmp_path, train=table(["a", "b", "a"], names=None))
    with pytest.raises(UserError, match=r"the classes of '.*' aren't known before it is fetched: leave out data\.str"):
        huggingface(root, streaming=1)
    assert huggingface(root, streaming=1, class_names=["a", "b"]).train.labels == [0, 1]


@pytest.mark.parametrize(
    ("options", "parts"),
    [
        ({"train": "train", "test": "train"}, "train and for test"),
        ({"train": "test", "validation": "test"}, "train and for val"),
        ({"validation": "test", "test": "test"}, "val and for test"),
    ],
)
def test_a_split_taken_twice(tmp_path, options, parts):
    root = write(tmp_path, train=table([0, 1]), test=table([0, 1]))
    with pytest.raises(UserError, match=rf"the split '(train|test)' of '.*' is taken for {parts}: give each its own"):
        huggingface(root, **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"test": "tset"}, "has no split 'tset': did you mean 'test'"),
        ({"image": "imge"}, "has no column 'imge': did you mean 'image'"),
        ({"label": "lable"}, "has no column 'lable': did you mean 'label'"),
        ({"label": "boxes"}, "the column 'boxes' of '.*' has no single class for an image"),
        ({"class_names": ["x"]}, r"data\.class_names has 1 names, and '.*' 2 classes: give each one"),
        ({"subset": "other"}, "can't be loaded: .*other"),
    ],
)
def test_what_is_not_there(tmp_path, options, message):
    root = write(tmp_path, train=table([0, 1], boxes=[[1], [2]]), test=table([0, 1], boxes=[[1], [2]]))
    with pytest.raises(UserError, match=message):
        huggingface(root, **options)


def test_columns_that_cannot_be_told_apart(tmp_path):
    two = table([0, 1]).add_column("second", [0, 1]).cast_column("second", datasets.ClassLabel(names=["x", "y"]))
    root = write(tmp_path / "two", train=two.rename_column("label", "first"))
    with pytest.raises(
        UserError, match=r"several columns of type ClassLabel \(first, second\): say which .* data\.label"
    ):
        huggingface(root)
    root = write(tmp_path / "none", train=datasets.Dataset.from_dict({"text": ["a"], "label": [0]}))
    with pytest.raises(UserError, match=r"no column of type Image: say which to take with data\.image=…"):
        huggingface(root)


def test_no_split_to_learn_from(tmp_path):
    root = write(tmp_path, test=table([0, 1]), validation=table([0, 1]))
    with pytest.raises(UserError, match=r"no split called train: say which to learn from with data\.train=…"):
        huggingface(root)


def test_without_network():
    said = r"'nobody/nothing' is neither a folder nor in the cache, and the hub can't be reached \(HF_HUB_OFFLINE"
    with pytest.raises(UserError, match=said):
        huggingface("nobody/nothing")


def test_a_hub_that_does_not_answer_is_told_soon_and_once(monkeypatch, capfd):
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    began = time.monotonic()
    with pytest.raises(UserError, match=r"the hub can't be reached \(.*refused\)$"):
        huggingface("nobody/nothing")
    assert time.monotonic() - began < 10 and "Retry" not in "".join(capfd.readouterr())
    assert datasets.config.HF_HUB_OFFLINE is False


def test_what_tells_the_version_is_the_same_in_every_process(tmp_path):
    root = write(tmp_path / "data", train=table([0, 1, 0, 1]))
    call = f"huggingface({root!r}, streaming=1, cache_dir={str(tmp_path / 'kept')!r})"
    script = f"from clipadapt.data.hub import huggingface; {call}"
    for _ in range(2):
        subprocess.run([sys.executable, "-c", script], check=True, capture_output=True)
    assert len([*(tmp_path / "kept").glob("generator/*fingerprint*")]) == 1


def test_data_sets_in_memory_are_taken(tmp_path, monkeypatch):
    monkeypatch.setenv("CLIPADAPT_CACHE", str(tmp_path / "cache"))
    whole = datasets.DatasetDict(train=table([0, 1] * 3), test=table([1, 0], 90))
    task = clipadapt.load_task(whole, shots=2)
    assert task.class_names == ["polar bear", "owl"] and reds(task.tests["test"]) == [90, 91]
    assert clipadapt.load_task(whole, shots=2).fingerprint == task.fingerprint
    assert len([*(tmp_path / "cache" / "given").iterdir()]) == 1
    alone = clipadapt.load_task(table([0, 1] * 4), shots=1, templates=["{}!"])
    assert len(alone.support) == 2 and len(alone.tests["test"]) == 4 and alone.templates == ["{}!"]
    with pytest.raises(UserError, match=r"must be a Dataset or a DatasetDict .* and one is IterableDataset"):
        clipadapt.load_task(table([0, 1]).to_iterable_dataset())
