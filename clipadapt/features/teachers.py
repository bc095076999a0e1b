"""What other frozen backbones, an objective's teachers, see in the very views that a fit learns from."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from clipadapt.adaptations.base import Adaptation
from clipadapt.backbone.dual_encoder import DualEncoder
from clipadapt.data.tasks import Task
from clipadapt.data.transforms import RandomCrops
from clipadapt.features.batch_sources import AugmentedImages, BatchIterator, BatchSource, IndexBatches, on_device
from clipadapt.features.encoder import AugmentedDataset, Item
from clipadapt.features.loader import FeatureLoader
from clipadapt.features.task_views import LazySupportView
from clipadapt.model import AdaptedCLIP


@dataclass(frozen=True)
class WithTeacherFeatures:
    """Views of a feed that go round, with what teachers see in them.

    Attributes:
        source: the feed.
        features: of every view of every image, `[views, N, D]` of each teacher.
    """

    source: BatchSource
    features: Sequence[Tensor]

    @property
    def start(self) -> str:
        """The point of the image tower at which they come."""
        return self.source.start

    def iterate(self, batches: IndexBatches, epoch: int) -> BatchIterator:
        """Activations, labels and each teacher's features `[B, D]` of batches of images."""
        views = [kept[epoch % len(kept)] for kept in self.features]
        fed = self.source.iterate(batches, epoch)
        for (x, labels, *_), indices in zip(fed, on_device(batches, views[0].device), strict=True):
            yield x, labels, *(kept[indices] for kept in views)


@dataclass(frozen=True)
class OnlineTeacher:
    """What a teacher sees in views that are new every epoch.

    Attributes:
        model: the teacher.
        views: how it sees them.
        autocast: the context of the run's forward passes.
    """

    model: AdaptedCLIP
    views: AugmentedDataset
    autocast: Callable[[], AbstractContextManager[Any]]

    def __call__(self, read: Sequence[Tensor], items: Sequence[Item]) -> Tensor:
        """Features `[B, D]` of these views, given what was read of their images."""
        clip = self.model.clip
        with self.autocast():
            return self.model.prefix(self.views.pixels(read, items, clip.device).to(clip.dtype))


def with_teacher_features(
    source: BatchSource, teachers: Sequence[DualEncoder], task: Task, loader: FeatureLoader
) -> BatchSource:
    """A feed of a support set with the teachers' features of the same views; as it is where there are no teachers.

    Views follow from seeds, of the task or of what an image shows: a teacher that makes them by its own size and
    normalisation sees the same crops.

    Args:
        source: of the support set.
        teachers: frozen backbones, on the device.
        task: whose support set it is.
        loader: how images are encoded.
    """
    if not teachers:
        return source
    plain = [teacher_encoder(teacher, task, loader) for teacher in teachers]
    if isinstance(source, AugmentedImages) and source.cycle is None:
        seen = [
            (one, AugmentedDataset(task.support, RandomCrops(one.clip.preprocess), source.views.seed)) for one in plain
        ]
        return replace(
            source, teacher_encoders=[OnlineTeacher(one, views, loader.processes.autocast) for one, views in seen]
        )
    count = max(1, task.views or 0)
    return WithTeacherFeatures(source, [loader.values(one, task.support, count, task.views != 0) for one in plain])


def teacher_encoder(teacher: DualEncoder, task: Task, loader: FeatureLoader) -> AdaptedCLIP:
    """Return a teacher's towers as they are."""
    known = LazySupportView(teacher, task.without_tests(), loader)
    return AdaptedCLIP(teacher, Adaptation(teacher, known))
