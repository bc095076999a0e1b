"""Checks of a method against its task, backbone and settings, before anything is trained."""

import warnings

import torch

from clipadapt.adaptations.base import Adaptation
from clipadapt.backbone.dual_encoder import DualEncoder
from clipadapt.data.tasks import Task
from clipadapt.engine.accelerator import DTYPES
from clipadapt.engine.pseudo_labels import PseudoLabels
from clipadapt.engine.settings import Settings
from clipadapt.errors import UserError, join_names
from clipadapt.objectives.base import Objective
from clipadapt.tasks import TaskKind
from clipadapt.test_time.base import TestTimeMethod

SHOWN = 5
"""Names of classes in a sentence."""


def check_number_format(clip: DualEncoder, settings: Settings) -> None:
    """Check that no earlier run rounded a backbone to another number format than a run's.

    Raises:
        UserError: one did.
    """
    if clip.dtype not in (torch.float32, DTYPES[settings.precision]):
        raise UserError(f"an earlier run rounded this backbone to {clip.dtype}: load it again for {settings.precision}")


def check_whole_batch(objective: type[Objective], settings: Settings, processes: int) -> None:
    """Check that no batch is split for an objective that needs whole batches.

    Raises:
        UserError: gradient accumulation or several processes would split a batch.
    """
    steps = settings.gradient_accumulation_steps
    if objective.needs_whole_batch and (steps > 1 or processes > 1):
        raise UserError(
            f"{objective.__name__} compares all images of a batch with each other, so that a batch can't be split "
            f"(gradient accumulation steps: {steps}, processes: {processes}): use engine.gradient_accumulation_steps=1 "
            "in one process"
        )


def check_distance(objective: type[Objective], adaptation: Adaptation) -> None:
    """Check that an adaptation has the start that an objective measures the distance from.

    Raises:
        UserError: it has none.
    """
    if objective.needs_distance:
        with torch.no_grad():
            adaptation.squared_distance()


def check_text_logits(objective: type[Objective], adaptation: Adaptation, clip: DualEncoder, classes: int) -> None:
    """Check that an adaptation has logits of class embeddings, if the objective needs them.

    Raises:
        UserError: it has none.
    """
    if not objective.needs_text_logits:
        return
    with torch.no_grad():
        found = adaptation.text_logits(torch.zeros(classes, clip.width or 0, device=clip.device))
    if found is None:
        raise UserError(
            f"{objective.__name__} needs a head that classifies texts, too: add "
            "+adaptation@method.also.head=decoupled_head, or take objective@method.objective=cross_entropy"
        )


def check_images(adaptation: Adaptation, task: Task, settings: Settings, guessed: PseudoLabels | None) -> None:
    """Check that a task has the training and validation images that an adaptation needs.

    Raises:
        UserError: there are no training images, or no validation images.
    """
    if settings.epochs_for(task.shots) and adaptation.has_parameters:
        task.check_has_images()
    if adaptation.capabilities.needs_validation and not len(task.validation):
        advice = "take fewer shots, give it a folder val/" if guessed is None else "it needs labels"
        if (switch := adaptation.capabilities.validation_switch) is not None:
            advice = f"{advice}, or set method.adaptation.{switch}=false, which does without"
        raise UserError(
            f"this method chooses its weights on a validation split, and '{task.name}' has no images left for one: "
            f"{advice}"
        )


def check_test_time(test_time: TestTimeMethod | None, kind: TaskKind, adaptation: Adaptation, task: Task) -> None:
    """Check that a method can adapt to a task's test sets.

    Raises:
        UserError: the task is no classification, the method can't adapt what the adaptation makes of CLIP, or a test
            set has too few images.
    """
    if test_time is None:
        return
    if not kind.probabilities:
        raise UserError("methods that adapt at test time are for classification: leave method.test_time null")
    test_time.check(adaptation)
    for name, split in task.tests.items():
        if len(split) < test_time.fewest_images:
            raise UserError(
                f"this method needs at least {test_time.fewest_images} images of a test set together, and '{name}' has "
                f"{len(split)}: add some, or leave method.test_time null"
            )


def check_weights(adaptation: Adaptation, task: Task) -> None:
    """Check that a method can weigh the images that it learns from, if their weights differ.

    Raises:
        UserError: it can't.
    """
    weights = task.support.weights or []
    if len({*weights}) > 1 and not adaptation.capabilities.weighs_images:
        raise UserError(
            "the images to learn from have weights that differ, and this method counts all of them the same: leave the "
            "weights out, or take method=linear_probe, whose loss they multiply"
        )


def check_imbalance(choice: str | None, adaptation: Adaptation, task: Task, settings: Settings) -> None:
    """Check that a setting for classes of unequal size has a fit by gradient to act on.

    Raises:
        UserError: nothing is learned by gradient, the task has no classes, or a tau is set that nothing reads.
    """
    if settings.logit_adjustment_tau != 1 and choice != "logit_adjustment":
        raise UserError("engine.logit_adjustment_tau acts with method.imbalance=logit_adjustment alone: set both")
    if choice is None:
        return
    if not (settings.epochs_for(task.shots) and adaptation.has_parameters):
        raise UserError(
            f"method.imbalance={choice} acts on what is learned by gradient, and this method learns nothing so"
        )
    if not all(isinstance(label, int) for label in task.support.labels):
        raise UserError(f"method.imbalance={choice} is for classes, and this kind of task has other targets")


def note_one_name(adaptation: Adaptation, task: Task) -> None:
    """Warn if classes have several names for CLIP, and the method learns what stands before one name."""
    several = [name for name, names in task.words.items() if len(names) > 1]
    if several and adaptation.capabilities.one_name:
        warnings.warn(
            f"this method learns words that stand before one name of each class: of {join_names(several, SHOWN)} it "
            "takes the first name; zero-shot CLIP beside it averages over all",
            stacklevel=4,
        )
