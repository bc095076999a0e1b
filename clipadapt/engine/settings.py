"""How a method is fitted: the knobs under `engine`."""

import inspect
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Literal

from annotated_types import Ge, Gt, MinLen
from torch.nn import Parameter
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler


@dataclass(frozen=True)
class Settings:
    """Optimiser, schedule and the way the steps are computed.

    Attributes:
        epochs: passes over the support set; or a table by shots, of which the entry for the most shots that are not
            above the task's counts.
        optimizer: parameters to optimiser.
        schedule: optimiser and number of epochs to learning-rate schedule, stepped after every epoch.
        batch_size: images of one step, over all processes.
        max_steps: optimiser steps of a fit at the most: it takes as many epochs as they allow, or a part of one, and
            goes through the schedule in these. None: all epochs.
        gradient_accumulation_steps: micro-batches that a batch is computed in; the gradient is that of the
            whole batch.
        precision: number format of the frozen backbone and of the forward pass; what is learned stays float32.
        cpu: stay on the CPU where there is a GPU.
        workers: processes that read images.
        memory: gigabytes of the device that the text side's activations may take; more classes are computed in
            chunks, whose activations are computed again for their gradients. None: half of what is free.
        keep_mb: megabytes of memory that activations which can't change, or images read, may take between steps; what
            is more stays on disk, or is read again. None: half of what is free.
        cache: folder in which activations that can't change are kept for other runs; None: nowhere.
        cache_gb: gigabytes that all of them may take there; the longest unused give way.
        activation_checkpointing: compute the image tower's activations again for their gradients, block by block,
            instead of keeping them: about a third slower, in a fraction of the memory.
        compile: compile the forward pass with torch.compile; pays off from some hundred steps on a GPU.
        checkpoint_seconds: at least so many seconds pass between checkpoints.
    """

    epochs: Annotated[int, Ge(0)] | dict[int, Annotated[int, Ge(0)]]
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
    cache: Annotated[str, MinLen(1)] | None = None
    cache_gb: Annotated[float, Gt(0)] = 20.0
    activation_checkpointing: bool = False
    compile: bool = False
    checkpoint_seconds: Annotated[float, Ge(0)] = 5.0

    def epochs_for(self, shots: int) -> int:
        """Number of epochs for a task of so many shots."""
        if isinstance(self.epochs, int):
            return self.epochs
        known = [most for most in self.epochs if most <= shots]
        return self.epochs[max(known) if known else min(self.epochs)]

    def epochs_within(self, shots: int, steps: int) -> int:
        """Number of epochs, of so many steps each, that `max_steps` leaves of those for a task; not less than one."""
        epochs = self.epochs_for(shots)
        return epochs if self.max_steps is None or not epochs else min(epochs, max(1, self.max_steps // steps))

    @property
    def schedule_note(self) -> str | None:
        """What has to stand beside every result of a fit that isn't the method's own; None where it is."""
        return None if self.max_steps is None else f"quick schedule: at most {self.max_steps:,} steps"


def fused(optimizer: Callable[..., Optimizer], parameters: list[Parameter]) -> Optimizer:
    """The optimiser of these parameters, as one kernel for all of a step where torch has one.

    Args:
        optimizer: a class of torch.optim, with arguments or not, or anything else that makes an optimiser.
        parameters: what it steps.
    """
    target = optimizer.func if isinstance(optimizer, partial) else optimizer
    known = inspect.signature(target).parameters
    given = optimizer.keywords if isinstance(optimizer, partial) else {}
    free = "fused" in known and not {"fused", "foreach"} & given.keys()
    return optimizer(parameters, fused=True) if free else optimizer(parameters)
