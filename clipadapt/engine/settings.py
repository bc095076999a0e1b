"""How a method is fitted: the knobs under `engine`."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import Ge, Gt
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
        accumulate: parts a batch is computed in, one after another; the gradient is that of the whole batch.
        precision: number format of the frozen backbone and of the forward pass; what is learned stays float32.
        cpu: stay on the CPU where there is a GPU.
        workers: processes that read and augment images.
        keep_mb: activations that can't change are computed once and kept, if they take at most so many megabytes.
        checkpoint_seconds: at least so many seconds pass between checkpoints.
    """

    epochs: Annotated[int, Ge(0)] | dict[int, Annotated[int, Ge(0)]]
    optimizer: Callable[[Iterable[Parameter]], Optimizer]
    schedule: Callable[[Optimizer, int], LRScheduler]
    batch_size: Annotated[int, Ge(1)] = 32
    accumulate: Annotated[int, Ge(1)] = 1
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    cpu: bool = False
    workers: Annotated[int, Ge(0)] = 2
    keep_mb: Annotated[float, Gt(0)] = 2048
    checkpoint_seconds: Annotated[float, Ge(0)] = 5.0

    def epochs_for(self, shots: int) -> int:
        """Number of epochs for a task of so many shots."""
        if isinstance(self.epochs, int):
            return self.epochs
        known = [most for most in self.epochs if most <= shots]
        return self.epochs[max(known) if known else min(self.epochs)]
