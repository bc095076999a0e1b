"""`clipadapt data audit`: labels that are probably wrong are found, and what can't be checked is said."""

import csv
import shutil
import sys
from importlib.util import find_spec

import numpy as np
import pytest
import torch

from clipadapt import config
from clipadapt.cli import main
from clipadapt.data.tasks import Source, Split
from clipadapt.errors import DataError
from clipadapt.runs.audit import check_classes, labelled_splits, out_of_sample
from tests.broken import cut

needs_cleanlab = pytest.mark.skipif(find_spec("cleanlab") is None, reason="needs cleanlab: pip install -e '.[audit]'")
PLANTED = {"circle/0.png": "star", "star/3.png": "heart", "ring/1.png": "square"}
"""Images to where they are put."""


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """60 drawn images in class folders."""
    source = config.build_source(config.compose(["data=drawn", "data.train_per_class=5"]))
    folder = tmp_path_factory.mktemp("drawn")
    numbers = dict.fromkeys(source.class_names, 0)
    for image, label in source.train:
        name = source.class_names[label]
        (folder / name).mkdir(exist_ok=True)
        image.save(folder / name / f"{numbers[name]}.png")
        numbers[name] += 1
    assert sum(numbers.values()) == 60
    return folder


@needs_cleanlab
def test_planted_labels_are_found(drawn, tmp_path, capsys):
    folder = shutil.copytree(drawn, tmp_path / "shapes")
    wrong = {str(folder / there / f"planted_{one.replace('/', '_')}"): there for one, there in PLANTED.items()}
    for one, path in zip(PLANTED, wrong, strict=True):
        (folder / one).rename(path)
    (folder / "alone").mkdir()
    shutil.copy(folder / "circle" / "1.png", folder / "alone" / "1.png")
    cut(folder / "star" / "broken.png")
    words = ["data", "audit", "folder", f"data.root={folder}", f"output={tmp_path / 'out'}"]
    assert main(words) == 0
    said = capsys.readouterr().out
    place = tmp_path / "out" / "audit" / "shapes"
    rows = list(csv.DictReader((place / "audit.csv").read_text().splitlines()))
    assert {row["image"]: row["label"] for row in rows if row["image"] in wrong} == wrong
    assert len(rows) <= 6, "others aren't suspect, but for a few"
    found = {row["image"]: row["likelier"] for row in rows}
    assert [found[path] for path in wrong] == ["circle", "star", "ring"]
    assert "one image: alone" in said and "(clipadapt data verify lists them): 1 image\n" in said
    assert (place / "audit.html").read_text().count('class="card"') == len(rows)


def test_without_cleanlab_the_extra_is_named(drawn, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "cleanlab", None)
    assert main(["data", "audit", f"data.root={drawn}", "data=folder"]) == 2
    assert "needs the library cleanlab: pip install 'clipadapt[audit]'" in capsys.readouterr().err


def test_probabilities_are_of_probes_that_did_not_see_the_image():
    features = torch.nn.functional.normalize(torch.randn(40, 64, generator=torch.Generator().manual_seed(0)), dim=-1)
    labels = np.arange(40) % 2
    found = out_of_sample(features.numpy(), labels)
    right = (found.argmax(axis=1) == labels).mean()
    assert found.shape == (40, 2) and right < 0.75, "random labels can be learned by heart, but not foretold"
    assert out_of_sample(features[:5].numpy(), np.array([0, 0, 0, 1, 1])).shape == (5, 2)


def test_classes_of_one_image_are_left_out():
    kept, notes = check_classes(np.array([0, 0, 1, 2, 2]), ["cat", "dog", "owl"])
    assert kept.tolist() == [0, 1, 3, 4] and notes == ["Not checked, as they have one image: dog"]
    with pytest.raises(DataError, match="it takes two classes with at least two images each"):
        check_classes(np.array([0, 0, 1]), ["cat", "dog"])


def test_splits_with_other_classes_are_left_out():
    images = [None, None]
    tests = {"test": Split(images, [0, 1]), "other": Split(images, [0, 1], ["owl", "bat"])}
    source = Source("pets", ["cat", "dog"], ["{}"], Split(images, [0, 1]), None, tests)
    present, notes = labelled_splits(source)
    assert [*present] == ["train", "test"] and notes == ["Not checked, as they have classes of their own: other"]
    captions = Source("pets", ["cat", "dog"], ["{}"], Split(images, ["a cat", "a dog"]), None, {})
    with pytest.raises(DataError, match="labels of 'pets' are no classes"):
        labelled_splits(captions)
