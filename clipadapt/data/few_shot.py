"""Few-shot tasks drawn by seed, with CoOp's samples for the same lists (Zhou et al., IJCV 2022, arXiv:2109.01134)."""

import random
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from clipadapt.data.duplicates import find_equal
from clipadapt.data.tasks import UNLABELLED, Drawing, Source, Split, Task, compute_fingerprint
from clipadapt.errors import DataError, join_names
from clipadapt.notices import notice

MAX_VALIDATION_SHOTS = 4
ALL, BASE, NEW = "all", "base", "new"
MIN_CLASSES_TO_SPLIT = 4
SHOWN_CLASSES = 10


def draw_per_class(indices: Iterable[int], labels: Sequence[int], shots: int, stream: random.Random) -> list[int]:
    """Draw up to `shots` of the indices of each class, classes in order of first appearance.

    A class with fewer images keeps all of them, in order, and draws no random numbers.
    """
    members: dict[int, list[int]] = {}
    for index in indices:
        members.setdefault(labels[index], []).append(index)
    chosen: list[int] = []
    for candidates in members.values():
        chosen += stream.sample(candidates, shots) if len(candidates) >= shots else candidates
    return chosen


class ByClass:
    """Few-shot sampling by class, as in CoOp's code."""

    def draw(self, indices: Iterable[int], targets: Sequence[int], shots: int, stream: random.Random) -> list[int]:
        """Draw up to `shots` of the indices of each class."""
        return draw_per_class(indices, targets, shots, stream)

    def remarks(self, task: Task) -> list[str]:
        """Return a remark on classes with fewer images than shots, and on those without test images."""
        return class_remarks(task)


def sample(
    train_labels: Sequence[Any],
    validation_labels: Sequence[Any] | None,
    shots: int,
    seed: int,
    kind: Drawing | None = None,
) -> tuple[list[int], list[int]]:
    """Draw the support set, then min(shots, 4) validation images per class from the same random stream.

    Args:
        train_labels: The label of each image of the pool.
        validation_labels: The label of each image of the validation list; None if there is no list: the validation
            sample is then drawn from the pool's images outside the support set.
        shots: Images per class, at least 1.
        seed: Any whole number.
        kind: The kind of task, which draws; None for classification.

    Returns:
        Indices of the support set into the pool; indices of the validation sample into the validation list or, if
        there is none, into the pool.

    Raises:
        DataError: `shots` is less than 1.
    """
    check_shots(shots)
    stream, kind = random.Random(seed), kind or ByClass()
    support = kind.draw(range(len(train_labels)), train_labels, shots, stream)
    validation_shots = min(shots, MAX_VALIDATION_SHOTS)
    if validation_labels is not None:
        return support, kind.draw(range(len(validation_labels)), validation_labels, validation_shots, stream)
    taken = set(support)
    rest = [index for index in range(len(train_labels)) if index not in taken]
    return support, kind.draw(rest, train_labels, validation_shots, stream)


def check_shots(shots: Any) -> int:
    """Return a number of shots after a check; raises DataError."""
    if isinstance(shots, bool) or not isinstance(shots, int) or shots < 1:
        raise DataError(f"shots must be a whole number of at least 1, or {ALL}, and {shots!r} is neither")
    return shots


def check_draw(views: int | None, classes: str) -> None:
    """Check the views and the classes of a task to draw.

    Raises:
        DataError: `views` is below 0, or `classes` isn't one of the choices.
    """
    if classes not in (ALL, BASE):
        raise DataError(f"classes must be {ALL} or {BASE}, not {classes!r}")
    if views is not None and (isinstance(views, bool) or not isinstance(views, int) or views < 0):
        raise DataError(f"views must be null (fresh random views), 0 (the centre crop) or a number, not {views!r}")


def make_task(
    source: Source,
    shots: int | str,
    seed: int,
    views: int | None = 0,
    classes: str = ALL,
    kind: Drawing | None = None,
) -> Task:
    """Draw a few-shot task from a source: the same samples as CoOp's for the same lists and seed.

    With `classes="base"`, the task learns the first half of the classes and its test set is split into "base" and
    "new".

    With `shots="all"`, all images of the pool are learned from, and the task's `shots` is the largest number of images
    of a class.

    If the source has no test set, the images of the pool outside the support and validation sets are the test set; if
    there are none, the validation images are; if there are none either, there is no test set, and a notice says so. An
    unlabelled pool gives none. If the pool is empty, the task has nothing to learn from. One warning names the classes
    with fewer images than shots, and the classes without test images.

    Raises:
        DataError: `shots` is below 1, `views` below 0, there is one class, or there are fewer than four to halve.
    """
    check_draw(views, classes)
    if len(source.class_names) < 2:
        raise DataError(f"'{source.name}' has one class, {source.class_names[0]}; a task needs at least two")
    listed, labelled = source.validation, source.train.labelled
    count = most_images(source.train) if shots == ALL else check_shots(shots)
    validation_labels = listed.labels if listed else None
    support, validation = sample(source.train.labels, validation_labels, count, seed, kind) if labelled else ([], [])
    rest = list[int]()
    if labelled and not source.tests and len(source.train):
        rest = sorted({*range(len(source.train))}.difference(support, validation if listed is None else ()))
        if not rest and listed is None:
            rest, validation = sorted(validation), []
        if not rest:
            notice(no_test_images(source, count))
    pool = sorted({*range(len(source.train))}.difference(rest))
    task = Task(
        name=source.name,
        class_names=source.class_names,
        templates=source.templates,
        shots=count,
        seed=seed,
        views=views,
        support=source.train.select(support),
        validation=(listed or source.train).select(validation),
        tests=source.tests or ({"test": source.train.select(rest)} if rest else {}),
        support_indices=support,
        validation_indices=validation,
        pool=source.train.select(pool),
        pool_indices=pool,
        test_indices=rest,
        validation_listed=listed is not None,
        kind=kind,
        words=source.words,
    )
    splits = [task.support, task.validation, *task.tests.values()]
    task = replace(task, fingerprint=compute_fingerprint(task, splits, source.train))
    if classes == BASE:
        task = base_to_new(task)
    if remarks := (kind or ByClass()).remarks(task):
        notice(f"{task.name}: {'; '.join(remarks)}")
    for text in find_equal({"support": task.support, "validation": task.validation, **task.tests}, task.class_names):
        notice(f"{task.name}: {text}")
    return task


