"""Predictors that adapt, from a run's directory on."""

import csv
import json
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import clipadapt
from clipadapt.api import evaluate
from clipadapt.cli import main
from clipadapt.engine.evaluation import shuffled
from clipadapt.errors import UserError
from clipadapt.runs.predictor import Predictor
from clipadapt.serving.server import check_predictor

VIEWS = ["method.test_time.views=6", "method.test_time.images=3"]
METHODS = {
    "tpt": [*VIEWS, "method.test_time.selection=0.5"],
    "mta": VIEWS,
    "rlcf": [
        *VIEWS,
        "method.test_time.selection=0.5",
        "method.test_time.teacher={name:tiny,pretrained:embedded}",
    ],
    "tda": [],
    "zlap": ["method.test_time.images=5"],
    "transclip_few_shot": ["method.adaptation.search=false", "method.test_time.gammas=[0.1]"],
    "onzeta": [],
}


@pytest.fixture(scope="module")
def backbone():
    return clipadapt.load_backbone("tiny")


@pytest.fixture(scope="module")
def task(tmp_path_factory):
    root, random = tmp_path_factory.mktemp("images"), np.random.default_rng(0)
    for place, count in (("train", 1), ("test", 4)):
        for name in ("circle", "square", "star"):
            (root / place / name).mkdir(parents=True)
            for number in range(count):
                pixels = random.integers(0, 256, (40, 50, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(root / place / name / f"{number}.png")
    return clipadapt.load_task("folder", shots=1, root=str(root))


@pytest.fixture(scope="module")
def runs(backbone, task, tmp_path_factory):
    """Directories by method, made when they are asked for."""
    made = {}

    def run(method):
        if method not in made:
            result = clipadapt.finetune(backbone, task, method, METHODS[method], cpu=True, workers=0, cache=None)
            assert result.history == [] and result.metrics["images"] == 12
            made[method] = result.save(tmp_path_factory.mktemp("runs") / method), result
        return made[method]

    return run


def confusion(found, labels):
    counts = torch.zeros(3, 3, dtype=torch.long)
    for row, label in zip(found.argmax(dim=1), labels, strict=True):
        counts[label, row] += 1
    return counts.tolist()


@pytest.mark.parametrize("method", METHODS)
def test_a_loaded_run_adapts_as_the_run_did(runs, task, method):
    directory, result = runs(method)
    predictor, test = clipadapt.load(directory, device="cpu"), task.tests["test"]
    test = test.select(shuffled(len(test), task.seed)) if predictor.test_time.adapts_to == "stream" else test
    predictor.reset(len(test))
    assert confusion(predictor.predict_proba(test.images.items), test.labels) == result.metrics["confusion"]
    assert evaluate(directory)["confusion"] == result.metrics["confusion"]


def test_views_are_the_same_every_time(runs, task):
    predictor = clipadapt.load(runs("tpt")[0], device="cpu")
    paths = task.tests["test"].images.items[:4]
    together = predictor.predict_proba(paths)
    apart = torch.cat([predictor.predict_proba(path) for path in paths])
    assert torch.allclose(together, apart, atol=1e-4)
    assert predictor.predict(paths) == [predictor.class_names[i] for i in together.argmax(dim=1)]


def test_tensors_have_no_views(runs):
    pixels = torch.zeros(3, 32, 32)
    with pytest.raises(UserError, match="6 views of each image, and a tensor can't be cropped"):
        clipadapt.load(runs("mta")[0], device="cpu").predict(pixels)
    assert clipadapt.load(runs("tda")[0], device="cpu").predict_proba(pixels).shape == (1, 3)


def test_a_streams_state_is_kept(runs, task, tmp_path):
    paths = task.tests["test"].images.items
    whole, first, second = (clipadapt.load(runs("tda")[0], device="cpu") for _ in range(3))
    expected = whole.predict_proba(paths)
    first.predict_proba(paths[:5])
    first.save_state(tmp_path / "state.safetensors")
    second.load_state(tmp_path / "state.safetensors")
    assert torch.allclose(second.predict_proba(paths[5:]), expected[5:], atol=1e-5)
    whole.reset()
    assert torch.allclose(whole.predict_proba(paths), expected, atol=1e-5)
    other = whole.for_classes(["circle", "triangle"])
    assert other.predict_proba(paths[:2]).shape == (2, 2) and int(whole.test_time.state_dict()["count"]) == 12
    with pytest.raises(UserError, match="left by images of other classes"):
        other.load_state(tmp_path / "state.safetensors")


def test_a_stream_whose_length_matters(runs, task, tmp_path, capsys):
    directory, _ = runs("onzeta")
    paths, predictor = task.tests["test"].images.items, clipadapt.load(directory, device="cpu")
    with pytest.raises(UserError, match=r"nobody said how many images come: call predictor.reset\(length=N\)"):
        predictor.predict(paths[0])
    for length in (0, 1.5, "two"):
        with pytest.raises(UserError, match="is no number of images: give a whole number, at least 1"):
            predictor.reset(length)
    predictor.reset(len(paths))
    expected = torch.cat([predictor.predict_proba(path) for path in paths])
    with pytest.raises(UserError, match="was to have length=12, and image 13 came"):
        predictor.predict(paths[0])
    predictor.save_state(tmp_path / "state")
    other = clipadapt.load(directory, device="cpu")
    other.load_state(tmp_path / "state")
    with pytest.raises(UserError, match="was to have length=12, and image 13 came"):
        other.predict(paths[0])
    with pytest.raises(UserError, match="left by another method"):
        clipadapt.load(runs("tda")[0], device="cpu").load_state(tmp_path / "state")
    folder = os.path.commonpath(paths)
    assert main(["predict", f"run={directory}", f"images={folder}", "format=json"]) == 0
    answers = {row["image"]: row["probabilities"] for row in json.loads(capsys.readouterr().out)}
    in_order = clipadapt.load(directory, device="cpu")
    in_order.reset(len(paths))
    found = in_order.predict_proba([*answers])
    assert torch.allclose(torch.tensor([[*row.values()] for row in answers.values()]), found, atol=1e-5)
    assert found.shape == expected.shape == (12, 3)


def test_states_that_are_none(runs, tmp_path):
    stream, tuned = (clipadapt.load(runs(method)[0], device="cpu") for method in ("tda", "tpt"))
    for call in (tuned.save_state, tuned.load_state):
        with pytest.raises(UserError, match="carries nothing from image to image"):
            call(tmp_path / "state")
    (tmp_path / "text").write_text("no tensors")
    stream.save_state(tmp_path / "flipped")
    content = bytearray((tmp_path / "flipped").read_bytes())
    content[-1] ^= 1
    (tmp_path / "flipped").write_bytes(content)
    for path in (tmp_path / "absent", tmp_path / "text", tmp_path, tmp_path / "flipped"):
        with pytest.raises(UserError, match="no state to be read"):
            stream.load_state(path)
    with pytest.raises(UserError, match="can't be written"):
        stream.save_state(tmp_path / "absent" / "state")


def test_a_whole_set_is_answered_at_once_and_one_image_is_none(runs, task, tmp_path, capsys):
    directory, _ = runs("zlap")
    predictor, paths = clipadapt.load(directory, device="cpu"), task.tests["test"].images.items
    whole, some = predictor.predict_proba(paths), predictor.predict_proba(paths[:6])
    assert not torch.allclose(whole[:6], some, atol=1e-4)
    for call in (predictor.predict, predictor.predict_proba, predictor.decision):
        with pytest.raises(UserError, match="compares the images of a whole set, and can't answer 1 alone"):
            call(paths[0])
    with pytest.raises(UserError, match="answers the images of a whole set together, and a server gets them one by"):
        check_predictor(predictor)
    file = tmp_path / "answers.csv"
    words = [f"run={directory}", f"images={Path(paths[0]).parent.parent}", f"output={file}"]
    assert main(["predict", *words]) == 0
    listed = list(csv.DictReader(file.open()))
    assert [row["class"] for row in listed] == predictor.predict([row["image"] for row in listed])
    capsys.readouterr()
    assert main(["predict", f"run={directory}", f"images={paths[0]}"]) == 2
    assert "give all images at once, such as a folder" in " ".join(capsys.readouterr().err.split())


def test_a_predictor_is_pickled_with_its_stream(runs, task):
    predictor = clipadapt.load(runs("tda")[0], "cpu")
    first, second = [[task.tests["test"].images[index]] for index in (0, 5)]
    predictor.predict(first)
    other = pickle.loads(pickle.dumps(predictor))
    assert torch.equal(other.predict_proba(second), predictor.predict_proba(second))


def test_what_a_pickle_holds_of_a_predictor(backbone, task):
    result = clipadapt.finetune(backbone, task, "zero_shot", cpu=True, workers=0, cache=None)
    image, other = task.tests["test"].images[0], result.predictor.for_classes(["star", "circle"])
    assert torch.equal(pickle.loads(pickle.dumps(other)).predict_proba(image), other.predict_proba(image))
    with pytest.raises(UserError, match="only predictors of runs can be saved, pickled"):
        pickle.dumps(Predictor(result.predictor.model))
