"""What other frozen backbones, an objective's teachers, see in the very views that a fit learns from."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from clipadapt.adaptations.base import Adaptation
from clipadapt.backbone.clip import CLIP
from clipadapt.classifier import Classifier
from clipadapt.data.tasks import Task
from clipadapt.data.transforms import RandomCrops
from clipadapt.engine.activations import Item, Views
from clipadapt.engine.feeds import Batches, Fed, Feed, Fresh, on_device
from clipadapt.engine.keeping import Keeping
from clipadapt.engine.known import KnownTask


@dataclass(frozen=True)
class Taught:
    """Views of a feed that go round, with what teachers see in them.

    Attributes:
        source: the feed.
        features: of every view of every image, `[views, N, D]` of each teacher.
    """

    source: Feed
    features: Sequence[Tensor]

    @property
    def start(self) -> str:
        """The point of the image tower at which they come."""
        return self.source.start

    def feed(self, batches: Batches, epoch: int) -> Fed:
        """Activations, labels and each teacher's features `[B, D]` of batches of images."""
        views = [kept[epoch % len(kept)] for kept in self.features]
        fed = self.source.feed(batches, epoch)
        for (x, labels, *_), indices in zip(fed, on_device(batches, views[0].device), strict=True):
            yield x, labels, *(kept[indices] for kept in views)


@dataclass(frozen=True)
class Onlooker:
    """What a teacher sees in views that are new every epoch.

    Attributes:
        classifier: the teacher.
        views: how it sees them.
        autocast: the context of the run's forward passes.
    """

    classifier: Classifier
    views: Views
    autocast: Callable[[], AbstractContextManager[Any]]

    def __call__(self, read: Sequence[Tensor], items: Sequence[Item]) -> Tensor:
        """Features `[B, D]` of these views, given what was read of their images."""
        clip = self.classifier.clip
        with self.autocast():
            return self.classifier.prefix(self.views.pixels(read, items, clip.device).to(clip.dtype))


def taught(source: Feed, teachers: Sequence[CLIP], task: Task, keeping: Keeping) -> Feed:
    """A feed of a support set with the teachers' features of the same views; as it is where there are no teachers.

    Views follow from seeds, of the task or of what an image shows: a teacher that makes them by its own size and
    normalisation sees the same crops.

    Args:
        source: of the support set.
        teachers: frozen backbones, on the device.
        task: whose support set it is.
        keeping: how images are encoded.
    """
    if not teachers:
        return source
    plain = [eyes(teacher, task, keeping) for teacher in teachers]
    if isinstance(source, Fresh) and source.cycle is None:
        seen = [(one, Views(task.support, RandomCrops(one.clip.preprocess), source.views.seed)) for one in plain]
        return replace(source, onlookers=[Onlooker(one, views, keeping.accelerator.autocast) for one, views in seen])
    count = max(1, task.views or 0)
    return Taught(source, [keeping.values(one, task.support, count, task.views != 0) for one in plain])


def eyes(teacher: CLIP, task: Task, keeping: Keeping) -> Classifier:
    """A teacher for the sake of its image features: one class name will do."""
    known = KnownTask(teacher, task.without_tests(), keeping)
    return Classifier(teacher, Adaptation(teacher, known), task.class_names[:1])
