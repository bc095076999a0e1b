"""Learning rates over the epochs."""

import math
from typing import Annotated

from annotated_types import Ge
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler


def constant(optimizer: Optimizer, epochs: int) -> LRScheduler:
    """The optimiser's own learning rate, all the time."""
    return LambdaLR(optimizer, lambda epoch: 1.0)


def cosine(
    optimizer: Optimizer,
    epochs: int,
    warmup_epochs: Annotated[int, Ge(0)] = 1,
    warmup_lr: Annotated[float, Ge(0)] = 1e-5,
) -> LRScheduler:
    """Cosine decay per epoch after a constant warm-up, as CoOp's code has it (KaiyangZhou/Dassl.pytorch, c61a1b5).

    Epoch e >= w has the rate r / 2 (1 + cos(pi (e - w) / E)), with w warm-up epochs of E: the decay starts anew after
    the warm-up, so the last epoch's rate isn't zero.

    Args:
        optimizer: holds the learning rate r.
        epochs: number E of epochs.
        warmup_epochs: number w of epochs at `warmup_lr`.
        warmup_lr: their learning rate.
    """
    base = optimizer.param_groups[0]["lr"]

    def share(epoch: int) -> float:
        if epoch < warmup_epochs:
            return warmup_lr / base if base else 1.0
        return 0.5 * (1 + math.cos(math.pi * (epoch - warmup_epochs) / epochs))

    return LambdaLR(optimizer, share)
