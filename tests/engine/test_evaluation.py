from dataclasses import replace
from functools import partial
from types import SimpleNamespace

import pytest
import torch

from clipadapt.adaptations import Adaptation, Context
from clipadapt.engine.evaluation import evaluate_run
from clipadapt.engine.metrics import evaluate_batches
from clipadapt.engine.run import Run
from clipadapt.errors import UserError
from clipadapt.tasks.classification import Classification, by_class
from tests.engine.tasks import prepare, split, task

LABELS = torch.tensor([0, 0, 0, 1])
PROBABILITIES = torch.tensor([[0.7, 0.2, 0.1], [0.7, 0.2, 0.1], [0.2, 0.1, 0.7], [0.1, 0.7, 0.2]])


def measured(*batches):
    head = SimpleNamespace(class_names=["a", "b", "c"], clip=SimpleNamespace(scale=1.0))
    return evaluate_batches(lambda x: x.log(), batches, Classification(), head, torch.device("cpu"))


def test_accuracy_per_class_and_confusion():
    found = measured((PROBABILITIES, LABELS))
    assert found.figures["accuracy"] == 0.75
    assert by_class(["a", "b", "c"], found) == pytest.approx({"a": 2 / 3, "b": 1})
    assert found.details["confusion"].tolist() == [[2, 0, 1], [0, 1, 0], [0, 0, 0]]
    assert found.images == 4


def test_calibration_error():
    assert measured((PROBABILITIES, LABELS)).figures["calibration_error"] == pytest.approx(0.05, abs=1e-6)
    sure = torch.eye(3)[[0, 0, 1, 1]] * 0.9999 + 1e-5
    assert measured((sure, LABELS)).figures["calibration_error"] == pytest.approx(0.25, abs=1e-3)


def test_batches_do_not_matter():
    halves = measured((PROBABILITIES[:1], LABELS[:1]), (PROBABILITIES[1:], LABELS[1:]))
    whole = measured((PROBABILITIES, LABELS))
    assert halves.details["confusion"].equal(whole.details["confusion"])
    assert halves.figures == pytest.approx(whole.figures)


def test_measure_leaves_out_a_class_without_test_images(clip):
    tests = {"test": split([0, 0, 1]), "other": split([2] * 4, seed=2)}
    found = evaluate_run(prepare(clip, task(tests=tests)))
    assert list(found["per_class"]) == list(found["zero_shot_per_class"]) == ["circle", "square"]
    assert found["images"] == 3
    assert {name: values["images"] for name, values in found["tests"].items()} == {"test": 3, "other": 4}
    assert found["accuracy"] == found["tests"]["test"]["accuracy"]


def test_a_test_set_may_have_classes_of_its_own(clip):
    given = task()
    new = replace(split([0, 1, 1], seed=3), class_names=["heart", "arrow"])
    run = prepare(clip, replace(given, tests={"base": given.tests["test"], "new": new}))
    found = evaluate_run(run)["tests"]
    assert found["base"] == evaluate_run(prepare(clip, given))["tests"]["test"]
    alone = replace(given, class_names=["heart", "arrow"], tests={"test": new})
    expected = evaluate_run(
        Run.for_evaluation(run.head.for_classes(["heart", "arrow"]), alone, run.accelerator, run.settings)
    )
    assert found["new"] == expected["tests"]["test"]


def test_predictions_are_kept_of_every_test_set_with_its_classes(clip):
    given = task()
    new = replace(split([0, 1, 1], seed=3), class_names=["heart", "arrow"])
    found = evaluate_run(prepare(clip, replace(given, tests={"base": given.tests["test"], "new": new})))
    assert found["predictions"]["base"]["class_names"] == given.class_names
    assert found["predictions"]["new"]["class_names"] == ["heart", "arrow"]
    for name, kept in found["predictions"].items():
        for key, who in (("accuracy", "adapted"), ("zero_shot_accuracy", "zero_shot")):
            right = [label == answer for label, answer in zip(kept["labels"], kept[who], strict=True)]
            assert sum(right) / len(right) == pytest.approx(found["tests"][name][key])


def test_what_belongs_to_classes_refuses_a_test_set_of_others_at_once(clip):
    new = replace(split([0, 1], seed=3), class_names=["heart", "arrow"])
    own = partial(Context, n_ctx=2, class_specific=True)
    with pytest.raises(UserError, match="something for each of its classes, which can't serve"):
        prepare(clip, task(tests={"base": split([0, 1, 2]), "new": new}), own)


class Noisy(Adaptation):
    """Draws at random at every forward pass, at evaluation too."""

    def edits(self, tower, image=None):
        return {"features": lambda x: x + torch.randn_like(x)} if tower == "image" else {}


def test_what_is_drawn_on_the_tests_does_not_depend_on_the_validation_split(clip):
    run = prepare(clip, replace(task(), validation=split([0, 1, 2], seed=5), validation_indices=[7, 8, 9]), Noisy)
    found = []
    for validation in (False, True):
        torch.manual_seed(0)
        found.append(evaluate_run(run, validation=validation))
    assert found[1].pop("validation")["images"] == 3 == len(found[1].pop("known_scores")["truth"])
    assert found[1].pop("calibrated") and found[0] == found[1]
