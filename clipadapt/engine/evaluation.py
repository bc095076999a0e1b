"""The figures of a run: zero-shot against adapted, on its test sets."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import torch
from accelerate.utils import gather_object
from torch import Tensor

from clipadapt.data.tasks import Split, Task, unique_names
from clipadapt.engine.metrics import Evaluation, evaluate_batches
from clipadapt.engine.run import Run
from clipadapt.tasks.classification import Classifier
from clipadapt.test_time.base import TestTimeMethod

Pair = tuple[Classifier, Classifier]


def evaluate_run(run: Run) -> dict[str, Any]:
    """Zero-shot against adapted on the task's test sets; the first one's figures stand for the run.

    Returns:
        `accuracy` and `calibration_error`, each with its `zero_shot_` counterpart, and the number of `images`; `tests`,
        the same by test set; of the first one, accuracies `per_class` and `zero_shot_per_class`, and the `confusion`;
        `predictions` by test set: its `class_names`, its `labels`, and what is predicted, `zero_shot` and `adapted`,
        image by image.
        Without a test set, `tests` alone, which is empty.
    """
    if not run.task.tests:
        return {"tests": {}}
    pair = run.zero_shot(), run.classifier
    measured = {}
    for name, split in run.task.tests.items():
        pair = for_classes(pair, split.class_names or run.task.class_names)
        measured[name] = evaluate_pair(run, *pair, split)
    tests = {name: figures(before, after) for name, (before, after) in measured.items()}
    first, (before, after) = next(iter(measured.items()))
    return tests[first] | {
        "tests": tests,
        "per_class": by_class(run.task.class_names, after),
        "zero_shot_per_class": by_class(run.task.class_names, before),
        "confusion": after.confusion,
        "predictions": {name: predictions(run.task, name, *pair) for name, pair in measured.items()},
    }


def predictions(task: Task, name: str, before: Evaluation, after: Evaluation) -> dict[str, Any]:
    """What zero-shot and adapted answer for each image of a test set, and what is right."""
    split = task.tests[name]
    return {
        "class_names": split.class_names or task.class_names,
        "labels": split.labels,
        "zero_shot": before.predicted,
        "adapted": after.predicted,
    }


def for_classes(pair: Pair, class_names: list[str]) -> Pair:
    """Zero-shot and adapted for a test set's classes; the same ones where these are theirs."""
    before, after = pair
    same = before.class_names == class_names
    return pair if same else (before.for_classes(class_names), after.for_classes(class_names))


def evaluate_classifier(
    run: Run, classifier: Classifier, batches: Iterable[tuple[Tensor, Tensor]], test_time: TestTimeMethod | None = None
) -> Evaluation:
    """Measure a classifier on activations at its image cut and labels, shared out over the processes.

    Args:
        run: whose processes and number format are used.
        classifier: CLIP through an adaptation.
        batches: activations `[B, ...]` and labels `[B]`; `[B, V, ...]` of V views where something adapts.
        test_time: what adapts.
    """
    classifier.eval()
    with torch.no_grad(), run.accelerator.autocast():
        text = None if classifier.adaptation.capabilities.conditional else classifier.class_embeddings()

        def predict(x: Tensor) -> Tensor:
            if test_time is not None:
                return test_time.logits(classifier, x, text)
            return classifier.output(x, classifier.image_cut, text).logits

        return evaluate_batches(predict, batches, len(classifier.class_names), run.accelerator.device)


def evaluate_pair(run: Run, zero_shot: Classifier, adapted: Classifier, split: Split) -> tuple[Evaluation, Evaluation]:
    """Measure zero-shot and adapted on a test set of their classes; all images' predictions are in its order."""
    before, after, order = _evaluate_share(run, zero_shot, adapted, split)
    own = run.loader.share(split)
    return in_order(run, before, own), in_order(run, after, [order[place] for place in own])


def in_order(run: Run, found: Evaluation, images: list[int]) -> Evaluation:
    """An evaluation with the predictions of all processes, of which this one had some of the images."""
    pairs = gather_object([*zip(images, found.predicted, strict=True)])
    return replace(found, predicted=[predicted for _, predicted in sorted(pairs)])


def _evaluate_share(
    run: Run, zero_shot: Classifier, adapted: Classifier, split: Split
) -> tuple[Evaluation, Evaluation, Sequence[int]]:
    """Both evaluations, and the order that the adapted one saw the images in; features are computed once."""
    order: Sequence[int] = range(len(split))
    batches = list(run.loader.test_batches(zero_shot, split))
    before = evaluate_classifier(run, zero_shot, batches)
    if run.test_time is not None:
        run.test_time.reset()
        order = shuffled(len(split), run.task.seed) if run.test_time.stream else order
        views = run.loader.test_views(adapted, split.select(order), run.test_time.views, run.test_time.images)
        return before, evaluate_classifier(run, adapted, views, run.test_time), order
    if adapted.image_cut == zero_shot.image_cut and adapted.image is zero_shot.image:
        return before, evaluate_classifier(run, adapted, batches), order
    return before, evaluate_classifier(run, adapted, run.loader.test_batches(adapted, split)), order


def shuffled(count: int, seed: int) -> list[int]:
    """An order of images drawn by seed: a stream's must not come class by class."""
    generator = torch.Generator().manual_seed(seed)
    order: list[int] = torch.randperm(count, generator=generator).tolist()
    return order


def figures(before: Evaluation, after: Evaluation) -> dict[str, float]:
    """The figures of one test set."""
    return {
        "accuracy": after.accuracy,
        "zero_shot_accuracy": before.accuracy,
        "calibration_error": after.calibration_error,
        "zero_shot_calibration_error": before.calibration_error,
        "images": after.images,
    }


def by_class(names: Sequence[str], evaluation: Evaluation) -> dict[str, float]:
    """Accuracy of each class that has test images."""
    pairs = zip(unique_names(names), evaluation.per_class, strict=True)
    return {name: accuracy for name, accuracy in pairs if not math.isnan(accuracy)}
