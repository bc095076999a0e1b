"""What is learned and what it is tested on: splits of labelled images, sources of them, tasks."""

import hashlib
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from random import Random
from typing import Any, Protocol

from PIL import Image

from clipadapt.data.images import LazyImages, select
from clipadapt.errors import DataError

UNLABELLED = -1
"""The label of an image whose class isn't known."""


@dataclass(frozen=True)
class Split:
    """Labelled images.

    Attributes:
        images: RGB; may be loaded when asked for.
        labels: targets, as the kind of task has them: class indices count from 0, or are UNLABELLED.
        class_names: of the labels, where they aren't the task's.
    """

    images: Sequence[Image.Image]
    labels: list[Any]
    class_names: list[str] | None = None

    def __post_init__(self) -> None:
        """Refuse images and labels of different number."""
        if len(self.images) != len(self.labels):
            raise ValueError(f"{len(self.images)} images with {len(self.labels)} labels")

    def __len__(self) -> int:
        """How many images there are."""
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Image.Image, Any]:
        """Load one image, and give its label."""
        return self.images[index], self.labels[index]

    @property
    def labelled(self) -> bool:
        """Whether the class of every image is known."""
        return UNLABELLED not in self.labels

    def select(self, indices: Sequence[int]) -> "Split":
        """The images at these indices with their labels, in their order; nothing is loaded."""
        return replace(self, images=select(self.images, indices), labels=[self.labels[index] for index in indices])


@dataclass(frozen=True)
class Source:
    """A data set: a pool to draw support sets from (`train`), and what else it comes with.

    `validation` is None and `tests` empty where it has no such splits; the first test set is called "test". The pool
    may be unlabelled, as a whole, and is empty where a data set is for testing only. `namesakes` says that classes may
    share a name, as two pairs of CLIP's names for ImageNet do.

    Raises:
        DataError: For fewer than two classes, class names given twice without leave, or a template without {}.
    """

    name: str
    class_names: list[str]
    templates: list[str]
    train: Split
    validation: Split | None
    tests: dict[str, Split]
    namesakes: bool = False

    def __post_init__(self) -> None:
        """Refuse what can't be a task."""
        if len(self.class_names) < 2:
            raise DataError(f"'{self.name}' has {len(self.class_names)} class; a task needs at least two")
        twice = [name for name, count in Counter(self.class_names).items() if count > 1]
        if twice and not self.namesakes:
            raise DataError(f"'{self.name}' has classes of the same name: {', '.join(twice)}")
        if isinstance(self.templates, str) or not self.templates:
            raise DataError(f"templates must be a list of sentences with {{}} in them, and {self.templates!r} is not")
        for template in self.templates:
            if "{}" not in template:
                raise DataError(f"the template '{template}' has no {{}} for the class name to stand in")


class Drawing(Protocol):
    """What the data ask of a kind of task: how examples are drawn, and what is to be remarked on them."""

    def draw(self, indices: Sequence[int], targets: Sequence[Any], shots: int, stream: Random) -> list[int]:
        """Draw few of the indices of images with these targets."""

    def remarks(self, task: "Task") -> list[str]:
        """Return remarks on a task that was drawn."""


@dataclass(frozen=True, repr=False)
class Task:
    """A few-shot task: class names, the images to learn from, and test sets.

    The labels of a test set are in `tests` and nowhere else: what learns is given `without_tests()`.

    Attributes:
        classes: "all"; or "base" for the first half of the source's classes, tested on both halves.
        views: Views of each support image: None for fresh random ones, k for k stored ones, 0 for the centre crop.
        support: `shots` images a class, or all of a class that has fewer; empty where the pool is or is unlabelled.
        validation: Up to min(shots, 4) images a class; may be empty.
        tests: The test set called "test", then others (say, of shifted styles); none where an unlabelled pool came
            without.
        support_indices: Which images of the source's pool the support set is.
        validation_indices: Which of the source's validation list, or of its pool where it has none, validation is.
        origin: The settings below `data` and `task` that make it again, where it was loaded by settings.
        pool: All images that may be learned from: the source's pool but for what is tested on. None in a task made by
            hand: the support set.
        pool_indices: Which of the source's pool they are.
        images: What stands for the lists it was drawn from, to tell whether they have changed; empty in a task made by
            hand.
        kind: The kind of task; None for classification.
        left_out: What is wrong with the broken images that were left out, a sentence each that names the file, by the
            name of what they were in: "support", "validation", "pool" or a test set.
    """

    name: str
    class_names: list[str]
    templates: list[str]
    shots: int
    seed: int
    views: int | None
    support: Split
    validation: Split
    tests: dict[str, Split]
    support_indices: list[int]
    validation_indices: list[int]
    origin: dict[str, Any] | None = None
    pool: Split | None = None
    pool_indices: list[int] = field(default_factory=list)
    classes: str = "all"
    images: str = ""
    left_out: dict[str, list[str]] = field(default_factory=dict)
    kind: "Drawing | None" = None

    def __repr__(self) -> str:
        """Its name and sizes."""
        tests = ", ".join(f"{name}: {len(split)}" for name, split in self.tests.items())
        sizes = f"{len(self.class_names)} classes, {len(self.support)} images to learn from"
        return f"<Task {self.name}: {sizes}; {tests}>"

    @property
    def labelled(self) -> bool:
        """Whether the classes of the images that may be learned from are known."""
        return self.pool is None or self.pool.labelled

    @property
    def teaches(self) -> bool:
        """Whether there are images to learn from."""
        return len(self.support) > 0 or (self.pool is not None and len(self.pool) > 0)

    def need_images(self) -> None:
        """Raise DataError where there are no images to learn from."""
        if not self.teaches:
            raise DataError(
                f"'{self.name}' has no images to learn from, only some to test on: take method=zero_shot, or learn on "
                f"other data and measure that run with clipadapt evaluate run=DIR data={self.name}"
            )

    def without_tests(self) -> "Task":
        """The task as those see it that may not look at a test label."""
        return replace(self, tests={})


def listed_images(class_names: Sequence[str], splits: Sequence[Split], pool: Split) -> str:
    """16 hexadecimal digits that stand for class names, labels, and the sizes of image files, none of which is read.

    Args:
        class_names: of the task.
        splits: what is learned from and tested on.
        pool: what the first of them was drawn from, whose files aren't looked at.
    """
    found = [(split.labels, [file_size(item) for item in items_of(split)]) for split in splits]
    told = repr((class_names, found, pool.labels))
    return hashlib.sha256(told.encode()).hexdigest()[:16]


def items_of(split: Split) -> Sequence[Any]:
    """What a split's images are made from, where they are made when asked for."""
    return split.images.items if isinstance(split.images, LazyImages) else []


def file_size(item: Any) -> int | None:
    """The size of an image file; None for one that is missing, and for what is no file of its own."""
    try:
        return os.path.getsize(item) if isinstance(item, str) else None
    except OSError:
        return None


def unique_names(class_names: Sequence[str]) -> list[str]:
    """Class names, those that several classes share with their label behind them: "missile (657)"."""
    counts = Counter(class_names)
    return [f"{name} ({label})" if counts[name] > 1 else name for label, name in enumerate(class_names)]
