"""One run: zero-shot, fit, evaluation. Knows no concrete adaptation or objective."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState

from clipadapt.adaptations.base import Adaptation
from clipadapt.backbone.dual_encoder import DualEncoder
from clipadapt.data.tasks import Task
from clipadapt.engine.batches import BatchSampler
from clipadapt.engine.fit import Fit, TrainState
from clipadapt.engine.learner import Learner
from clipadapt.engine.memory import max_rows, reset_peak_memory
from clipadapt.engine.pseudo_labels import Choice, PseudoLabels, pseudo_labelled
from clipadapt.engine.schedules import shortened
from clipadapt.engine.settings import Settings, fused
from clipadapt.errors import UserError
from clipadapt.features.batch_sources import BatchSource
from clipadapt.features.encoder import MICRO_BATCH
from clipadapt.features.loader import CachePlacement, FeatureLoader, ProgressFactory, no_progress
from clipadapt.features.memory import budget
from clipadapt.features.task_views import LazyAdaptedFeatures, LazySupportView
from clipadapt.features.teachers import with_teacher_features
from clipadapt.interfaces import SupportView
from clipadapt.objectives.base import GradientRule, Objective, WeightAverage
from clipadapt.tasks import Head, TaskKind, kind_of
from clipadapt.test_time.base import TestTimeMethod

LAST_EPOCH, ON_VALIDATION = "none: the last epoch", "validation: weights chosen on the validation split"
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def accelerator_for(settings: Settings, test_time: TestTimeMethod | None = None) -> Accelerator:
    """The processes, the device and the number format.

    Raises:
        UserError: a test stream is to be shared out over processes, or there is no GPU for several.
    """
    if not torch.distributed.is_initialized():
        forget_accelerator()
    mixed = {"fp32": "no"}.get(settings.precision, settings.precision)
    accelerator = Accelerator(cpu=settings.cpu, mixed_precision=mixed)
    started = int(os.environ.get("WORLD_SIZE", "1"))
    if accelerator.num_processes < started:  # each would do the whole run
        raise UserError(f"{started} processes were started, and there is no GPU for them: add engine.cpu=true")
    if test_time is not None and test_time.stream and accelerator.num_processes > 1:
        raise UserError(
            f"this method learns along the test images, one after another, and can't share them out over "
            f"{accelerator.num_processes} processes: run it in one"
        )
    return accelerator


def forget_accelerator() -> None:
    """Let the next `Accelerator` choose device and number format anew; an earlier run in this process chose otherwise.

    Accelerate keeps one state for the whole process and has no public way to drop it; its own tests call this, too.
    """
    AcceleratorState._reset_state(reset_partial_state=True)


@dataclass
class Run:
    """A task, a backbone and a method, ready to be fitted and measured.

    Attributes:
        accelerator: the processes, the device and the number format.
        clip: the frozen backbone; moved to the device.
        task: what is to be learned, and the test sets.
        head: CLIP through the adaptation.
        settings: how it is fitted.
        loader: what of the images is computed once, and how.
        placement: where what is computed of the support set is kept.
        known: what adaptation and objective may know of the task.
        test_time: what adapts at test time; nothing where None.
        selection: how what was learned was chosen.
        pseudo_labels: what it learned from in the place of labels; None where it has labels.
    """

    accelerator: Accelerator
    clip: DualEncoder
    task: Task
    head: Head
    settings: Settings
    loader: FeatureLoader
    placement: CachePlacement
    known: LazySupportView
    test_time: TestTimeMethod | None = None
    selection: str = LAST_EPOCH
    pseudo_labels: PseudoLabels | None = None

    @classmethod
    def prepare(
        cls,
        clip: DualEncoder,
        task: Task,
        make: Callable[[DualEncoder, SupportView], Adaptation],
        settings: Settings,
        progress: ProgressFactory = no_progress,
        test_time: TestTimeMethod | None = None,
        pseudo_labels: Choice | None = None,
        objective: type[Objective] = Objective,
    ) -> "Run":
        """Bring the backbone to its device, label the task's images if need be, and build the adaptation for it.

        Args:
            clip: the backbone.
            task: the task.
            make: builds the adaptation; called under the task's seed, with what may be known of the task.
            settings: how it will be fitted.
            progress: shows how the encoding of images comes on.
            test_time: what adapts at test time.
            pseudo_labels: which images zero-shot CLIP labels; None for the task's own labels, where it has some.
            objective: class of what will be minimised.

        Raises:
            UserError: the backbone has been rounded to another number format, there are no images for a method that
                learns from some, a validation split that is needed is empty, a test set has classes that the method
                can't serve, a test stream is to be shared out over processes, or a batch is to be split for an
                objective that needs it whole.
        """
        accelerator = accelerator_for(settings, test_time)
        check_whole_batch(objective, settings, accelerator.num_processes)
        if clip.dtype not in (torch.float32, DTYPES[settings.precision]):
            raise UserError(
                f"an earlier run rounded this backbone to {clip.dtype}: load it again for {settings.precision}"
            )
        reset_peak_memory(accelerator.device)
        clip.to(accelerator.device, DTYPES[settings.precision])
        kind = kind_of(task)
        loader = make_loader(accelerator, settings, progress, kind)
        task, guessed = pseudo_labelled(clip, task, loader, pseudo_labels)
        torch.manual_seed(task.seed)
        known = LazySupportView(clip, task.without_tests(), loader)
        adaptation = make(clip, known).to(accelerator.device)
        check_images(adaptation, task, settings, guessed)
        kind.check(adaptation, task)
        if test_time is not None and not kind.probabilities:
            raise UserError("methods that adapt at test time are for classification: leave method.test_time null")
        memory = budget(settings.memory, accelerator.device, accelerator.num_processes)
        memory /= texts_at_once(adaptation, test_time)
        images = -(-settings.batch_size // (settings.gradient_accumulation_steps * accelerator.num_processes))
        with accelerator.autocast():
            rows = max_rows(clip, adaptation, task.class_names, memory, images, MICRO_BATCH)
            head = kind.head(clip, adaptation, known, None, rows, settings.activation_checkpointing)
        placement = loader.placement(head, task)
        return cls(accelerator, clip, task, head, settings, loader, placement, known, test_time, pseudo_labels=guessed)

    @classmethod
    def for_evaluation(
        cls,
        head: Head,
        task: Task,
        accelerator: Accelerator,
        settings: Settings,
        progress: ProgressFactory = no_progress,
        test_time: TestTimeMethod | None = None,
    ) -> "Run":
        """Return a run of a head that is on its device; arguments as of the attributes and `prepare`."""
        loader = make_loader(accelerator, settings, progress, kind_of(task))
        known = LazySupportView(head.clip, task.without_tests(), loader)
        placement = loader.placement(head, task)
        return cls(accelerator, head.clip, task, head, settings, loader, placement, known, test_time)

    @property
    def epochs(self) -> int:
        """Passes over the support set; none where nothing is learned by gradient."""
        if not self.head.adaptation.has_parameters:
            return 0
        return self.settings.epochs_within(self.task.shots, len(self.batches()))

    def batches(self) -> BatchSampler:
        """What makes up each step."""
        return BatchSampler(
            count=len(self.task.support),
            batch_size=self.settings.batch_size,
            gradient_accumulation_steps=self.settings.gradient_accumulation_steps,
            seed=self.task.seed,
            rank=self.accelerator.process_index,
            processes=self.accelerator.num_processes,
            most=self.settings.max_steps,
        )

    def support(self, teachers: Sequence[DualEncoder] = ()) -> BatchSource | None:
        """What is computed once of the support set, computed; None where nothing is learned by gradient.

        Args:
            teachers: of the objective, on the device.
        """
        if not self.epochs:
            return None
        source = self.loader.support(self.head, self.task, self.placement)
        return with_teacher_features(source, teachers, self.task, self.loader)

    def fit(
        self,
        objective: Objective,
        source: BatchSource | None,
        progress: TrainState,
        after_epoch: Callable[[TrainState], None],
        rule: GradientRule | None = None,
        average: WeightAverage | None = None,
    ) -> TrainState:
        """Fit the adaptation to the support set, if it has anything to learn.

        Args:
            objective: what is minimised.
            source: from `support`.
            progress: where to go on from.
            after_epoch: called after every epoch.
            rule: what becomes of the gradients of several losses; their sum's where None.
            average: of what was learned after each epoch; what the last one left where None.

        Raises:
            DivergenceError: a loss was not finite.
            UserError: a rule on gradients in fp16, whose losses are scaled, or a batch that is split for an objective
                that needs it whole.
        """
        check_whole_batch(type(objective), self.settings, self.accelerator.num_processes)
        if rule is not None and self.settings.precision == "fp16":
            raise UserError("this method's rule on gradients doesn't go with fp16: use engine.precision=bf16 or fp32")
        if source is None:
            return progress
        optimizer = fused(self.settings.optimizer, list(self.head.adaptation.parameters()))
        whole = self.settings.epochs_for(self.task.shots)
        learner = Learner(self.head, objective)
        if self.settings.compile:
            learner.compile()
        fit = Fit(
            accelerator=self.accelerator,
            learner=learner,
            optimizer=optimizer,
            schedule=shortened(self.settings.schedule, optimizer, whole, self.epochs),
            batches=self.batches(),
            source=source,
            epochs=self.epochs,
            seed=self.task.seed,
            kind=kind_of(self.task),
            rule=rule,
            average=average,
        )
        return fit.run(progress, after_epoch)

    def fit_closed_form(self) -> None:
        """Find what the adaptation finds without gradients."""
        self.head.eval()
        with torch.no_grad():
            learned = LazyAdaptedFeatures(self.head, self.task.without_tests(), self.loader)
            self.head.adaptation.fit_closed_form(learned)
        if learned.validated:
            self.selection = ON_VALIDATION

    def zero_shot(self) -> Head:
        """Return the head of the backbone as it is, with the task's templates."""
        return kind_of(self.task).head(self.clip, Adaptation(self.clip, self.known), self.known)