def evaluation_only_task(source: Source, seed: int, kind: Drawing | None = None) -> Task:
    """Return a task with test sets only: the source's own or, if it has none, its whole pool, if that is labelled."""
    nothing = source.train.select([])
    whole = {"test": source.train} if source.train.labelled and len(source.train) else {}
    task = Task(
        name=source.name,
        class_names=source.class_names,
        templates=source.templates,
        shots=1,
        seed=seed,
        views=0,
        support=nothing,
        validation=nothing,
        tests=source.tests or whole,
        support_indices=[],
        validation_indices=[],
        kind=kind,
        words=source.words,
    )
    task = replace(task, fingerprint=compute_fingerprint(task, [*task.tests.values()], source.train))
    if remarks := (kind or ByClass()).remarks(task):
        notice(f"{task.name}: {'; '.join(remarks)}")
    return task


def base_to_new(task: Task) -> Task:
    """Return the task of the base-to-new protocol (Zhou et al., CVPR 2022, arXiv:2203.05557, section 4.1).

    The task learns the base half of the classes and tests on both halves. As in CoOp's code, its sample is the part of
    the whole task's sample that belongs to the base classes; with an odd number of classes the base half is the larger
    one. Only the first test set is taken. An unlabelled pool is kept whole.

    Raises:
        DataError: The task has fewer than four classes.
    """
    names, first_new = task.class_names, -(-len(task.class_names) // 2)
    if len(names) < MIN_CLASSES_TO_SPLIT:
        raise DataError(f"'{task.name}' has {len(names)} classes, and classes={BASE} needs two in each half")
    base, new = range(first_new), range(first_new, len(names))
    parts: dict[str, Any] = {}
    for name in ("support", "validation", "pool"):
        split, indices = getattr(task, name), getattr(task, f"{name}_indices")
        kept = [index for index, label in enumerate(split.labels) if label in base or label == UNLABELLED]
        parts |= {name: split.select(kept), f"{name}_indices": [indices[index] for index in kept]}
    tests = {}
    for test in [*task.tests.values()][:1]:
        tests = {BASE: select_classes(test, base, names), NEW: select_classes(test, new, names)}
    return replace(task, class_names=names[:first_new], classes=BASE, tests=tests, test_indices=[], **parts)


def select_classes(split: Split, labels: range, names: Sequence[str]) -> Split:
    """Return the images of a range of classes, with labels counted from 0."""
    kept = split.select([index for index, label in enumerate(split.labels) if label in labels])
    own = [names[label] for label in labels]
    return replace(kept, labels=[label - labels.start for label in kept.labels], class_names=own)


def no_test_images(source: Source, shots: int) -> str:
    """Return a sentence on a source of which nothing is left to test on."""
    most = "1 image a class is" if shots == 1 else f"up to {shots} images a class are"
    without = "; engine.cross_validate=5 and clipadapt choose measure without them" if shots > 1 else ""
    return (
        f"'{source.name}' has no test images: {most} all its {len(source.train)} images, so that what learns is tested "
        f"on none (a folder test, more images or fewer shots would give it some{without})"
    )


def most_images(pool: Split) -> int:
    """Return the largest number of images of a class, at least 1."""
    labels = [label for label in pool.labels if label != UNLABELLED]
    return max(Counter(labels).values(), default=1)


def class_remarks(task: Task) -> list[str]:
    """Return a remark on classes with fewer images than shots, and on those without test images."""
    short = short_classes(task) if task.labelled and task.has_training_images else []
    return [*short, *untested_classes(task)]


def short_classes(task: Task) -> list[str]:
    """Return a sentence on the classes with fewer images than shots; an empty list if there are none."""
    counts = Counter(task.support.labels)
    short = [f"{name} ({counts[label]})" for label, name in enumerate(task.class_names) if counts[label] < task.shots]
    return (
        [f"fewer than {task.shots} images to learn from, all of them used, in {join_names(short, SHOWN_CLASSES)}"]
        if short
        else []
    )


def untested_classes(task: Task) -> list[str]:
    """Return a sentence for each test set that lacks images of some classes."""
    notes = []
    for name, split in task.tests.items():
        present = set(split.labels)
        names = split.class_names or task.class_names
        absent = [class_name for label, class_name in enumerate(names) if label not in present]
        if absent:
            drawn = " (more images, fewer shots or a folder test would give them some)" if task.test_indices else ""
            notes.append(f"no images in '{name}' of {join_names(absent, SHOWN_CLASSES)}{drawn}")
    return notes
