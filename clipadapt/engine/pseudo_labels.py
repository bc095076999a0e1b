"""Pseudo-labels by zero-shot CLIP, and the choice of the images to train on."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch

from clipadapt.backbone.dual_encoder import DualEncoder
from clipadapt.data.few_shot import short_classes
from clipadapt.data.tasks import Split, Task
from clipadapt.errors import UserError
from clipadapt.features.loader import FeatureLoader
from clipadapt.features.task_views import LazySupportView
from clipadapt.tasks import Classification, task_kind, zero_shot_classifier

Choice = Literal["confident", "all"]
AT_ONCE = 4096
"""Images whose probabilities are computed in one batch."""


@dataclass(frozen=True)
class PseudoLabels:
    """Pseudo-labels of a run's support set.

    Attributes:
        choice: "confident": of each class, the images with zero-shot CLIP's highest probabilities; "all": every image.
        labels: class indices of the support set's images.
        confidences: zero-shot CLIP's probability of each label.
        right: share of the labels that equal the data's own; None if the data have no labels.
    """

    choice: Choice
    labels: list[int]
    confidences: list[float]
    right: float | None


def pseudo_labelled(
    clip: DualEncoder, task: Task, loader: FeatureLoader, choice: Choice | None
) -> tuple[Task, PseudoLabels | None]:
    """Label a task's images by zero-shot CLIP (UPL: Huang, Chu & Wei, 2022, arXiv:2204.03649).

    An image's label is its most probable class by the task's templates. The support set is, of each class, the `shots`
    images of highest probability, and there is no validation split. The task's own labels are used only to report the
    accuracy of the pseudo-labels.

    Args:
        clip: the frozen backbone, on its device.
        task: the task, with labels or without.
        loader: loads the features.
        choice: which images make the support set; if None, a labelled task keeps its labels, and an unlabelled one
            gets "confident".

    Raises:
        UserError: there are no images to label.
    """
    if choice is None and task.labelled:
        return task, None
    if not isinstance(task_kind(task), Classification):
        raise UserError("zero-shot labels are class labels: this kind of task needs labels of its own")
    task.check_has_images()
    choice = choice or "confident"
    pool, numbers = (task.support, task.support_indices) if task.pool is None else (task.pool, task.pool_indices)
    labels, confidences = zero_shot(clip, task, pool, loader)
    taken = most_confident(labels, confidences, task.shots) if choice == "confident" else list(range(len(pool)))
    support = Split(pool.select(taken).images, [labels[place] for place in taken])
    right = sum(pool.labels[place] == labels[place] for place in taken) / len(taken) if task.labelled else None
    guessed = replace(
        task,
        support=support,
        support_indices=[numbers[place] for place in taken],
        validation=Split([], []),
        validation_indices=[],
    )
    if choice == "confident" and (remarks := short_classes(guessed)):
        warnings.warn(f"{task.name}, by zero-shot CLIP: {'; '.join(remarks)}", UserWarning, stacklevel=2)
    return guessed, PseudoLabels(choice, support.labels, [confidences[place] for place in taken], right)


def zero_shot(clip: DualEncoder, task: Task, images: Split, loader: FeatureLoader) -> tuple[list[int], list[float]]:
    """Return the most probable class of each image's centre crop, and its probability."""
    known = LazySupportView(clip, task.without_tests(), loader)
    plain = zero_shot_classifier(clip, known)
    with torch.no_grad(), loader.processes.autocast():
        text = plain.class_embeddings()
        features = loader.values(plain, images, 1, "none")[0]
        found = [plain.logits(some, text).softmax(dim=-1).max(dim=-1) for some in features.split(AT_ONCE)]
    labels = [label for most in found for label in most.indices.tolist()]
    return labels, [confidence for most in found for confidence in most.values.tolist()]


def most_confident(labels: Sequence[int], confidences: Sequence[float], shots: int) -> list[int]:
    """Return the positions of the `shots` most confident images of each class, by class, most confident first."""
    chosen: dict[int, list[int]] = {}
    for place in sorted(range(len(labels)), key=lambda place: -confidences[place]):
        of_class = chosen.setdefault(labels[place], [])
        if len(of_class) < shots:
            of_class.append(place)
    return [place for label in sorted(chosen) for place in chosen[label]]