def make_loader(
    accelerator: Accelerator, settings: Settings, progress: ProgressFactory, kind: TaskKind
) -> FeatureLoader:
    """Return what loads a run's images and features, within the limits of its settings."""
    return FeatureLoader(
        accelerator,
        settings.workers,
        settings.cache,
        settings.cache_gb,
        settings.keep_mb,
        progress,
        kind.collate,
    )


def check_whole_batch(objective: type[Objective], settings: Settings, processes: int) -> None:
    """Check that no batch is split for an objective that needs it whole.

    Raises:
        UserError: one is, by gradient accumulation or over processes.
    """
    steps = settings.gradient_accumulation_steps
    if objective.needs_whole_batch and (steps > 1 or processes > 1):
        raise UserError(
            f"{objective.__name__} compares all images of a batch with each other, so that a batch can't be split "
            f"(gradient accumulation steps: {steps}, processes: {processes}): use engine.gradient_accumulation_steps=1 "
            "in one process"
        )


def check_images(adaptation: Adaptation, task: Task, settings: Settings, guessed: PseudoLabels | None) -> None:
    """See that a task has the images that an adaptation needs, and only classes that it can serve.

    Raises:
        UserError: it hasn't; as `Run.prepare`.
    """
    if settings.epochs_for(task.shots) and adaptation.has_parameters:
        task.check_has_images()
    if adaptation.capabilities.needs_validation and not len(task.validation):
        advice = "take fewer shots, or give it a folder val/" if guessed is None else "it needs labels"
        raise UserError(
            f"this method chooses its weights on a validation split, and '{task.name}' has no images left for one: "
            f"{advice}"
        )


def texts_at_once(adaptation: Adaptation, test_time: TestTimeMethod | None) -> int:
    """How many times all classes are computed together: for each image that something adapts to at once."""
    return test_time.images if test_time is not None and adaptation.capabilities.supports_batched_params else 1
