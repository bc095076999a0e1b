"""Single-label classification with class embeddings."""

import math
import reprlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, ClassVar

import torch
from torch import Tensor

from clipadapt.adaptations.base import Adaptation
from clipadapt.backbone.dual_encoder import DualEncoder
from clipadapt.backbone.prompts import Prompts
from clipadapt.data.class_words import check_distinct, check_shown, other_words, read_words
from clipadapt.data.few_shot import ByClass
from clipadapt.data.tasks import Task, unique_names
from clipadapt.errors import UserError
from clipadapt.interfaces import SupportView
from clipadapt.objectives.base import Objective, Output
from clipadapt.objectives.supervised import CrossEntropy
from clipadapt.tasks.base import NO_LABEL, ClassNames, Evaluation, Head, Measure, TaskKind
from clipadapt.tasks.confusion import class_figures, intervals
from clipadapt.tasks.uncertainty import concept_matching

CALIBRATION_BINS = 15
TOP = 5
UNEQUAL = 2
"""Times as many test images of one class as of another, above which balanced accuracy leads."""


def check_classes(adaptation: Adaptation, class_names: ClassNames) -> None:
    """Check that an adaptation can classify the given classes.

    Raises:
        UserError: the class names are no list or table of texts, or the learned tensors are class-specific and
            `class_names` contains other classes.
    """
    listed = [] if isinstance(class_names, str) or not isinstance(class_names, Iterable) else list(class_names)
    if not listed or not all(isinstance(name, str) and name.strip() for name in listed):
        given = reprlib.repr(class_names)
        raise UserError(f"class names must be a list of texts, as in ['cat', 'dog'], and {given} is not")
    check_shown(listed)
    fixed, serves_unseen = adaptation.capabilities.fixed_classes, adaptation.capabilities.serves_unseen
    if fixed is not None and not serves_unseen and not {*class_names} <= {*fixed}:
        raise UserError(
            "this method learns something for each of its classes, which can't serve others: for new classes take one "
            "that learns a shared context, prompt tokens, a residual on image features, or weights of the towers"
        )


class Classifier(Head):
    """A classifier, which computes logits over class names.

    Args:
        clip: the frozen backbone, on its device.
        adaptation: the adaptation to apply, on the same device.
        class_names: the C classes; or, by class, its name or a list of its names for CLIP. Without these, a class has
            the names that the task gives it, or else its own. If the learned tensors are class-specific, a subset of
            their classes in any order: logits are computed for all classes and then selected, as ImageNet classifiers
            are tested on ImageNet-A and ImageNet-R (Hendrycks et al., CVPR 2021, arXiv:1907.07174, section 3). Of
            several classes with the same name, the first is selected.
        max_rows: as for `AdaptedCLIP`.
        activation_checkpointing: as for `AdaptedCLIP`.

    Attributes:
        class_names: names of the C classes.
        name_counts: how many names for CLIP each class has.
        unseen: whether some of the classes aren't the task's.
        text_start: activations of the prompts of all names at the text cut.

    Raises:
        UserError: a prompt is too long, a tower lacks a point, or the learned tensors belong to other classes.
    """

    def __init__(
        self,
        clip: DualEncoder,
        adaptation: Adaptation,
        class_names: ClassNames,
        max_rows: int | None = None,
        activation_checkpointing: bool = False,
    ) -> None:
        check_classes(adaptation, class_names)
        super().__init__(clip, adaptation, max_rows, activation_checkpointing)
        self.class_names = list(class_names)
        own = read_words(class_names) if isinstance(class_names, Mapping) else {}
        self._words = other_words({**adaptation.class_words, **own})
        self.unseen = not adaptation.task_classes.issuperset(self.class_names)
        fixed = None if self.unseen else adaptation.capabilities.fixed_classes
        computed = list(fixed or class_names)
        self.places = None if computed == self.class_names else [computed.index(name) for name in class_names]
        if own:
            check_distinct(computed, self._words)
        names = adaptation.find_names(computed, self._words)
        self.name_counts = [len(some) for some in names]
        each = [*chain.from_iterable(names)]
        self.text_start = self.prepare_text(adaptation.prompts(each), adaptation.reference_features(clip, each))

    @property
    def words(self) -> Mapping[str, Sequence[str]]:
        """Names for CLIP of each class that has others than its own."""
        return self._words

    @property
    def text_chunks(self) -> int:
        """Number of text chunks under activation checkpointing; 1 without checkpointing."""
        prompts = self.text_start
        return sum(map(len, prompts.chunks)) if isinstance(prompts, Prompts) and prompts.activation_checkpointing else 1

    def for_classes(self, class_names: ClassNames) -> "Classifier":
        """Return a classifier for other class names that shares the adaptation and its tensors."""
        return Classifier(self.clip, self.adaptation, class_names, self.max_rows, self.activation_checkpointing)

    def text_features(self, image: Tensor | None = None) -> Tensor:
        """Return text features `[..., C, templates, D]` of the classes' prompts; arguments as for `encode_text`.

        Of classes with several names, the prompts are averaged: `[..., C, 1, D]`.
        """
        return self.adaptation.merge_names(self.encode_text(self.text_start, image), self.name_counts)

    def class_embeddings(self, image: Tensor | None = None) -> Tensor:
        """Return class embeddings `[C, D]`; or `[B, C, D]` conditional on image features `[B, D]`."""
        embeddings = self.adaptation.class_embeddings(self.text_features(image))
        return self.adaptation.known_embeddings(embeddings, self.class_names)

    def precompute(self) -> Tensor | None:
        """Return the class embeddings `[C, D]`; None if they depend on the image."""
        return None if self.adaptation.capabilities.conditional else self.class_embeddings()

    def output(self, x: Any, start: str = "pixels", text: Tensor | None = None) -> Output:
        """Compute image features, class embeddings and logits.

        Args:
            x: images `[B, 3, height, width]`, or their activations at the image cut.
            start: "pixels", or the name of the image cut.
            text: precomputed class embeddings; computed if None.
        """
        at_cut = self.prefix(x) if start != self.image_cut else x
        image = self.encode_image(at_cut, self.image_cut)
        if text is None:
            text = self.class_embeddings(image if self.adaptation.capabilities.conditional else None)
        embeddings = text
        return Output(
            self.logits(image, text),
            image,
            text,
            frozen=lambda: self.frozen_features(at_cut),
            classify=lambda features: self.logits(self.edited_features(features), embeddings),
            heads=lambda: self.heads(image, embeddings),
            text_logits=lambda: self.text_logits(embeddings),
        )

    def logits(self, image: Tensor, text: Tensor) -> Tensor:
        """Return logits `[B, C]` of image features and class embeddings, in float32."""
        compute = self.adaptation.logits_of_unseen if self.unseen else self.adaptation.logits
        with torch.autocast(image.device.type, enabled=False):
            logits = compute(image.float(), text.float(), self.clip.scale)
        return logits if self.places is None else logits[..., self.places]

    def heads(self, image: Tensor, text: Tensor) -> list[tuple[float, Tensor]]:
        """Return the weight of each head and its logits `[B, C]`; arguments as for `logits`."""
        with torch.autocast(image.device.type, enabled=False):
            found = self.adaptation.heads(image.float(), text.float(), self.clip.scale)
        return [(weight, logits if self.places is None else logits[..., self.places]) for weight, logits in found]

    def text_logits(self, text: Tensor) -> Tensor | None:
        """Return logits `[..., C, C]` of class embeddings as samples; None if the adaptation has none."""
        with torch.autocast(text.device.type, enabled=False):
            return self.adaptation.text_logits(text.float())

    def forward(self, x: Any, start: str = "pixels") -> Tensor:
        """Return logits `[B, C]` of images `[B, 3, height, width]`, or of their activations at the cut `start`."""
        return self.output(x, start).logits


