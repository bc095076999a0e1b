"""One run: zero-shot, fit, evaluation. Knows no concrete adaptation or objective."""

import math
import resource
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from torch import Tensor

from clipadapt.adaptations.base import Adaptation
from clipadapt.backbone.clip import CLIP
from clipadapt.classifier import Classifier
from clipadapt.data.tasks import Split, Task
from clipadapt.data.transforms import training_views
from clipadapt.engine.activations import MICRO_BATCH, Fresh, Kept, Views, encode, prefixes, size_mb
from clipadapt.engine.batches import Batches
from clipadapt.engine.evaluate import Evaluation, evaluate
from clipadapt.engine.fit import Fit, Progress
from clipadapt.engine.learner import Learner
from clipadapt.engine.settings import Settings
from clipadapt.errors import UserError
from clipadapt.objectives.base import Objective

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def accelerator_for(settings: Settings) -> Accelerator:
    """The processes, the device and the number format."""
    if not torch.distributed.is_initialized():
        AcceleratorState._reset_state(
            reset_partial_state=True
        )  # an earlier run in this process may have chosen otherwise
    mixed = {"fp32": "no"}.get(settings.precision, settings.precision)
    return Accelerator(cpu=settings.cpu, mixed_precision=mixed)


@dataclass(frozen=True)
class Plan:
    """What a run computes once and what at every step."""

    image_cut: str
    text_cut: str
    kept: str
    every_step: str
    trained: dict[str, list[int]]
    parameters: int
    share: float


