"""Settings of the fit: the keys under `engine`."""

import inspect
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, Literal

from annotated_types import Ge, Gt, Interval, MinLen
from torch.nn import Parameter
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from clipadapt.adaptations.base import Adaptation
from clipadapt.paths import LocalPath


@dataclass(frozen=True)
class Settings:
    """Optimiser, schedule, number format and limits of memory and time of a fit.

    Attributes:
        epochs: passes over the support set; or a table by shots, whose entry with the largest number of shots not
            above the task's is taken.
        optimizer: makes the optimiser of the parameters.
        schedule: makes the learning-rate schedule of an optimiser and a number of epochs, stepped after every epoch.
        batch_size: images of one step, over all processes.
        max_steps: upper bound on the optimiser steps of a fit: the fit runs as many epochs as the bound allows, or a
            part of one, and the schedule is compressed into them. None: all epochs.
        gradient_accumulation_steps: number of micro-batches that a batch is split into; the gradient is that of the
            whole batch.
        precision: number format of the frozen backbone and of the forward pass; learned parameters stay float32.
        cpu: whether to use the CPU even if there is a GPU.
        workers: number of processes that read images.
        memory: gigabytes of the device that the text tower's activations may take; more classes are computed in
            chunks with activation checkpointing. None: half of the free memory.
        keep_mb: megabytes of memory that cached activations, or decoded images, may take between steps; activations
            above this limit stay on disk, images are read again. None: half of the free memory.
        cache: folder of the disk cache of frozen activations, which other runs share; None: no disk cache.
        cache_gb: gigabytes that the disk cache may take; the least recently used activations are removed first.
        activation_checkpointing: recompute the image tower's activations in the backward pass, block by block, instead
            of storing them: about a third slower, in a fraction of the memory.
        compile: compile the forward pass with torch.compile; pays off from some hundred steps on a GPU.
        checkpoint_seconds: minimum number of seconds between two checkpoints.
        tracker: where the first process sends losses and figures, too; None: nowhere.
        phases: share of the epochs of each phase, for methods that are fitted in several; None: one phase.
        logit_adjustment_tau: factor on the logarithms of the classes' shares, where they are added to the logits.
        cross_validate: number of folds of the support set that the method is fitted to and measured on, too, where
            there may be nothing to test on; None: it isn't.
    """

    epochs: Annotated[int, Ge(0)] | Annotated[dict[int, Annotated[int, Ge(0)]], MinLen(1)]
    optimizer: Callable[[Iterable[Parameter]], Optimizer]
    schedule: Callable[[Optimizer, int], LRScheduler]
    batch_size: Annotated[int, Ge(1)] = 32
    max_steps: Annotated[int, Ge(1)] | None = None
    gradient_accumulation_steps: Annotated[int, Ge(1)] = 1
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    cpu: bool = False
    workers: Annotated[int, Ge(0)] = 2
    memory: Annotated[float, Gt(0)] | None = None
    keep_mb: Annotated[float, Gt(0)] | None = None
    cache: Annotated[LocalPath, MinLen(1)] | None = None
    cache_gb: Annotated[float, Gt(0)] = 20.0
    activation_checkpointing: bool = False
    compile: bool = False
    checkpoint_seconds: Annotated[float, Ge(0)] = 5.0
    tracker: Literal["tensorboard", "mlflow", "wandb", "trackio"] | None = None
    phases: Annotated[list[Annotated[float, Interval(gt=0, lt=1)]], MinLen(2)] | None = None
    logit_adjustment_tau: Annotated[float, Gt(0)] = 1.0
    cross_validate: Annotated[int, Ge(2)] | None = None

    def epochs_for(self, shots: int) -> int:
        """Return the number of epochs for a task of `shots` shots."""
        if isinstance(self.epochs, int):
            return self.epochs
        known = [most for most in self.epochs if most <= shots]
        return self.epochs[max(known) if known else min(self.epochs)]

    def epochs_within(self, shots: int, steps: int) -> int:
        """Return the number of epochs of `steps` steps each that fit in `max_steps`, at least one."""
        epochs = self.epochs_for(shots)
        return epochs if self.max_steps is None or not epochs else min(epochs, max(1, self.max_steps // steps))

    @property
    def schedule_note(self) -> str | None:
        """Return the note to show beside results of a shortened schedule; None for the method's own schedule."""
        return None if self.max_steps is None else f"quick schedule: at most {self.max_steps:,} steps"


def make_optimizer(make: Callable[..., Optimizer], adaptation: Adaptation, trained: list[Parameter]) -> Optimizer:
    """Return the optimiser of the trained parameters; those with a `rate_factor` have groups of their own.

    Args:
        make: as `optimizer` of `fused`.
        adaptation: the adaptation that is fitted.
        trained: those of its parameters that the optimiser moves.
    """
    factors = {id(parameter): part.rate_factor for part in adaptation.list_parts() for parameter in part.parameters()}
    groups: dict[float, list[Parameter]] = {}
    for parameter in trained:
        groups.setdefault(factors[id(parameter)], []).append(parameter)
    if {*groups} <= {1.0}:
        return fused(make, trained)
    made = fused(make, [{"params": own} for own in groups.values()])
    for group, factor in zip(made.param_groups, groups, strict=True):
        group["lr"] *= factor
    return made


def fused(optimizer: Callable[..., Optimizer], parameters: list[Parameter] | list[dict[str, Any]]) -> Optimizer:
    """Return the optimiser of these parameters, in PyTorch's fused implementation if there is one.

    Args:
        optimizer: a class of torch.optim, with arguments or not, or any other function that makes an optimiser.
        parameters: the learned parameters, or groups of them.
    """
    target = optimizer.func if isinstance(optimizer, partial) else optimizer
    known = inspect.signature(target).parameters
    given = optimizer.keywords if isinstance(optimizer, partial) else {}
    free = "fused" in known and not {"fused", "foreach"} & given.keys()
    return optimizer(parameters, fused=True) if free else optimizer(parameters)
