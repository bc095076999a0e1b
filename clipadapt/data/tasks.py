"""Splits of labelled images, data sets made of splits (sources), and few-shot tasks drawn from sources."""

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from random import Random
from typing import Any, Literal, Protocol

from PIL import Image

from clipadapt.data.class_words import check_shown, with_words
from clipadapt.data.images import LazyImages, select
from clipadapt.data.marks import find_marks
from clipadapt.errors import DataError, join_names
from clipadapt.notebook import html_table

UNLABELLED = -1
"""The label of an image whose class is unknown."""

SHOWN = 6
"""Names that are shown of a list."""

Augment = Literal["none", "crop", "mirror", "crop_mirror"]
"""Kinds of views of a support image: its centre crop; random crops; the centre crop, mirrored or not; or both."""


@dataclass(frozen=True)
class Split:
    """Labelled images.

    Attributes:
        images: RGB images, which may be loaded on access.
        labels: Targets, as the kind of task has them: class numbers from 0, or UNLABELLED.
        class_names: The class names, if they differ from the task's.
        weights: The weight of each image in what is learned, 0 or more; None if all count the same.
    """

    images: Sequence[Image.Image]
    labels: list[Any]
    class_names: list[str] | None = None
    weights: list[float] | None = None

    def __post_init__(self) -> None:
        """Check that there are as many labels as images."""
        if len(self.images) != len(self.labels):
            raise ValueError(f"{len(self.images)} images with {len(self.labels)} labels")

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Image.Image, Any]:
        """Load one image, and return it with its label."""
        return self.images[index], self.labels[index]

    @property
    def labelled(self) -> bool:
        """Return whether every image has a label."""
        return UNLABELLED not in self.labels

    def select(self, indices: Sequence[int]) -> "Split":
        """Return the images at these indices with their labels, in their order, without loading any."""
        labels = [self.labels[index] for index in indices]
        weights = None if self.weights is None else [self.weights[index] for index in indices]
        return replace(self, images=select(self.images, indices), labels=labels, weights=weights)


@dataclass(frozen=True)
class Source:
    """A data set: a pool to draw support sets from (`train`), and optional validation and test splits.

    `validation` is None and `tests` is empty if there are no such splits; the first test set is called "test". The pool
    may be unlabelled as a whole, and is empty for a data set that is for testing only. `words` has the names for CLIP
    of the classes that have others than their own. If `allow_duplicate_names` is
    true, classes may share a name, as two pairs of CLIP's names for ImageNet do.

    Raises:
        DataError: There are no classes, duplicate class names that aren't allowed, names with invisible characters,
            or a template without {}.
    """

    name: str
    class_names: list[str]
    templates: list[str]
    train: Split
    validation: Split | None
    tests: dict[str, Split]
    allow_duplicate_names: bool = False
    words: dict[str, list[str]] = field(default_factory=dict)

    @property
    def names_for_clip(self) -> list[str]:
        """Return the names for CLIP of all classes."""
        return [text for name in self.class_names for text in self.words.get(name, [name])]

    def __post_init__(self) -> None:
        """Check the class names and templates."""
        if not self.class_names:
            raise DataError(f"'{self.name}' has no classes")
        check_shown([*self.class_names, *self.names_for_clip])
        twice = [name for name, count in Counter(self.class_names).items() if count > 1]
        if twice and not self.allow_duplicate_names:
            raise DataError(f"'{self.name}' has classes of the same name: {', '.join(twice)}")
        if isinstance(self.templates, str) or not self.templates:
            raise DataError(f"templates must be a list of sentences with {{}} in them, and {self.templates!r} is not")
        for template in self.templates:
            if "{}" not in template:
                raise DataError(f"the template '{template}' has no {{}} for the class name")


class Drawing(Protocol):
    """The interface of a kind of task for the data: how examples are drawn, and remarks on them."""

    def draw(self, indices: Sequence[int], targets: Sequence[Any], shots: int, stream: Random) -> list[int]:
        """Draw few of the indices of images with these targets."""

    def remarks(self, task: "Task") -> list[str]:
        """Return remarks on a task that was drawn."""


