"""Cross-validated figures of a run that has nothing to test on."""

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

import clipadapt
from clipadapt.cli import main
from clipadapt.config import compose
from clipadapt.runs.cross_validation import check_cross_validation, cross_validate
from clipadapt.runs.folds import HELD_OUT, fold_task, stratified_folds
from clipadapt.tasks import task_kind
from tests.engine.tasks import split, task

ENGINE = {"cpu": True, "workers": 0, "cache": None}


def given_labels(labels):
    return replace(task(), support=split(labels), support_indices=[*range(len(labels))])


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Two class folders with four images each, and nothing else."""
    root = tmp_path_factory.mktemp("held_out") / "photos"
    for place, label in enumerate(("blue", "red")):
        for index in range(4):
            path = root / label / f"{index}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.random.default_rng((place, index)).integers(0, 256, (8, 8, 3), np.uint8)).save(path)
    return root


@pytest.fixture(scope="module")
def result(photos):
    given = clipadapt.load_task("folder", root=str(photos), shots="all", views=0)
    return clipadapt.finetune(clipadapt.load_backbone(), given, "linear_probe", cross_validate=2, **ENGINE)


def test_the_figures_are_those_of_fits_to_the_folds(result, photos):
    given = clipadapt.load_task("folder", root=str(photos), shots="all", views=0)
    right = {"accuracy": 0.0, "zero_shot_accuracy": 0.0}
    for held in stratified_folds(given.support.labels, 2, given.seed):
        part = fold_task(given, held)
        assert not {*part.support_indices} & {*held} and len(part.support) == len(held) == 4
        fold = clipadapt.finetune(clipadapt.load_backbone(), part, "linear_probe", **ENGINE)
        right = {key: value + 4 * fold.metrics["tests"][HELD_OUT][key] for key, value in right.items()}
    found = result.metrics["cross_validation"]
    assert (found["folds"], found["images"], next(iter(found["figures"]))) == (2, 8, "accuracy")
    assert {key: found["scores"][key] for key in right} == {key: value / 8 for key, value in right.items()}


def test_they_are_no_figures_of_a_test(result):
    assert result.metrics["tests"] == {} and "accuracy" not in result.metrics
    assert "no test images" in repr(result) and "cross-validated over the support set (2 folds)" in result._repr_html_()


def test_the_run_itself_is_the_same(result, photos):
    given = clipadapt.load_task("folder", root=str(photos), shots="all", views=0)
    plain = clipadapt.finetune(clipadapt.load_backbone(), given, "linear_probe", **ENGINE)
    assert all(value.equal(plain.tensors[name]) for name, value in result.tensors.items())
    assert "cross_validation" not in plain.metrics


def test_a_saved_run_shows_them(result, tmp_path, capsys):
    run = result.save(tmp_path / "run")
    assert main(["show", f"run={run}"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "There is no test set" in shown and "Cross-validated over the support set: 2 folds" in shown


def test_the_mean_is_over_images():
    """Folds of 3 and 2 images count by their sizes, and a figure that one lacks is left out."""
    sizes, figure = iter([3, 2]), {"title": "accuracy", "percent": True, "higher_is_better": True}

    def fit(part):
        (held,) = part.tests.values()
        count = next(sizes)
        assert len(held) == count
        scores = {"accuracy": count / 3, "zero_shot_accuracy": 0.5, "images": count}
        scores |= {"auroc": 1.0} if count == 3 else {}
        return {"figures": {"accuracy": figure, "auroc": figure}, "tests": {HELD_OUT: scores}}

    given = given_labels([0, 0, 0, 1, 1])
    found = cross_validate(2, given, fit)
    assert found["scores"]["accuracy"] == pytest.approx((3 * 1 + 2 * 2 / 3) / 5) and [*found["figures"]] == ["accuracy"]
    assert found["images"] == 5 and task_kind(given).leading_figure([0, 0, 0, 1, 1]) == "accuracy"


@pytest.mark.parametrize(
    ("labels", "folds", "words", "message"),
    [
        (
            [0, 0, 1, 1],
            3,
            [],
            "needs as many images of a class, .* than 2: take engine.cross_validate=2",
        ),
        ([0, 1], 2, [], "none has more than 1: give more images"),
        ([], 2, [], "needs images with labels of their own"),
        ([0.5, 0.5], 2, [], "is for classes"),
        ([0, 0, 1, 1], 2, ["from=somewhere"], "can't hold out what from=.*somewhere may have learned"),
        ([0, 0, 1, 1], 2, ["method.pseudo_labels=all"], "needs images with labels of their own"),
    ],
)
def test_what_is_refused(labels, folds, words, message):
    given = given_labels(labels)
    with pytest.raises(clipadapt.UserError, match=message):
        check_cross_validation(folds, given, compose(words))


def test_one_fold_is_none():
    with pytest.raises(clipadapt.UserError, match="at least 2"):
        compose(["engine.cross_validate=1"])
