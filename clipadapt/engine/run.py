"""A run: a task, a backbone and a method, which is fitted and evaluated.

No concrete adaptation or objective is imported here.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from accelerate import Accelerator
from torch.optim import Optimizer

from clipadapt.adaptations.base import Adaptation
from clipadapt.backbone.dual_encoder import DualEncoder
from clipadapt.data.tasks import Task
from clipadapt.engine.batches import BatchSampler
from clipadapt.engine.checks import (
    check_whole_batch,
)
from clipadapt.engine.fit import Fit, TrainState
from clipadapt.engine.imbalance import Imbalance
from clipadapt.engine.learner import Learner
from clipadapt.engine.loaders import make_loader
from clipadapt.engine.phases import Phase, list_phases, trained_alone
from clipadapt.engine.pseudo_labels import PseudoLabels
from clipadapt.engine.schedules import shortened
from clipadapt.engine.settings import Settings, make_optimizer
from clipadapt.errors import UserError
from clipadapt.features.batch_sources import BatchSource
from clipadapt.features.loader import CachePlacement, FeatureLoader, ProgressFactory, no_progress
from clipadapt.features.task_views import LazyAdaptedFeatures, LazySupportView
from clipadapt.features.teachers import with_teacher_features
from clipadapt.objectives.base import GradientRule, Objective, WeightAverage
from clipadapt.tasks import Head, task_kind
from clipadapt.test_time.base import TestTimeMethod

LAST_EPOCH, ON_VALIDATION = "none: the last epoch", "validation: weights chosen on the validation split"


@dataclass
class Run:
    """Run of a method on a task with a backbone, ready to be fitted and evaluated.

    Attributes:
        accelerator: the processes, the device and the number format.
        clip: the frozen backbone, on the device.
        task: the task, with its test sets.
        head: CLIP with the adaptation.
        settings: settings of the fit.
        loader: loads images and features.
        placement: placement of the support set's cached activations.
        known: view of the task for adaptations and objectives, without test data.
        test_time: the test-time method; None for none.
        selection: how the final weights were selected.
        pseudo_labels: the pseudo-labels; None if the task's own labels are used.
        imbalance: how classes of unequal size are treated; None for not at all.
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
    imbalance: Imbalance | None = None

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
        """Return a run that evaluates a head, which is on its device; arguments as of `prepare_run`."""
        loader = make_loader(accelerator, settings, progress, task_kind(task))
        known = LazySupportView(head.clip, task.without_tests(), loader)
        placement = loader.placement(head, task)
        return cls(accelerator, head.clip, task, head, settings, loader, placement, known, test_time)

    @property
    def epochs(self) -> int:
        """Return the number of passes over the support set; 0 if nothing is trained by gradient descent."""
        if not self.head.adaptation.has_parameters:
            return 0
        return self.settings.epochs_within(self.task.shots, len(self.batches()))

    @property
    def learns_nothing(self) -> bool:
        """Return whether the method reads no image to learn from, so that all labelled images can test it."""
        fitted = self.head.adaptation.capabilities.num_fitted_values
        return not (self.epochs or fitted or self.known.used or self.pseudo_labels)

    def test_on_all(self) -> None:
        """Test a method that learns nothing on the labelled pool, if the task has no test set."""
        pool = self.task.pool
        if self.learns_nothing and not self.task.tests and pool is not None and len(pool) and pool.labelled:
            self.task = replace(self.task, tests={"test": pool})

    def batches(self) -> BatchSampler:
        """Return the batch sampler of the support set."""
        return BatchSampler(
            count=len(self.task.support),
            batch_size=self.settings.batch_size,
            gradient_accumulation_steps=self.settings.gradient_accumulation_steps,
            seed=self.task.seed,
            rank=self.accelerator.process_index,
            processes=self.accelerator.num_processes,
            most=self.settings.max_steps,
            weights=None if self.imbalance is None else self.imbalance.sampling_weights(),
        )

    def support(self, teachers: Sequence[DualEncoder] = (), other_views: bool = False) -> BatchSource | None:
        """Return the batch source of the support set, with its features cached; None if nothing is trained.

        Args:
            teachers: the objective's teachers, on the device.
            other_views: whether they get other views than the student.
        """
        if not self.epochs:
            return None
        source = self.loader.support(self.head, self.task, self.placement)
        return with_teacher_features(source, teachers, self.task, self.loader, other_views)

    def fit(
        self,
        objective: Objective,
        source: BatchSource | None,
        progress: TrainState,
        after_epoch: Callable[[TrainState], None],
        rule: GradientRule | None = None,
        average: WeightAverage | None = None,
    ) -> TrainState:
        """Fit the adaptation to the support set by gradient descent; without a `source`, do nothing.

        Args:
            objective: the objective.
            source: the batch source from `support`.
            progress: the state to resume from.
            after_epoch: called with the state after every epoch.
            rule: combines the gradients of several losses; if None, the losses are summed.
            average: weighted average of the parameters over epochs; if None, the last epoch's parameters.

        Raises:
            DivergenceError: a loss or a parameter was not finite.
            UserError: a rule on gradients with fp16, which scales losses, an average over several phases, or a batch
                would be split for an objective that needs whole batches.
        """
        check_whole_batch(type(objective), self.settings, self.accelerator.num_processes)
        if rule is not None and self.settings.precision == "fp16":
            raise UserError("this method's rule on gradients doesn't go with fp16: use engine.precision=bf16 or fp32")
        if average is not None and self.settings.phases:
            raise UserError("weights can't be averaged over the epochs of several phases: set method.average=null")
        if source is None:
            return progress
        learner = Learner(self.head, objective, self.imbalance)
        if self.settings.compile:
            learner.compile()
        whole = self.settings.epochs_for(self.task.shots)
        for phase in list_phases(self.settings.phases, self.epochs, whole):
            if progress.epoch == phase.first:
                self._begin(phase, progress)
            if progress.epoch < phase.end or phase.end == self.epochs:
                with trained_alone(self.head.adaptation, phase.number) as trained:
                    fit = self._make_fit(
                        phase,
                        progress,
                        learner,
                        source,
                        make_optimizer(self.settings.optimizer, self.head.adaptation, trained),
                    )
                    replace(fit, rule=rule, average=average).run(progress, after_epoch)
        return progress

    def _begin(self, phase: Phase, progress: TrainState) -> None:
        """Set the initial values of a phase, which may be computed from what the one before has learned."""
        if progress.state:
            self.head.adaptation.load_state_dict(progress.state["adaptation"])
        self.head.eval()
        with torch.no_grad():
            learned = LazyAdaptedFeatures(self.head, self.task.without_tests(), self.loader)
            self.head.adaptation.begin_phase(phase.number, learned)

    def _make_fit(
        self, phase: Phase, progress: TrainState, learner: Learner, source: BatchSource, optimizer: Optimizer
    ) -> Fit:
        """Return the fit of a phase."""
        epochs = phase.end - phase.first
        return Fit(
            accelerator=self.accelerator,
            learner=learner,
            optimizer=optimizer,
            schedule=shortened(self.settings.schedule, optimizer, phase.whole, epochs),
            batches=self.batches(),
            source=source,
            epochs=phase.end,
            seed=self.task.seed,
            kind=task_kind(self.task),
            begins=progress.epoch == phase.first,
        )

    def fit_closed_form(self) -> None:
        """Fit the parameters that the adaptation solves in closed form, without gradients."""
        self.head.eval()
        with torch.no_grad():
            learned = LazyAdaptedFeatures(self.head, self.task.without_tests(), self.loader)
            self.head.adaptation.fit_closed_form(learned)
        if learned.validated:
            self.selection = ON_VALIDATION

    def zero_shot(self) -> Head:
        """Return the zero-shot head: the backbone without an adaptation, with the task's templates."""
        return task_kind(self.task).head(self.clip, Adaptation(self.clip, self.known), self.task.class_names)
