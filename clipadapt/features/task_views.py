"""Features of a task's images, for what is built or found from them: computed when they are first asked for."""

from functools import cached_property

import torch
from torch import Tensor

from clipadapt.backbone.open_clip import CLIP
from clipadapt.data.tasks import Split, Task
from clipadapt.features.encoder import MICRO_BATCH
from clipadapt.features.loader import FeatureLoader
from clipadapt.interfaces import LabelledFeatures
from clipadapt.model import Classifier, zero_shot_classifier

VIEWS_OF_FRESH = 10
"""Random views of each support image where a task sees them anew every epoch: Tip-Adapter's."""


class LazySupportView:
    """What adaptations and objectives may know of a task.

    Args:
        clip: the frozen backbone, on its device.
        task: without test sets.
        loader: how its images are encoded.
    """

    def __init__(self, clip: CLIP, task: Task, loader: FeatureLoader) -> None:
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
        self._task.need_images()
        plain = zero_shot_classifier(self._clip, self)
        return samples(self._loader, plain, self._task.support, number_of_views(self._task), self._task.views != 0)


class LazyAdaptedFeatures:
    """Features through the adapted towers.

    Args:
        classifier: CLIP through the adaptation.
        task: without test sets.
        loader: how its images are encoded.

    Attributes:
        validated: whether the validation split has been looked at.
    """

    def __init__(self, classifier: Classifier, task: Task, loader: FeatureLoader) -> None:
        self._classifier, self._task, self._loader = classifier, task, loader
        self.scale = classifier.clip.scale
        self.validated = False

    @cached_property
    def support(self) -> LabelledFeatures:
        """The support set, `[V, N, D]`; raises UserError where it is empty."""
        task = self._task
        task.need_images()
        return samples(self._loader, self._classifier, task.support, number_of_views(task), task.views != 0)

    @cached_property
    def validation(self) -> LabelledFeatures:
        """The validation split, `[1, N, D]`."""
        self.validated = True
        return samples(self._loader, self._classifier, self._task.validation, 1, False)

    @cached_property
    def text(self) -> Tensor:
        """Class embeddings, `[C, D]`."""
        with self._loader.processes.autocast():
            return self._classifier.class_embeddings()


def number_of_views(task: Task) -> int:
    """Views of each support image."""
    return VIEWS_OF_FRESH if task.views is None else max(1, task.views)


def samples(loader: FeatureLoader, classifier: Classifier, split: Split, views: int, random: bool) -> LabelledFeatures:
    """Features, after the adaptation's edits, of views of a split's images: random ones, or the centre crop."""
    values = loader.values(classifier, split, views, random)
    with torch.no_grad(), loader.processes.autocast():
        features = [classifier.image_features(x) for x in values.flatten(0, 1).split(MICRO_BATCH)]
    labels = torch.tensor(split.labels, device=values.device)
    return LabelledFeatures(torch.cat(features).unflatten(0, (views, -1)), labels)
