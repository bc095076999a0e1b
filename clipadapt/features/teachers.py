"""Features by an objective's frozen teachers, of the student's views or of other views of the same images."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from clipadapt.adaptations.base import Adaptation
from clipadapt.backbone.dual_encoder import DualEncoder
from clipadapt.data.seeds import hash_seed
from clipadapt.data.tasks import Task
from clipadapt.data.transforms import transform_for
from clipadapt.features.batch_sources import AugmentedImages, BatchIterator, BatchSource, IndexBatches, on_device
from clipadapt.features.encoder import AugmentedDataset, Item
from clipadapt.features.loader import FeatureLoader
from clipadapt.features.task_views import LazySupportView
from clipadapt.model import AdaptedCLIP

OTHER_VIEWS = 1
"""Number that is hashed with the task's seed for views that only teachers see."""


@dataclass(frozen=True)
class WithTeacherFeatures:
    """Batch source with a fixed number of views, and the cached teacher features, of the same or other views.

    Attributes:
        source: the batch source.
        features: each teacher's features of as many views of all images, `[views, N, D]`.
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
    source: BatchSource, teachers: Sequence[DualEncoder], task: Task, loader: FeatureLoader, other_views: bool = False
) -> BatchSource:
    """Add the teachers' features of the same views, or of others, to a batch source; unchanged without teachers.

    Views are drawn by a seed, of the task or of the image's content. So a teacher gets the same crops as the student,
    at its own image size and with its own normalisation; other views have another seed, or are as many further ones.

    Args:
        source: batch source of the support set.
        teachers: frozen backbones, on the device.
        task: the task of the support set.
        loader: loads the features.
        other_views: whether the teachers get other views than the student; without random crops there are no others.
    """
    if not teachers:
        return source
    plain = [teacher_encoder(teacher, task, loader) for teacher in teachers]
    if isinstance(source, AugmentedImages) and source.cycle is None:
        seed = hash_seed(task.seed, OTHER_VIEWS) if other_views else source.views.seed
        datasets = [AugmentedDataset(task.support, transform_for(one.clip, task.augmentation), seed) for one in plain]
        encoders = [
            OnlineTeacher(one, views, loader.processes.autocast) for one, views in zip(plain, datasets, strict=True)
        ]
        return replace(source, teacher_encoders=encoders)
    count = max(1, task.views or 0)
    views = 2 * count if other_views else count
    kept = [loader.values(one, task.support, views, task.augmentation) for one in plain]
    return WithTeacherFeatures(source, [values[-count:] for values in kept])


def teacher_encoder(teacher: DualEncoder, task: Task, loader: FeatureLoader) -> AdaptedCLIP:
    """Return a teacher's frozen towers, without an adaptation."""
    known = LazySupportView(teacher, task.without_tests(), loader)
    return AdaptedCLIP(teacher, Adaptation(teacher, known))
