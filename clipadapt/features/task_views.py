"""Features of a task's images, for what is built or found from them: computed when they are first asked for."""

from functools import cached_property

import torch
from torch import Tensor

from clipadapt.adaptations.base import Adaptation
from clipadapt.backbone.dual_encoder import DualEncoder
from clipadapt.data.tasks import Split, Task
from clipadapt.errors import UserError
from clipadapt.features.encoder import MICRO_BATCH
from clipadapt.features.loader import FeatureLoader
from clipadapt.interfaces import LabelledFeatures
from clipadapt.model import AdaptedCLIP
from clipadapt.tasks.base import Head

VIEWS_OF_FRESH = 10
"""Random views of each support image where a task sees them anew every epoch: Tip-Adapter's."""


class LazySupportView:
    """What adaptations and objectives may know of a task.

    Args:
        clip: the frozen backbone, on its device.
        task: without test sets.
        loader: how its images are encoded.
    """

    def __init__(self, clip: DualEncoder, task: Task, loader: FeatureLoader) -> None:
        self.class_names = task.class_names
        self.templates = task.templates
        self._clip, self._task, self._loader = clip, task, loader

    @property
    def support_shape(self) -> tuple[int, int, int]:
        """Views, images and width of the support set's features."""
        return number_of_views(self._task), len(self._task.support), self._clip.width or 0

    @cached_property
    def support(self) -> LabelledFeatures:
        """The support set through the frozen image tower, `[V, N, D]`; raises UserError where it is empty."""
        self._task.check_has_images()
        plain = AdaptedCLIP(self._clip, Adaptation(self._clip, self))
        return samples(self._loader, plain, self._task.support, number_of_views(self._task), self._task.views != 0)


class LazyAdaptedFeatures:
    """Features through the adapted towers.

    Args:
        head: the adapted CLIP.
        task: without test sets.
        loader: how its images are encoded.

    Attributes:
        validated: whether the validation split has been looked at.
    """

    def __init__(self, head: Head, task: Task, loader: FeatureLoader) -> None:
        self._head, self._task, self._loader = head, task, loader
        self.scale = head.clip.scale
        self.validated = False

    @cached_property
    def support(self) -> LabelledFeatures:
        """The support set, `[V, N, D]`; raises UserError where it is empty."""
        task = self._task
        task.check_has_images()
        return samples(self._loader, self._head, task.support, number_of_views(task), task.views != 0)

    @cached_property
    def validation(self) -> LabelledFeatures:
        """The validation split, `[1, N, D]`."""
        self.validated = True
        return samples(self._loader, self._head, self._task.validation, 1, False)

    @cached_property
    def text(self) -> Tensor:
        """Class embeddings, `[C, D]`; raises UserError where they depend on the image."""
        with self._loader.processes.autocast():
            text = self._head.precompute()
        if text is None:
            raise UserError("a fit in closed form needs class embeddings, and this method's depend on the image")
        return text


def number_of_views(task: Task) -> int:
    """Views of each support image."""
    return VIEWS_OF_FRESH if task.views is None else max(1, task.views)


def samples(loader: FeatureLoader, model: AdaptedCLIP, split: Split, views: int, random: bool) -> LabelledFeatures:
    """Features, after the adaptation's edits, of views of a split's images: random ones, or the centre crop."""
    values = loader.values(model, split, views, random)
    with torch.no_grad(), loader.processes.autocast():
        features = [model.encode_image(x, model.image_cut) for x in values.flatten(0, 1).split(MICRO_BATCH)]
    labels = loader.collate(split.labels).to(values.device)
    return LabelledFeatures(torch.cat(features).unflatten(0, (views, -1)), labels)
