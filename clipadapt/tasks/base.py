"""The interface of a kind of task: what the answer is, how it is measured, and the head that gives it."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor

from clipadapt.adaptations.base import Adaptation
from clipadapt.backbone.dual_encoder import DualEncoder
from clipadapt.data.tasks import Task
from clipadapt.errors import UserError
from clipadapt.interfaces import SupportView
from clipadapt.model import AdaptedCLIP
from clipadapt.objectives.base import Objective, Output


class Names(Protocol):
    """The names that a head has prompts of."""

    @property
    def class_names(self) -> list[str]:
        """Names of the C classes."""


class Head(AdaptedCLIP):
    """An adapted CLIP with the layer from encoded towers to outputs.

    Attributes:
        class_names: the names that the head has prompts of; empty where it has none.
    """

    class_names: list[str]

    @property
    def text_chunks(self) -> int:
        """Number of chunks whose activations are computed again for their gradients; 1 where they are kept."""
        return 1

    def precompute(self) -> Tensor | None:
        """Return what is the same for all images at evaluation, such as class embeddings; None where nothing is."""
        return None

    def for_classes(self, class_names: Sequence[str]) -> "Head":
        """Return a head of the same adaptation for other names.

        Raises:
            UserError: this kind of task has no classes, unless overridden.
        """
        raise UserError("this kind of task has no classes that could be others")

    def output(self, x: Any, start: str = "pixels", text: Tensor | None = None) -> Output:
        """Return features and outputs of images.

        Args:
            x: images `[B, 3, height, width]`, or their activation at the image cut.
            start: "pixels", or the name of the image cut.
            text: from `precompute`; None where it is to be computed.
        """
        raise NotImplementedError


@dataclass(frozen=True)
class Measure:
    """A metric, and how its value is shown.

    Attributes:
        metric: a torchmetrics metric of answers and targets.
        title: name in tables; None for a value that is kept, but is no figure, such as a confusion matrix.
        percent: whether the value is a fraction, shown in percent.
        higher_is_better: which way is better.
    """

    metric: Any
    title: str | None = None
    percent: bool = True
    higher_is_better: bool = True


@dataclass(frozen=True)
class Evaluation:
    """The figures of one test set.

    Attributes:
        figures: values of the metrics with a title, by name.
        details: values of the other metrics.
        images: number of images.
        predicted: the answer to each of this process's images, in their order.
    """

    figures: dict[str, float]
    details: dict[str, Tensor]
    images: int
    predicted: list[Any] = field(default_factory=list)


class TaskKind(ABC):
    """A kind of task: what the targets are, the head that answers, and how answers are measured.

    Attributes:
        leads: name of the metric that stands for a result, and of the score that is logged while fitting.
    """

    leads: ClassVar[str]
    probabilities: ClassVar[bool] = False
    """Whether answers are probabilities `[B, C]` of the head's class names."""

    @abstractmethod
    def collate(self, targets: Sequence[Any]) -> Tensor:
        """Return targets of images as one tensor `[B, ...]`."""

    @abstractmethod
    def head(
        self,
        clip: DualEncoder,
        adaptation: Adaptation,
        task: Names,
        class_names: Sequence[str] | None = None,
        max_rows: int | None = None,
        activation_checkpointing: bool = False,
    ) -> Head:
        """Return the module from images to outputs.

        Args:
            clip: the frozen backbone, on its device.
            adaptation: where the network is touched.
            task: names and templates.
            class_names: names in place of the task's.
            max_rows: as of `AdaptedCLIP`.
            activation_checkpointing: as of `AdaptedCLIP`.
        """

    @abstractmethod
    def default_objective(self, clip: DualEncoder, task: SupportView) -> Objective:
        """Return the objective of methods that name none."""

    @abstractmethod
    def score(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the mean score of a batch, which is logged while fitting."""

    @abstractmethod
    def metrics(self, head: Head) -> dict[str, Measure]:
        """Return the metrics of this kind by name, the leading one first."""

    @abstractmethod
    def uncounted(self, head: Head, device: torch.device) -> tuple[Tensor, Tensor]:
        """Return answers and targets that no metric counts, for a process without images."""

    def answers(self, outputs: Tensor) -> Tensor:
        """Return what metrics and users get of a head's outputs `[B, ...]`: the same unless overridden."""
        return outputs.float()

    def predicted(self, answers: Tensor) -> Tensor:
        """Return the answer to each image `[B, ...]` as it is kept with a result: all of it unless overridden."""
        return answers

    def decode(self, answers: Tensor, head: Head) -> list[Any]:
        """Return the answer to each image in the user's terms."""
        found: list[Any] = self.predicted(answers).tolist()
        return found

    def details(self, before: Evaluation, after: Evaluation, task: Task) -> dict[str, Any]:
        """Return what a result keeps beside the figures of the first test set, of zero-shot and adapted."""
        return {}

    def check(self, adaptation: Adaptation, task: Task) -> None:
        """Check that an adaptation can serve a task's test sets; it can unless overridden."""
        return None

    @property
    def settings(self) -> dict[str, Any]:
        """The settings that build this kind again."""
        cls = type(self)
        return {"_target_": f"{cls.__module__}.{cls.__qualname__}", **vars(self)}

    def draw(self, indices: Sequence[int], targets: Sequence[Any], shots: int, stream: Random) -> list[int]:
        """Draw `shots` of the indices, unless overridden; all where there are fewer."""
        return stream.sample(list(indices), shots) if len(indices) >= shots else list(indices)

    def remarks(self, task: Task) -> list[str]:
        """Return remarks on a task that was drawn; none unless overridden."""
        return []
