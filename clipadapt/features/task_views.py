"""Lazy features of a task's images, for adaptations and objectives: computed at the first access."""

from functools import cached_property

import torch
from torch import Tensor

from clipadapt.adaptations.base import Adaptation
from clipadapt.backbone.dual_encoder import DualEncoder
from clipadapt.data.tasks import Augment, Split, Task
from clipadapt.errors import UserError
from clipadapt.features.encoder import MICRO_BATCH
from clipadapt.features.loader import FeatureLoader
from clipadapt.interfaces import LabelledFeatures
from clipadapt.model import AdaptedCLIP
from clipadapt.tasks.base import Head

VIEWS_OF_FRESH = 10
"""Random views of each support image if a task has fresh views every epoch; Tip-Adapter's number."""


class LazySupportView:
    """View of a task for adaptations and objectives: classes, templates and frozen support features, no test data.

    Args:
        clip: the frozen backbone, on its device.
        task: the task, without test sets.
        loader: loads the features.
    """

    def __init__(self, clip: DualEncoder, task: Task, loader: FeatureLoader) -> None:
        self.class_names = task.class_names
        self.words = task.words
        self.templates = task.templates
        self._clip, self._task, self._loader = clip, task, loader

    @property
    def support_shape(self) -> tuple[int, int, int]:
        """Return the shape of the support set's features: views V, images N and width D."""
        return number_of_views(self._task), len(self._task.support), self._clip.width or 0

    @property
    def used(self) -> bool:
        """Return whether anything has been computed from the support set."""
        return "support" in vars(self)

    @cached_property
    def support(self) -> LabelledFeatures:
        """Return the support set's frozen features, `[V, N, D]`, and labels.

        Raises:
            UserError: the support set is empty.
        """
        self._task.check_has_images()
        plain = AdaptedCLIP(self._clip, Adaptation(self._clip, self))
        return samples(self._loader, plain, self._task.support, number_of_views(self._task), self._task.augmentation)


class LazyAdaptedFeatures:
    """Features through the adapted towers, for fits in closed form.

    Args:
        head: the adapted CLIP.
        task: the task, without test sets.
        loader: loads the features.

    Attributes:
        validated: whether the validation split has been used.
    """

    def __init__(self, head: Head, task: Task, loader: FeatureLoader) -> None:
        self._head, self._task, self._loader = head, task, loader
        self.scale = head.clip.scale
        self.validated = False

    @cached_property
    def support(self) -> LabelledFeatures:
        """Return the support set's adapted features, `[V, N, D]`, and labels.

        Raises:
            UserError: the support set is empty.
        """
        task = self._task
        task.check_has_images()
        return samples(self._loader, self._head, task.support, number_of_views(task), task.augmentation)

    @cached_property
    def validation(self) -> LabelledFeatures:
        """Return the validation split's adapted features, `[1, N, D]`, and labels."""
        self.validated = True
        return samples(self._loader, self._head, self._task.validation, 1, "none")

    @cached_property
    def text(self) -> Tensor:
        """Return the class embeddings, `[C, D]`.

        Raises:
            UserError: the class embeddings depend on the image.
        """
        with self._loader.processes.autocast():
            text = self._head.precompute()
        if text is None:
            raise UserError("a fit in closed form needs class embeddings, and this method's depend on the image")
        return text


def number_of_views(task: Task) -> int:
    """Return the number of views of each support image."""
    return VIEWS_OF_FRESH if task.views is None else max(1, task.views)


def samples(loader: FeatureLoader, model: AdaptedCLIP, split: Split, views: int, augment: Augment) -> LabelledFeatures:
    """Encode views of a split's images through the adapted tower."""
    values = loader.values(model, split, views, augment)
    with torch.no_grad(), loader.processes.autocast():
        features = [model.encode_image(x, model.image_cut) for x in values.flatten(0, 1).split(MICRO_BATCH)]
    labels = loader.collate(split.labels).to(values.device)
    weights = None if split.weights is None else torch.tensor(split.weights, device=values.device)
    return LabelledFeatures(torch.cat(features).unflatten(0, (views, -1)), labels, weights)
