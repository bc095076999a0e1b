"""Evaluation of a run on its test sets: zero-shot against adapted."""

import copy
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from operator import itemgetter
from typing import Any, cast

import torch
from accelerate.utils import gather_object
from torch import Tensor

from clipadapt.data.tasks import Split, Task
from clipadapt.engine.metrics import evaluate_batches, scaled_figures
from clipadapt.engine.run import Run
from clipadapt.tasks import Classifier, Evaluation, Head, TaskKind, task_kind
from clipadapt.tasks.base import NO_LABEL
from clipadapt.tasks.uncertainty import fewest_scores, fit_temperature, threshold
from clipadapt.test_time.base import TestTimeMethod

Pair = tuple[Head, Head]

COVERAGE = 0.9
"""A coverage that is checked on the test images."""


def evaluate_run(run: Run, validation: bool = False, known: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Evaluate zero-shot and adapted CLIP on the task's test sets; the run's figures are those of the first one.

    Args:
        run: a run whose adaptation is fitted.
        validation: whether to evaluate the validation split, too; its figures choose nothing here.
        known: the `known_scores` of a validation split that was evaluated before, in place of that.

    Returns:
        For classification: `accuracy` and `calibration_error` of the first test set, each with its `zero_shot_`
        counterpart, and its number of `images`, accuracies `per_class` and `zero_shot_per_class`, and `confusion`;
        `classes`, the other figures by class; `intervals` and `zero_shot_intervals` of figures; `tests`, the figures by
        test set; `predictions` by test set: `class_names`, `labels`, the predictions `zero_shot` and `adapted` of each
        image, and its most probable classes `ranked`; `figures`, how to show each figure, the leading one first;
        `validation`, the figures of the validation split, and its `known_scores` (see `KnownScores`); `covered`, the
        share of test images whose class is in its set of classes at a coverage of 90 %; `calibrated`, figures of the
        first test set after temperature scaling; `test_note`, what is to be known of a test-time method's figures.
        Without a test set, only `tests`, which is empty, and what is of the validation split.
    """
    kind, own = task_kind(run.task), (run.zero_shot(), run.head)
    pair = own
    measured: dict[str, tuple[Evaluation, Evaluation]] = {}
    for name, split in run.task.tests.items():
        pair = for_classes(pair, split.class_names or run.task.class_names)
        before, after = evaluate_pair(run, *pair, split)
        # Probabilities of all images take memory, and only those of the first test set are used again.
        measured[name] = replace(before, answers=[]), replace(after, answers=[] if measured else after.answers)
    # After the tests, so that what an adaptation draws at random on them doesn't depend on the validation split.
    fewest = 1 if run.test_time is None else run.test_time.fewest_images
    validated = validation_figures(run, own) if validation and len(run.task.validation) >= fewest else {}
    known = validated.get("known_scores", known)
    if not measured:
        return {"tests": {}} | validated
    tests = {name: figures(before, after) for name, (before, after) in measured.items()}
    first, (before, after) = next(iter(measured.items()))
    return (
        tests[first]
        | kind.details(before, after, run.task)
        | {
            "tests": tests,
            "figures": describe_figures(kind, run.head, tests.values(), run.task.tests[first].labels),
            "predictions": {name: predictions(run.task, name, *pair) for name, pair in measured.items()},
        }
        | validated
        | ({"test_note": run.test_time.note} if run.test_time is not None and run.test_time.note else {})
        | covered(known, after.scores)
        | calibrated(run, run.task.tests[first].class_names or run.task.class_names, known, after)
    )


def covered(known: Mapping[str, Any] | None, scores: Sequence[tuple[float, float]]) -> dict[str, float]:
    """Return as `covered` the share of test images whose class is in its set at a coverage of 90 %.

    Args:
        known: scores of the validation split; too few of them, or None, give an empty dictionary.
        scores: of the test images.
    """
    if known is None or len(known["truth"]) < fewest_scores(1 - COVERAGE) or not scores:
        return {}
    least = threshold(known["truth"], 1 - COVERAGE, f"coverage={COVERAGE}")
    return {"covered": sum(truth >= least for truth, _ in scores) / len(scores)}


def calibrated(
    run: Run, names: Sequence[str], known: Mapping[str, Any] | None, found: Evaluation
) -> dict[str, dict[str, float]]:
    """Return as `calibrated` the figures of a test set with the temperature of the validation split.

    Nothing if that has none, or if the test set has other classes.
    """
    if known is None or known["temperature"] is None or names != run.task.class_names:
        return {}
    kind, device = task_kind(run.task), run.accelerator.device
    return {"calibrated": scaled_figures(found.answers, known["temperature"], kind, run.head, device)}


def predictions(task: Task, name: str, before: Evaluation, after: Evaluation) -> dict[str, Any]:
    """Return the labels of a test set, the predictions of zero-shot and adapted CLIP, and the adapted one's ranking."""
    split = task.tests[name]
    return {
        "class_names": split.class_names or task.class_names,
        "labels": split.labels,
        "zero_shot": before.predicted,
        "adapted": after.predicted,
        "ranked": after.ranked,
    }


def for_classes(pair: Pair, class_names: list[str]) -> Pair:
    """Return the zero-shot and the adapted head for a test set's classes; the same heads if the classes are equal."""
    before, after = pair
    same = before.class_names == class_names
    return pair if same else (before.for_classes(class_names), after.for_classes(class_names))


def evaluate_head(
    run: Run, head: Head, batches: Iterable[tuple[Tensor, Tensor]], test_time: TestTimeMethod | None = None
) -> Evaluation:
    """Evaluate a head on activations at its image cut, with the batches split over the processes.

    Args:
        run: the run, with its processes and number format.
        head: CLIP with an adaptation.
        batches: this process's activations `[B, ...]` and labels `[B]`; with a test-time method, activations
            `[B, V, ...]` of V views, or their pixels if it sees pixels.
        test_time: the test-time method; None for none.
    """
    head.eval()
    with torch.no_grad(), run.accelerator.autocast():
        text = head.precompute()
        if test_time is not None:
            batches = test_time.answer(cast(Classifier, head), batches, text)

        def predict(x: Tensor) -> Tensor:
            return x if test_time is not None else head.output(x, head.image_cut, text).logits

        return evaluate_batches(predict, batches, task_kind(run.task), head, run.accelerator.device)


def evaluate_pair(run: Run, zero_shot: Head, adapted: Head, split: Split) -> tuple[Evaluation, Evaluation]:
    """Evaluate zero-shot and adapted CLIP on a test set of their classes; predictions are in the test set's order."""
    before, after, order = _evaluate_share(run, zero_shot, adapted, split)
    own = run.loader.share(split)
    return in_order(run, before, own), in_order(run, after, [order[place] for place in own])


def in_order(run: Run, found: Evaluation, images: list[int]) -> Evaluation:
    """Gather the predictions of all processes, in the test set's order; `images` are the indices of this one's."""
    without = [None] * len(images)
    rows = zip(images, found.predicted, found.ranked or without, found.scores or without, strict=True)
    together = sorted(gather_object([*rows]), key=itemgetter(0))
    return replace(
        found,
        predicted=[predicted for _, predicted, *_ in together],
        ranked=[ranked for _, _, ranked, _ in together if ranked is not None],
        scores=[scores for *_, scores in together if scores is not None],
    )


def _evaluate_share(
    run: Run, zero_shot: Head, adapted: Head, split: Split
) -> tuple[Evaluation, Evaluation, Sequence[int]]:
    """Return both evaluations of this process's share, and the image order of the adapted one.

    If both heads share the frozen part up to the image cut, its activations are computed once.
    """
    order: Sequence[int] = range(len(split))
    batches = list(run.loader.test_batches(zero_shot, split))
    before = evaluate_head(run, zero_shot, batches)
    if run.test_time is not None:
        run.test_time.reset(len(split))
        order = shuffled(len(split), run.task.seed) if run.test_time.adapts_to in ("stream", "batch") else order
        model = at_pixels(adapted) if run.test_time.sees_pixels else adapted
        views = run.loader.test_views(model, split.select(order), run.test_time.views, run.test_time.images)
        return before, evaluate_head(run, adapted, views, run.test_time), order
    if adapted.image_cut == zero_shot.image_cut and adapted.image is zero_shot.image:
        return before, evaluate_head(run, adapted, batches), order
    return before, evaluate_head(run, adapted, run.loader.test_batches(adapted, split)), order


def at_pixels(head: Head) -> Head:
    """Return a head with the same towers whose image cut is at the pixels, so that its loader gives pixels."""
    made = copy.copy(head)
    made.image_cut = head.image.points[0]
    return made


def shuffled(count: int, seed: int) -> list[int]:
    """Return a random order of images, drawn by seed: a test stream must not be sorted by class."""
    generator = torch.Generator().manual_seed(seed)
    order: list[int] = torch.randperm(count, generator=generator).tolist()
    return order


def figures(before: Evaluation, after: Evaluation) -> dict[str, float]:
    """Return the figures of one test set, each with its `zero_shot_` counterpart, and the number of images."""
    found: dict[str, float] = {}
    for name, value in after.figures.items():
        found |= {name: value, f"zero_shot_{name}": before.figures[name]}
    return found | {"images": after.images}


def describe_figures(
    kind: TaskKind, head: Head, tests: Iterable[Mapping[str, float]], targets: Sequence[Any]
) -> dict[str, dict[str, Any]]:
    """Return how to show each figure that all `tests` have: its title, and whether it is in percent, and better higher.

    Test sets can have classes of their own, and one with few classes has no top-5 accuracy. The figure that leads on
    test images with these targets comes first.
    """
    everywhere = set.intersection(*({*figures} for figures in tests))
    measures = kind.metrics(head)
    leading = kind.leading_figure(targets)
    return {
        name: {"title": one.title, "percent": one.percent, "higher_is_better": one.higher_is_better}
        for name, one in {leading: measures[leading], **measures}.items()
        if name in everywhere
    }


def validation_figures(run: Run, pair: Pair) -> dict[str, Any]:
    """Return the figures of the validation split as `validation`, and the adapted model's scores as `known_scores`."""
    task = run.task
    before, after = evaluate_pair(run, *pair, task.validation)
    found = {"validation": figures(before, after)}
    if not after.scores:
        return found
    truth, matching = map(list, zip(*after.scores, strict=True))
    unseen = [name for label, name in enumerate(task.class_names) if label not in {*task.validation.labels}]
    return found | {
        "known_scores": {"truth": truth, "matching": matching, "unseen": unseen, "temperature": _temperature(after)}
    }


def _temperature(found: Evaluation) -> float | None:
    """Return the temperature of all processes' probabilities; None if there is none, or none of their kind of task."""
    answers = gather_object([*found.answers])
    if not answers:
        return None
    probabilities, targets = map(torch.cat, zip(*answers, strict=True))
    labelled = targets != NO_LABEL
    return fit_temperature(probabilities[labelled], targets[labelled]) if labelled.any() else None
