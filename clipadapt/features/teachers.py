"""Teacher features of the student's views: the same crops, encoded by an objective's frozen teachers."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from clipadapt.adaptations.base import Adaptation
from clipadapt.backbone.dual_encoder import DualEncoder
from clipadapt.data.tasks import Task
from clipadapt.data.transforms import transform_for
from clipadapt.features.batch_sources import AugmentedImages, BatchIterator, BatchSource, IndexBatches, on_device
from clipadapt.features.encoder import AugmentedDataset, Item
from clipadapt.features.loader import FeatureLoader
from clipadapt.features.task_views import LazySupportView
from clipadapt.model import AdaptedCLIP


@dataclass(frozen=True)
class WithTeacherFeatures:
    """Batch source with a fixed number of views, and the cached teacher features of the same views.

    Attributes:
        source: the batch source.
        features: each teacher's features of all views of all images, `[views, N, D]`.
    """

    source: BatchSource
    features: Sequence[Tensor]

    @property
    def start(self) -> str:
        """Return the point of the image tower at which the activations enter."""
        return self.source.start

    def iterate(self, batches: IndexBatches, epoch: int) -> BatchIterator:
        """Yield activations, labels and each teacher's features `[B, D]` of batches of images."""
        teacher_features = [features[epoch % len(features)] for features in self.features]
        student = self.source.iterate(batches, epoch)
        for (x, labels, *_), indices in zip(student, on_device(batches, teacher_features[0].device), strict=True):
            yield x, labels, *(features[indices] for features in teacher_features)


@dataclass(frozen=True)
class OnlineTeacher:
    """Teacher that encodes views which are new every epoch.

    Attributes:
        model: the teacher.
        views: augmented dataset with the teacher's image size and normalisation.
        autocast: the context of the run's forward passes.
    """

    model: AdaptedCLIP
    views: AugmentedDataset
    autocast: Callable[[], AbstractContextManager[Any]]

    def __call__(self, read: Sequence[Tensor], items: Sequence[Item]) -> Tensor:
        """Encode these views, given their images from `AugmentedDataset.read`; return features `[B, D]`."""
        clip = self.model.clip
        with self.autocast():
            return self.model.prefix(self.views.pixels(read, items, clip.device).to(clip.dtype))


def with_teacher_features(
    source: BatchSource, teachers: Sequence[DualEncoder], task: Task, loader: FeatureLoader
) -> BatchSource:
    """Add the teachers' features of the same views to a support set's batch source; unchanged without teachers.

    Views are drawn by a seed, of the task or of the image's content. So a teacher gets the same crops as the student,
    at its own image size and with its own normalisation.

    Args:
        source: batch source of the support set.
        teachers: frozen backbones, on the device.
        task: the task of the support set.
        loader: loads the features.
    """
    if not teachers:
        return source
    plain = [teacher_encoder(teacher, task, loader) for teacher in teachers]
    if isinstance(source, AugmentedImages) and source.cycle is None:
        datasets = [
            AugmentedDataset(task.support, transform_for(one.clip, task.augmentation), source.views.seed)
            for one in plain
        ]
        encoders = [
            OnlineTeacher(one, views, loader.processes.autocast) for one, views in zip(plain, datasets, strict=True)
        ]
        return replace(source, teacher_encoders=encoders)
    count = max(1, task.views or 0)
    return WithTeacherFeatures(source, [loader.values(one, task.support, count, task.augmentation) for one in plain])


def teacher_encoder(teacher: DualEncoder, task: Task, loader: FeatureLoader) -> AdaptedCLIP:
    """Return a teacher's frozen towers, without an adaptation."""
    known = LazySupportView(teacher, task.without_tests(), loader)
    return AdaptedCLIP(teacher, Adaptation(teacher, known))
