"""Base classes of a kind of task: its targets, its head, and its metrics."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any, ClassVar

import torch
from torch import Tensor

from clipadapt.adaptations.base import Adaptation
from clipadapt.backbone.dual_encoder import DualEncoder
from clipadapt.data.tasks import Task
from clipadapt.errors import UserError
from clipadapt.interfaces import SupportView
from clipadapt.model import AdaptedCLIP
from clipadapt.objectives.base import Objective, Output

NO_LABEL = -1
"""A target that all metrics ignore."""


ClassNames = Sequence[str] | Mapping[str, str | Sequence[str]]
"""Names of classes; or, by class, its name or its several names for CLIP."""


class Head(AdaptedCLIP):
    """An adapted CLIP with a layer that computes outputs from the towers' features.

    Attributes:
        class_names: the class names that the head has prompts for; empty if it has no prompts.
    """

    class_names: list[str]

    @property
    def words(self) -> Mapping[str, Sequence[str]]:
        """Names for CLIP of each class that has others than its own."""
        return self.adaptation.class_words

    @property
    def text_chunks(self) -> int:
        """Number of text chunks under activation checkpointing; 1 without checkpointing."""
        return 1

    def precompute(self) -> Tensor | None:
        """Return a tensor that is the same for all images at evaluation, such as class embeddings, or None."""
        return None

    def for_classes(self, class_names: ClassNames) -> "Head":
        """Return a head with the same adaptation for other class names.

        Raises:
            UserError: this kind of task has no classes; always unless overridden.
        """
        raise UserError("this kind of task has no classes that could be others")

    def output(self, x: Any, start: str = "pixels", text: Tensor | None = None) -> Output:
        """Compute features and outputs of images.

        Args:
            x: images `[B, 3, height, width]`, or their activations at the image cut.
            start: "pixels", or the name of the image cut.
            text: the result of `precompute`; computed if None.
        """
        raise NotImplementedError


@dataclass(frozen=True)
class Measure:
    """A metric and its presentation.

    Attributes:
        metric: a torchmetrics metric, computed from answers and targets.
        title: name in tables; None for values that are saved but not shown, such as a confusion matrix.
        percent: whether the value is a fraction that is shown in percent.
        higher_is_better: whether higher values are better.
    """

    metric: Any
    title: str | None = None
    percent: bool = True
    higher_is_better: bool = True


@dataclass(frozen=True)
class Evaluation:
    """The evaluation of one test set.

    Attributes:
        figures: values of the metrics with a title, by name.
        details: values of the metrics without a title, by name.
        images: number of images.
        predicted: the prediction for each of this process's images, in their order.
        ranked: the most probable classes of each image, with probabilities; empty if the kind of task has none.
        scores: of each image, for `KnownScores`; empty if the kind of task has none.
        answers: probabilities and targets of this process's batches, on the CPU; empty if the kind of task has no
            probabilities.
    """

    figures: dict[str, float]
    details: dict[str, Tensor]
    images: int
    predicted: list[Any] = field(default_factory=list)
    ranked: list[Any] = field(default_factory=list)
    scores: list[Any] = field(default_factory=list)
    answers: list[tuple[Tensor, Tensor]] = field(default_factory=list)


class TaskKind(ABC):
    """A kind of task, which defines the targets, the head, the default objective and the metrics.

    Attributes:
        leads: name of the primary metric, and of the score that is logged during training.
    """

    leads: ClassVar[str]
    probabilities: ClassVar[bool] = False
    """Whether answers are probabilities `[B, C]` of the head's class names."""
    calibration: ClassVar[Sequence[str]] = ()
    """Metrics of probabilities, which change with their temperature."""

    @abstractmethod
    def collate(self, targets: Sequence[Any]) -> Tensor:
        """Return the targets of a batch as one tensor `[B, ...]`."""

    @abstractmethod
    def head(
        self,
        clip: DualEncoder,
        adaptation: Adaptation,
        class_names: ClassNames,
        max_rows: int | None = None,
        activation_checkpointing: bool = False,
    ) -> Head:
        """Return the head, which computes outputs of images.

        Args:
            clip: the frozen backbone, on its device.
            adaptation: the adaptation to apply, on the same device.
            class_names: the task's class names; by class, if its names for CLIP are others than the task's.
            max_rows: as for `AdaptedCLIP`.
            activation_checkpointing: as for `AdaptedCLIP`.
        """

    @abstractmethod
    def default_objective(self, clip: DualEncoder, task: SupportView) -> Objective:
        """Return the objective for methods that don't specify one."""

    @abstractmethod
    def score(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the mean score of a batch, which is logged during training."""

    @abstractmethod
    def metrics(self, head: Head) -> dict[str, Measure]:
        """Return the metrics of this kind of task by name, the primary metric first."""

    @abstractmethod
    def uncounted(self, head: Head, device: torch.device) -> tuple[Tensor, Tensor]:
        """Return answers and targets that all metrics ignore, for a process without images."""

    def answers(self, outputs: Tensor) -> Tensor:
        """Return the answers for metrics and users, given a head's outputs `[B, ...]`; the same unless overridden."""
        return outputs.float()

    def predicted(self, answers: Tensor) -> Tensor:
        """Return the predictions `[B, ...]` that are saved with a result; the answers unless overridden."""
        return answers

    def ranked(self, answers: Tensor) -> Tensor | None:
        """Return the most probable classes of each image and their probabilities, `[B, K, 2]`; None by default."""
        return None

    def scores(self, answers: Tensor, targets: Tensor, head: Head) -> Tensor | None:
        """Return for each image what `KnownScores` has of it, `[B, 2]`; None by default."""
        return None

    def leading_figure(self, targets: Sequence[Any]) -> str:
        """Return which figure of a test set with these targets is shown first; the primary metric by default."""
        return self.leads

    def decode(self, answers: Tensor, head: Head) -> list[Any]:
        """Return the prediction for each image in a form for users, such as a class name."""
        found: list[Any] = self.predicted(answers).tolist()
        return found

    def details(self, before: Evaluation, after: Evaluation, task: Task) -> dict[str, Any]:
        """Return details of the first test set to save with a result; none unless overridden.

        Args:
            before: the zero-shot evaluation.
            after: the adapted model's evaluation.
            task: the task.
        """
        return {}

    def check(self, adaptation: Adaptation, task: Task) -> None:
        """Check that an adaptation can classify a task's test sets; no check unless overridden."""
        return None

    @property
    def settings(self) -> dict[str, Any]:
        """The configuration node that instantiates this kind of task."""
        cls = type(self)
        return {"_target_": f"{cls.__module__}.{cls.__qualname__}", **vars(self)}

    def draw(self, indices: Sequence[int], targets: Sequence[Any], shots: int, stream: Random) -> list[int]:
        """Draw `shots` of the indices at random, or return all if there are fewer; targets are ignored by default."""
        return stream.sample(list(indices), shots) if len(indices) >= shots else list(indices)

    def remarks(self, task: Task) -> list[str]:
        """Return remarks for the user on a task after few-shot sampling; none unless overridden."""
        return []


def finite(outputs: Tensor) -> Tensor:
    """Return a model's outputs after a check that they are finite; minus infinity may say that a class is ruled out.

    Raises:
        UserError: they aren't, or all classes are ruled out.
    """
    check_finite(not_finite(outputs))
    return outputs


def not_finite(outputs: Tensor) -> Tensor:
    """Return whether outputs aren't what `finite` asks for, as a tensor on their device, which nobody waits for."""
    return outputs.isnan().any() | outputs.isposinf().any() | outputs.isneginf().all(dim=-1).any()


def check_finite(odd: Tensor) -> None:
    """Check that `not_finite` has found no odd outputs; raises UserError."""
    if odd:
        raise UserError(
            "the answers aren't finite numbers, since what was learned or a setting has values beyond all measure: set "
            "what you changed nearer to its default and fit it again, or get it again from whoever made it"
        )