def zero_shot_classifier(clip: DualEncoder, task: SupportView, class_names: Sequence[str] | None = None) -> Classifier:
    """Return a zero-shot classifier with the task's templates.

    Args:
        clip: the frozen backbone.
        task: class names and templates.
        class_names: class names to use instead of the task's.
    """
    return Classifier(clip, Adaptation(clip, task), task.class_names if class_names is None else class_names)


@dataclass(frozen=True)
class Classification(ByClass, TaskKind):
    """Single-label classification: targets are class indices, outputs are logits, the primary metric is accuracy."""

    leads: ClassVar[str] = "accuracy"
    probabilities: ClassVar[bool] = True
    calibration: ClassVar[Sequence[str]] = ("negative_log_likelihood", "brier_score", "calibration_error")

    def collate(self, targets: Sequence[int]) -> Tensor:
        """Return class indices as a tensor `[B]`."""
        return torch.tensor(targets)

    def head(
        self,
        clip: DualEncoder,
        adaptation: Adaptation,
        class_names: ClassNames,
        max_rows: int | None = None,
        activation_checkpointing: bool = False,
    ) -> Classifier:
        """Return a classifier; arguments as for `TaskKind.head`."""
        return Classifier(clip, adaptation, class_names, max_rows, activation_checkpointing)

    def default_objective(self, clip: DualEncoder, task: SupportView) -> Objective:
        """Return the cross entropy objective."""
        return CrossEntropy(clip, task)

    def score(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the accuracy of logits `[B, C]` against class indices `[B]`."""
        return (outputs.argmax(dim=-1) == targets).float().mean()

    def answers(self, outputs: Tensor) -> Tensor:
        """Return the probabilities `[B, C]`, the softmax of the logits."""
        return outputs.float().softmax(dim=-1)

    def predicted(self, answers: Tensor) -> Tensor:
        """Return the most probable class `[B]` of each image."""
        return answers.argmax(dim=-1)

    def decode(self, answers: Tensor, head: Head) -> list[str]:
        """Return the most probable class name of each image."""
        return [head.class_names[index] for index in self.predicted(answers).tolist()]

    def check(self, adaptation: Adaptation, task: Task) -> None:
        """Check that an adaptation can classify the classes of every test set.

        Raises:
            UserError: the learned tensors are class-specific, and a test set has other classes; or it has a class that
                the method has no prompts for.
        """
        for test in task.tests.values():
            names = test.class_names or task.class_names
            check_classes(adaptation, names)
            adaptation.find_names(names)

    def metrics(self, head: Head) -> dict[str, Measure]:
        """Return the metrics by name; those of scikit-learn agree with it, also where test images lack a class.

        Accuracy, top-5 accuracy (of more than 5 classes), balanced accuracy, macro F1, the area under the ROC curve
        (one class against the others), negative log likelihood, Brier score, expected calibration error (15 bins), and
        the confusion matrix.
        """
        from torchmetrics.classification import (  # takes a second to import, and only evaluation needs it
            MulticlassAccuracy,
            MulticlassCalibrationError,
            MulticlassConfusionMatrix,
            MulticlassF1Score,
        )

        from clipadapt.tasks import figures as own

        classes = len(head.class_names)
        accuracy = MulticlassAccuracy(classes, average="micro", ignore_index=NO_LABEL)
        calibration = MulticlassCalibrationError(classes, n_bins=CALIBRATION_BINS, ignore_index=NO_LABEL)
        balanced = own.BalancedAccuracy(classes, ignore_index=NO_LABEL)
        f1 = MulticlassF1Score(classes, average="macro", ignore_index=NO_LABEL)
        likelihood, brier = own.MeanScore(own.negative_log_likelihood), own.MeanScore(own.brier_score)
        top = Measure(own.MeanScore(own.in_top(TOP)), f"top-{TOP} accuracy")
        return {
            "accuracy": Measure(accuracy, "accuracy"),
            **({f"top{TOP}_accuracy": top} if classes > TOP else {}),
            "balanced_accuracy": Measure(balanced, "balanced accuracy"),
            "macro_f1": Measure(f1, "macro F1"),
            "auroc": Measure(own.AreaUnderCurve(), "area under the ROC curve"),
            "negative_log_likelihood": Measure(likelihood, "negative log likelihood", False, False),
            "brier_score": Measure(brier, "Brier score", False, False),
            "calibration_error": Measure(calibration, "calibration error", higher_is_better=False),
            "confusion": Measure(MulticlassConfusionMatrix(classes, ignore_index=NO_LABEL)),
        }

    def uncounted(self, head: Head, device: torch.device) -> tuple[Tensor, Tensor]:
        """Return probabilities and target of one image without label, which all metrics ignore."""
        classes = len(head.class_names)
        return torch.zeros(1, classes, device=device), torch.full((1,), NO_LABEL, device=device)

    def details(self, before: Evaluation, after: Evaluation, task: Task) -> dict[str, Any]:
        """Return figures by class, 95 % intervals over test images, and the confusion matrix of the adapted model.

        `per_class` and `zero_shot_per_class` are accuracies, `classes` has precision, recall, F1 and number of images
        of the adapted model.
        """
        names = unique_names(task.class_names)
        confusion, zero_shot = (one.details["confusion"].long().cpu().numpy() for one in (after, before))
        counted = bool(confusion.sum())
        return {
            "per_class": by_class(task.class_names, after),
            "zero_shot_per_class": by_class(task.class_names, before),
            "classes": class_figures(confusion, names),
            "intervals": intervals(confusion) if counted else {},
            "zero_shot_intervals": intervals(zero_shot) if counted else {},
            "confusion": confusion.tolist(),
        }

    def leading_figure(self, targets: Sequence[Any]) -> str:
        """Return balanced accuracy where a class has over twice as many test images as another, else accuracy."""
        counts = Counter(target for target in targets if target != NO_LABEL).values()
        return "balanced_accuracy" if counts and max(counts) > UNEQUAL * min(counts) else self.leads

    def scores(self, answers: Tensor, targets: Tensor, head: Head) -> Tensor:
        """Return each image's probability of its class, 0 without a label, and its maximum concept matching."""
        own = answers.gather(1, targets.clamp(min=0)[:, None])[:, 0].where(targets != NO_LABEL, 0.0)
        return torch.stack([own.double(), concept_matching(answers, head.clip.scale)], dim=-1)

    def ranked(self, answers: Tensor) -> Tensor:
        """Return the most probable classes of each image, up to five, with their probabilities."""
        values, classes = answers.topk(min(TOP, answers.shape[-1]), dim=-1)
        return torch.stack([classes.to(values.dtype), values], dim=-1)


def by_class(names: Sequence[str], evaluation: Evaluation) -> dict[str, float]:
    """Return the accuracy of each class that has test images."""
    confusion = evaluation.details["confusion"].long()
    shares = (confusion.diagonal() / confusion.sum(dim=1)).tolist()
    return {name: share for name, share in zip(unique_names(names), shares, strict=True) if not math.isnan(share)}