@dataclass
class Run:
    """A task, a backbone and a method, ready to be fitted and measured.

    Attributes:
        accelerator: the processes, the device and the number format.
        clip: the frozen backbone; moved to the device.
        task: what is to be learned, and the test sets.
        classifier: CLIP through the adaptation.
        settings: how it is fitted.
    """

    accelerator: Accelerator
    clip: CLIP
    task: Task
    classifier: Classifier
    settings: Settings

    @classmethod
    def prepare(cls, clip: CLIP, task: Task, make: Callable[[CLIP, Task], Adaptation], settings: Settings) -> "Run":
        """Bring the backbone to its device and build the adaptation for it.

        Args:
            clip: the backbone.
            task: the task.
            make: builds the adaptation; called under the task's seed, with a task that has no test sets.
            settings: how it will be fitted.

        Raises:
            UserError: the backbone has been rounded to another number format.
        """
        accelerator = accelerator_for(settings)
        if clip.dtype not in (torch.float32, DTYPES[settings.precision]):
            raise UserError(
                f"an earlier run rounded this backbone to {clip.dtype}: load it again for {settings.precision}"
            )
        clip.to(accelerator.device, DTYPES[settings.precision])
        torch.manual_seed(task.seed)
        adaptation = make(clip, task.without_tests()).to(accelerator.device)
        return cls(accelerator, clip, task, Classifier(clip, adaptation, task.class_names), settings)

    @property
    def keeps(self) -> bool:
        """Whether the support set's activations at the image cut are computed once and kept."""
        return self.task.views is not None and self._size_mb() <= self.settings.keep_mb

    def _size_mb(self) -> float:
        return size_mb(self.classifier, len(self.task.support), max(1, self.task.views or 0))

    def plan(self) -> Plan:
        """What will be computed once, what at every step, and what is learned."""
        trained = {name: list(value.shape) for name, value in self.classifier.adaptation.named_parameters()}
        count = sum(value.numel() for value in self.classifier.adaptation.parameters())
        return Plan(
            image_cut=self.classifier.image_cut,
            text_cut=self.classifier.text_cut,
            kept=self._kept_text(),
            every_step=self._step_text() if trained else "nothing",
            trained=trained,
            parameters=count,
            share=count / self.clip.parameters,
        )

    def _kept_text(self) -> str:
        if self.keeps:
            return f"{self.classifier.image_cut} of {len(self.task.support)} images, {self._size_mb():.1f} MB"
        return "nothing: fresh views every epoch" if self.task.views is None else "nothing: above engine.keep_mb"

    def _step_text(self) -> str:
        parts = []
        if not self.keeps:
            parts.append(f"image tower up to {self.classifier.image_cut}, without gradients")
        if self.classifier.image_cut != "features":
            parts.append(f"image tower from {self.classifier.image_cut}")
        if self.classifier.text_cut != "features":
            parts.append(f"text tower from {self.classifier.text_cut}")
        return "; ".join([*parts, "logits"])

    def fit(self, objective: Objective, progress: Progress, after_epoch: Callable[[Progress], None]) -> Progress:
        """Fit the adaptation to the support set, if it has anything to learn.

        Args:
            objective: what is minimised.
            progress: where to go on from.
            after_epoch: called after every epoch.

        Raises:
            Diverged: a loss was not finite.
        """
        parameters = list(self.classifier.adaptation.parameters())
        epochs = self.settings.epochs_for(self.task.shots)
        if not parameters or not epochs:
            return progress
        optimizer = self.settings.optimizer(parameters)
        fit = Fit(
            accelerator=self.accelerator,
            learner=Learner(self.classifier, objective),
            optimizer=optimizer,
            schedule=self.settings.schedule(optimizer, epochs),
            batches=Batches(
                count=len(self.task.support),
                batch_size=self.settings.batch_size,
                accumulate=self.settings.accumulate,
                seed=self.task.seed,
                rank=self.accelerator.process_index,
                processes=self.accelerator.num_processes,
            ),
            source=self._source(),
            epochs=epochs,
            seed=self.task.seed,
        )
        return fit.run(progress, after_epoch)

    def _source(self) -> Kept | Fresh:
        transform = training_views(self.clip.preprocess) if self.task.views != 0 else self.clip.transform
        views = Views(self.task.support, transform, self.task.seed)
        cycle = None if self.task.views is None else max(1, self.task.views)
        if cycle is None or not self.keeps:
            return Fresh(views, self.accelerator.device, self.settings.workers, cycle)
        return encode(self.classifier, views, len(self.task.support), range(cycle), self.settings.workers)

    def evaluate(self, classifier: Classifier, batches: Iterable[tuple[Tensor, Tensor]]) -> Evaluation:
        """Measure a classifier on activations at its image cut and labels, shared out over the processes."""
        classifier.eval()
        with torch.no_grad(), self.accelerator.autocast():
            text = None if classifier.adaptation.conditional else classifier.class_weights()

            def predict(x: Tensor) -> Tensor:
                return classifier.output(x, classifier.image_cut, text).logits

            return evaluate(predict, batches, len(classifier.class_names), self.accelerator.device)

    def compare(self, zero_shot: Classifier, split: Split) -> tuple[Evaluation, Evaluation]:
        """Measure zero-shot and the run's classifier on a test set; features that serve both are computed once."""
        batches = list(self._test_batches(zero_shot, split))
        before = self.evaluate(zero_shot, batches)
        if self.classifier.image_cut == zero_shot.image_cut:
            return before, self.evaluate(self.classifier, batches)
        return before, self.evaluate(self.classifier, self._test_batches(self.classifier, split))

    def _test_batches(self, classifier: Classifier, split: Split) -> Iterator[tuple[Tensor, Tensor]]:
        size, rank, processes = MICRO_BATCH, self.accelerator.process_index, self.accelerator.num_processes
        items = [(i, 0) for i in range(len(split)) if i // size % processes == rank]
        return prefixes(classifier, Views(split, self.clip.transform), items, self.settings.workers)

    def zero_shot(self) -> Classifier:
        """The backbone as it is, with the task's templates."""
        return Classifier(self.clip, Adaptation(self.clip, self.task.without_tests()), self.task.class_names)


def measure(run: Run) -> dict[str, Any]:
    """Zero-shot against adapted on the task's test sets; the first one's figures stand for the run.

    Returns:
        `accuracy` and `calibration_error`, each with its `zero_shot_` counterpart, and the number of `images`; `tests`,
        the same by test set; accuracies `per_class` and `zero_shot_per_class`; the `confusion` of the first test set.
    """
    zero_shot = run.zero_shot()
    measured = {name: run.compare(zero_shot, split) for name, split in run.task.tests.items()}
    tests = {name: figures(before, after) for name, (before, after) in measured.items()}
    first, (before, after) = next(iter(measured.items()))
    return tests[first] | {
        "tests": tests,
        "per_class": by_class(run.task.class_names, after),
        "zero_shot_per_class": by_class(run.task.class_names, before),
        "confusion": after.confusion,
    }


def figures(before: Evaluation, after: Evaluation) -> dict[str, float]:
    """The figures of one test set."""
    return {
        "accuracy": after.accuracy,
        "zero_shot_accuracy": before.accuracy,
        "calibration_error": after.calibration_error,
        "zero_shot_calibration_error": before.calibration_error,
        "images": after.images,
    }


def by_class(names: Sequence[str], evaluation: Evaluation) -> dict[str, float]:
    """Accuracy of each class that has test images."""
    pairs = zip(names, evaluation.per_class, strict=True)
    return {name: accuracy for name, accuracy in pairs if not math.isnan(accuracy)}


def peak_memory_mb(device: torch.device) -> float:
    """Most memory taken so far in megabytes: on a GPU by tensors, on a CPU by the whole process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e6
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6