@dataclass(frozen=True, repr=False)
class Task:
    """A few-shot task: class names, the images to learn from, and test sets.

    The labels of a test set are only in `tests`: methods get a task from `without_tests()`.

    Attributes:
        classes: "all"; or "base" for the first half of the source's classes, tested on both halves.
        views: Views of each support image: None for fresh random ones, k for k stored ones, 0 for the centre crop.
        augment: What random views are, if there are any (see `data.transforms.RandomViews`).
        words: The names for CLIP of each class that has others than its own; answers, tables and files call a class by
            its own name.
        support: `shots` images per class, or all images of a class with fewer; empty if the pool is empty or
            unlabelled.
        validation: Up to min(shots, 4) images per class; may be empty.
        tests: The test set "test", then others (for example of shifted styles); empty for an unlabelled pool without
            test sets.
        support_indices: Indices of the support set into the source's pool.
        validation_indices: Indices of the validation set into the source's validation list or, without one, its pool.
        origin: The settings below `data` and `task` that make it again, if it was made by settings.
        pool: All images that may be learned from: the source's pool without the test images. None in a task made by
            hand, which learns from its support set.
        pool_indices: Indices of the pool's images into the source's pool.
        test_indices: Indices of the test set into the source's pool, if it is what the other sets leave of it.
        validation_listed: Whether the validation images are of a list of their own.
        fingerprint: A hash of the lists the task was drawn from (see `compute_fingerprint`), to detect that they have
            changed; empty in a task made by hand.
        kind: The kind of task; None for classification.
        left_out: A sentence for each broken image that was left out, naming the file, by the name of its split:
            "support", "validation", "pool" or a test set.
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
    test_indices: list[int] = field(default_factory=list)
    validation_listed: bool = False
    classes: str = "all"
    fingerprint: str = ""
    left_out: dict[str, list[str]] = field(default_factory=dict)
    kind: "Drawing | None" = None
    augment: Augment = "crop_mirror"
    words: dict[str, list[str]] = field(default_factory=dict)

    def __repr__(self) -> str:
        """Return the task's name and sizes."""
        sizes = f"{len(self.class_names)} classes, {len(self.support)} images to learn from"
        return f"<Task {self.name}: {sizes}; {self._tests_text()}>"

    def _repr_html_(self) -> str:
        """Return what a notebook shows."""
        rows = [
            ("classes", f"{len(self.class_names):,}: {join_names(self.names_with_words, SHOWN)}"),
            ("templates", join_names(self.templates, SHOWN)),
            ("images to learn from", f"{len(self.support):,}: {self.shots} of each class, seed {self.seed}"),
            ("validation images", f"{len(self.validation):,}"),
            ("test images", self._tests_text()),
        ]
        return html_table(f"Task {self.name}", rows)

    def _tests_text(self) -> str:
        return ", ".join(f"{name}: {len(split):,}" for name, split in self.tests.items()) or "no test images"

    @property
    def names_with_words(self) -> list[str]:
        """Return the class names with the names for CLIP in brackets, where they are others."""
        return with_words(self.class_names, self.words)

    @property
    def words_by_class(self) -> dict[str, list[str]]:
        """Return the names for CLIP of every class."""
        return {name: self.words.get(name, [name]) for name in self.class_names}

    @property
    def augmentation(self) -> Augment:
        """Return what the views of support images are: "none" where each image has its centre crop alone."""
        return "none" if self.views == 0 else self.augment

    @property
    def labelled(self) -> bool:
        """Return whether the pool's images have labels."""
        return self.pool is None or self.pool.labelled

    @property
    def has_training_images(self) -> bool:
        """Return whether there are images to learn from."""
        return len(self.support) > 0 or (self.pool is not None and len(self.pool) > 0)

    def check_has_images(self) -> None:
        """Check that there are images to learn from; raises DataError."""
        if not self.has_training_images:
            raise DataError(
                f"'{self.name}' has no images to learn from, only some to test on: take method=zero_shot, or learn on "
                f"other data and evaluate that run with clipadapt evaluate run=DIR data={self.name}"
            )

    def without_tests(self) -> "Task":
        """Return the task without its test sets, for code that must not read test labels."""
        return replace(self, tests={})


def compute_fingerprint(task: Task, splits: Sequence[Split], pool: Split) -> str:
    """Return a hash, as 16 hexadecimal digits, of names for CLIP, labels and marks of image files (see `find_marks`).

    Args:
        task: The task, whose classes' names count.
        splits: The splits to learn from and to test on.
        pool: The pool the first of them was drawn from; only its labels count.
    """
    found = [(split.labels, find_marks(split.images)) for split in splits]
    names = [task.words.get(name, [name]) for name in task.class_names]  # not by class: names may be equal
    single = all(len(some) == 1 for some in names)
    content = repr(([some[0] for some in names] if single else names, found, pool.labels))
    return hashlib.sha256(content.encode()).hexdigest()[:16]


def lazy_items(split: Split) -> Sequence[Any]:
    """Return the items that a split's lazy images are made from; an empty list for images in memory."""
    return split.images.items if isinstance(split.images, LazyImages) else []


def image_names(split: Split) -> list[str]:
    """Return a name for each image: its file, or its place in the split for images that are no files."""
    items = lazy_items(split) or [None] * len(split)
    return [item if isinstance(item, str) else str(index) for index, item in enumerate(items)]


def unique_names(class_names: Sequence[str]) -> list[str]:
    """Make class names unique by adding the label to names that several classes share: "missile (657)"."""
    counts = Counter(class_names)
    return [f"{name} ({label})" if counts[name] > 1 else name for label, name in enumerate(class_names)]
