"""One run: zero-shot, fit, evaluation. Knows no concrete adaptation or objective."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from torch import Tensor

from clipadapt.adaptations.base import Adaptation
from clipadapt.backbone.clip import CLIP
from clipadapt.classifier import Classifier
from clipadapt.data.tasks import Split, Task
from clipadapt.engine.activations import MICRO_BATCH
from clipadapt.engine.batches import Batches
from clipadapt.engine.evaluate import Evaluation, evaluate
from clipadapt.engine.feeds import Feed
from clipadapt.engine.fit import Fit, Progress
from clipadapt.engine.keeping import Keeping, Place, Watch, unwatched
from clipadapt.engine.learner import Learner
from clipadapt.engine.memory import budget, most_rows
from clipadapt.engine.settings import Settings, fused
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
        keeping: what of the images is computed once, and how.
        place: where what is computed of the support set is kept.
    """

    accelerator: Accelerator
    clip: CLIP
    task: Task
    classifier: Classifier
    settings: Settings
    keeping: Keeping
    place: Place

    @classmethod
    def prepare(
        cls,
        clip: CLIP,
        task: Task,
        make: Callable[[CLIP, Task], Adaptation],
        settings: Settings,
        watch: Watch = unwatched,
    ) -> "Run":
        """Bring the backbone to its device and build the adaptation for it.

        Args:
            clip: the backbone.
            task: the task.
            make: builds the adaptation; called under the task's seed, with a task that has no test sets.
            settings: how it will be fitted.
            watch: shows how the encoding of images comes on.

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
        memory = budget(settings.memory, accelerator.device, accelerator.num_processes)
        images = -(-settings.batch_size // (settings.accumulate * accelerator.num_processes))
        with accelerator.autocast():
            rows = most_rows(clip, adaptation, task.class_names, memory, images, MICRO_BATCH)
            classifier = Classifier(clip, adaptation, task.class_names, rows, settings.recompute)
        return cls.of(classifier, task, accelerator, settings, watch)

    @classmethod
    def of(
        cls,
        classifier: Classifier,
        task: Task,
        accelerator: Accelerator,
        settings: Settings,
        watch: Watch = unwatched,
    ) -> "Run":
        """A run of a classifier that is on its device; arguments as of the attributes and `prepare`."""
        keeping = Keeping(accelerator, settings, watch)
        return cls(accelerator, classifier.clip, task, classifier, settings, keeping, keeping.place(classifier, task))

    def plan(self) -> Plan:
        """What will be computed once, what at every step, and what is learned."""
        trained = {name: list(value.shape) for name, value in self.classifier.adaptation.named_parameters()}
        count = sum(value.numel() for value in self.classifier.adaptation.parameters())
        return Plan(
            image_cut=self.classifier.image_cut,
            text_cut=self.classifier.text_cut,
            kept=self.keeping.describe(self.classifier, self.task, self.place),
            every_step=self._step_text() if trained else "nothing",
            trained=trained,
            parameters=count,
            share=count / self.clip.parameters,
        )

    def _step_text(self) -> str:
        parts = []
        if not self.place.anywhere:
            parts.append(f"image tower up to {self.classifier.image_cut}, without gradients")
        if self.classifier.image_cut != "features":
            parts.append(f"image tower from {self.classifier.image_cut}")
        if self.classifier.text_cut != "features":
            chunks = self.classifier.text_chunks
            again = f", in {chunks} chunks computed again for their gradients" if chunks > 1 else ""
            parts.append(f"text tower from {self.classifier.text_cut}{again}")
        return "; ".join([*parts, "logits"])

    @property
    def epochs(self) -> int:
        """Passes over the support set; none where nothing is learned by gradient."""
        return (
            self.settings.epochs_for(self.task.shots)
            if any(True for _ in self.classifier.adaptation.parameters())
            else 0
        )

    def support(self) -> Feed | None:
        """What is computed once of the support set, computed; None where nothing is learned by gradient."""
        return self.keeping.support(self.classifier, self.task, self.place) if self.epochs else None

    def fit(
        self, objective: Objective, source: Feed | None, progress: Progress, after_epoch: Callable[[Progress], None]
    ) -> Progress:
        """Fit the adaptation to the support set, if it has anything to learn.

        Args:
            objective: what is minimised.
            source: from `support`.
            progress: where to go on from.
            after_epoch: called after every epoch.

        Raises:
            Diverged: a loss was not finite.
        """
        if source is None:
            return progress
        optimizer = fused(self.settings.optimizer, list(self.classifier.adaptation.parameters()))
        learner = Learner(self.classifier, objective)
        if self.settings.compile:
            learner.compile()
        fit = Fit(
            accelerator=self.accelerator,
            learner=learner,
            optimizer=optimizer,
            schedule=self.settings.schedule(optimizer, self.epochs),
            batches=Batches(
                count=len(self.task.support),
                batch_size=self.settings.batch_size,
                accumulate=self.settings.accumulate,
                seed=self.task.seed,
                rank=self.accelerator.process_index,
                processes=self.accelerator.num_processes,
            ),
            source=source,
            epochs=self.epochs,
            seed=self.task.seed,
        )
        return fit.run(progress, after_epoch)

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
        batches = list(self.keeping.test_batches(zero_shot, split))
        before = self.evaluate(zero_shot, batches)
        if self.classifier.image_cut == zero_shot.image_cut:
            return before, self.evaluate(self.classifier, batches)
        return before, self.evaluate(self.classifier, self.keeping.test_batches(self.classifier, split))

    def zero_shot(self) -> Classifier:
        """The backbone as it is, with the task's templates."""
        return Classifier(self.clip, Adaptation(self.clip, self.task.without_tests()), self.task.class_names)
