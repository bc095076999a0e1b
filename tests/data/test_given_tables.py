"""Tables of pandas and lists of pairs are taken as tables are, and saved once."""

from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

import clipadapt
from clipadapt.data.given_tables import is_data_frame, is_pairs
from clipadapt.errors import DataError, UserError


@pytest.fixture
def photos(tmp_path, monkeypatch):
    monkeypatch.setenv("CLIPADAPT_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        for index in range(3):
            Image.fromarray(noise(index, name)).save(tmp_path / name / f"{index}.png")
    return [(f"{name}/{index}.png", name) for name in ("cat", "dog") for index in range(3)]


def noise(index, name):
    return np.random.default_rng([index, ord(name[0])]).integers(0, 256, (40, 40, 3), dtype=np.uint8)


def test_paths_with_labels(photos, tmp_path):
    task = clipadapt.load_task(photos, shots=1, templates=["a {}."])
    assert task.class_names == ["cat", "dog"] and task.templates == ["a {}."] and len(task.support) == 2
    assert {*task.support.images.items} <= {str(tmp_path / path) for path, _ in photos}
    again = clipadapt.load_task(zip(*map(list, zip(*photos, strict=True)), strict=True), shots=1)
    assert again.fingerprint == task.fingerprint and len([*(tmp_path / "cache").rglob("*.csv")]) == 1


def test_images_in_memory(photos, tmp_path):
    arrays = [(noise(index, name), name) for name in ("cat", "dog") for index in range(3)]
    pictures = [(Image.fromarray(pixels), label) for pixels, label in arrays]
    tasks = [clipadapt.load_task(pairs, shots=1) for pairs in (arrays, pictures)]
    assert tasks[0].fingerprint == tasks[1].fingerprint
    assert [np.asarray(image).tolist() for image in tasks[0].support.images] == [
        noise(index % 3, ("cat", "dog")[index // 3]).tolist() for index in tasks[0].support_indices
    ]
    assert not [*tmp_path.rglob("*.part")] and tasks[0].origin["data"]["root"].startswith(str(tmp_path / "cache"))


def test_paths_beside_images_in_memory(photos, tmp_path):
    (tmp_path / "cat").rename(tmp_path / "pets")
    pairs = [("0.png", "cat"), (tmp_path / "pets" / "1.png", "cat"), (noise(0, "dog"), "dog"), (noise(1, "dog"), "dog")]
    task = clipadapt.load_task(pairs, shots=2, images="pets")
    assert sorted(np.asarray(image).sum() for image in task.support.images) == sorted(
        noise(index, name).sum() for name in ("cat", "dog") for index in range(2)
    )


def test_labels_that_are_numbers(photos):
    pairs = [(path, np.int64(label == "dog")) for path, label in photos]
    assert clipadapt.load_task(pairs, shots=1, class_names=["cat", "dog"]).class_names == ["cat", "dog"]
    with pytest.raises(DataError, match="are numbers: say what they stand for"):
        clipadapt.load_task(pairs, shots=1)


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda pairs: [*pairs, ("cat/0.png",)], "item 6 is a tuple of 1"),
        (lambda pairs: [*pairs, "cat/0.png"], "item 6 is str"),
        (lambda pairs: [*pairs, ("cat/2.png", "dog")], "gives several labels to 2.png"),
        (lambda pairs: [*pairs, ("cat/9.png", None)], "(?s)no label in row 8.*aren't there: 9.png"),
        (lambda pairs: [*pairs, (5, "cat")], "an image must be"),
        (lambda pairs: zip((), (), strict=True), "there are no images in the list"),
    ],
)
def test_faults_of_pairs(photos, change, message):
    with pytest.raises(UserError, match=message):
        clipadapt.load_task(change(photos), shots=1)


def test_what_is_no_table_and_no_list_of_pairs():
    assert not any(map(is_pairs, (["digits"], "digits", None, {"a": 1}, ())))
    assert not any(map(is_data_frame, (["digits"], "digits", SimpleNamespace(itertuples=1))))


@pytest.mark.parametrize("image", ["Path", "image"])
def test_tables_of_pandas(photos, image, tmp_path):
    pandas = pytest.importorskip("pandas", reason="needs pandas")
    table = pandas.DataFrame(photos, columns=[image, "LABEL"])
    table["Split"] = ["train", "train", "test"] * 2
    task = clipadapt.load_task(table, shots=1)
    assert task.class_names == ["cat", "dog"] and len(task.tests["test"]) == 2
    assert {*task.tests["test"].images.items} == {str(tmp_path / name / "2.png") for name in ("cat", "dog")}
    moved = clipadapt.load_task(table, shots=1, images=str(tmp_path))
    assert moved.fingerprint == task.fingerprint
    table.loc[1, "LABEL"] = None
    with pytest.raises(DataError, match="has no label in row 3"):
        clipadapt.load_task(table, shots=1)
    with pytest.raises(DataError, match="has no column 'label'"):
        clipadapt.load_task(table.drop(columns="LABEL"), shots=1)
