"""The start of a run: its processes, its backbone and task, the adaptation, and all checks of these together."""

from collections.abc import Callable

import torch
from accelerate import Accelerator

from clipadapt.adaptations.base import Adaptation
from clipadapt.backbone.dual_encoder import DualEncoder
from clipadapt.data.tasks import Task
from clipadapt.engine.accelerator import DTYPES, accelerator_for
from clipadapt.engine.checks import (
    check_distance,
    check_images,
    check_imbalance,
    check_number_format,
    check_test_time,
    check_text_logits,
    check_weights,
    check_whole_batch,
    note_one_name,
)
from clipadapt.engine.imbalance import Choice as ImbalanceChoice
from clipadapt.engine.imbalance import Imbalance
from clipadapt.engine.loaders import LoaderMaker, make_loader
from clipadapt.engine.memory import max_rows, reset_peak_memory, texts_at_once
from clipadapt.engine.phases import check_phases
from clipadapt.engine.pseudo_labels import Choice, PseudoLabels, pseudo_labelled
from clipadapt.engine.run import Run
from clipadapt.engine.settings import Settings
from clipadapt.features.encoder import MICRO_BATCH
from clipadapt.features.loader import ProgressFactory, no_progress
from clipadapt.features.memory import budget
from clipadapt.features.task_views import LazySupportView
from clipadapt.interfaces import SupportView
from clipadapt.objectives.base import Objective
from clipadapt.tasks import Head, task_kind
from clipadapt.test_time.base import TestTimeMethod


def prepare_run(
    clip: DualEncoder,
    task: Task,
    make: Callable[[DualEncoder, SupportView], Adaptation],
    settings: Settings,
    progress: ProgressFactory = no_progress,
    test_time: TestTimeMethod | None = None,
    pseudo_labels: Choice | None = None,
    objective: type[Objective] = Objective,
    imbalance: ImbalanceChoice | None = None,
    loader_maker: LoaderMaker = make_loader,
) -> Run:
    """Move the backbone to its device, label unlabelled images, build the adaptation and its head, and return the run.

    Args:
        clip: the backbone.
        task: the task.
        make: builds the adaptation; called under the task's seed, with the view of the task without test data.
        settings: settings of the fit.
        progress: makes the progress bar of the encoding of images.
        test_time: the test-time method; None for none.
        pseudo_labels: which images get zero-shot CLIP's labels; None for the task's own labels, if there are any.
        objective: class of the objective.
        imbalance: how classes of unequal size are treated; None for not at all.
        loader_maker: makes the loader of features.

    Raises:
        UserError: the backbone has been rounded to another number format, a method that trains has no images, a
            validation split that is needed is empty, a test set has classes that the method can't be evaluated on, a
            method that adapts along the test stream has several processes, a batch would be split for an objective
            that needs whole batches, or images have weights that the method can't count by.
    """
    accelerator = accelerator_for(settings, test_time)
    check_whole_batch(objective, settings, accelerator.num_processes)
    check_number_format(clip, settings)
    reset_peak_memory(accelerator.device)
    for one in [clip, *(test_time.teachers if test_time is not None else ())]:
        one.to(accelerator.device, DTYPES[settings.precision])
    loader = loader_maker(accelerator, settings, progress, task_kind(task))
    task, guessed = pseudo_labelled(clip, task, loader, pseudo_labels)
    torch.manual_seed(task.seed)
    known = LazySupportView(clip, task.without_tests(), loader)
    adaptation = make(clip, known).to(accelerator.device)
    check_adaptation(adaptation, clip, task, settings, objective, guessed)
    check_imbalance(imbalance, adaptation, task, settings)
    check_test_time(test_time, task_kind(task), adaptation, task)
    head = make_head(clip, adaptation, task, accelerator, settings, test_time)
    return Run(
        accelerator,
        clip,
        task,
        head,
        settings,
        loader,
        loader.placement(head, task),
        known,
        test_time,
        pseudo_labels=guessed,
        imbalance=make_imbalance(imbalance, task, settings),
    )


def check_adaptation(
    adaptation: Adaptation,
    clip: DualEncoder,
    task: Task,
    settings: Settings,
    objective: type[Objective],
    guessed: PseudoLabels | None,
) -> None:
    """Check an adaptation against the objective, the settings and the task, which has the guessed labels.

    Raises:
        UserError: they don't go together.
    """
    note_one_name(adaptation, task)
    check_distance(objective, adaptation)
    check_phases(adaptation, settings.phases)
    check_text_logits(objective, adaptation, clip, len(task.class_names))
    check_images(adaptation, task, settings, guessed)
    check_weights(adaptation, task)
    task_kind(task).check(adaptation, task)


def make_head(
    clip: DualEncoder,
    adaptation: Adaptation,
    task: Task,
    accelerator: Accelerator,
    settings: Settings,
    test_time: TestTimeMethod | None,
) -> Head:
    """Return CLIP with the adaptation, which processes as many text rows at once as memory permits."""
    processes = accelerator.num_processes
    memory = budget(settings.memory, accelerator.device, processes) / texts_at_once(adaptation, test_time)
    images = -(-settings.batch_size // (settings.gradient_accumulation_steps * processes))
    with accelerator.autocast():
        rows = max_rows(clip, adaptation, task.class_names, memory, images, MICRO_BATCH)
        return task_kind(task).head(clip, adaptation, task.class_names, rows, settings.activation_checkpointing)


def make_imbalance(choice: ImbalanceChoice | None, task: Task, settings: Settings) -> Imbalance | None:
    """Return how a task's classes of unequal size are treated; None for not at all."""
    if choice is None:
        return None
    return Imbalance(choice, task.support.labels, len(task.class_names), settings.logit_adjustment_tau)
