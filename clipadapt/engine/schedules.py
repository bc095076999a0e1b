"""Learning-rate schedules, stepped every epoch."""

import math
from collections.abc import Callable
from typing import Annotated

import torch
from annotated_types import Ge
from torch.optim import SGD, Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler


def constant(optimizer: Optimizer, epochs: int) -> LRScheduler:
    """Return the constant schedule: the optimiser's own learning rate in every epoch."""
    return LambdaLR(optimizer, lambda epoch: 1.0)


def cosine(
    optimizer: Optimizer,
    epochs: int,
    warmup_epochs: Annotated[int, Ge(0)] = 1,
    warmup_lr: Annotated[float, Ge(0)] = 1e-5,
    minimum_lr: Annotated[float, Ge(0)] = 0.0,
) -> LRScheduler:
    """Return a cosine decay per epoch after a constant warm-up, as in CoOp's code (KaiyangZhou/Dassl.pytorch, c61a1b5).

    Epoch e >= w has the rate m + (r - m) / 2 (1 + cos(pi (e - w) / E)), with w warm-up epochs of E: the decay over E
    epochs starts after the warm-up, so the last epoch's rate isn't m.

    Where groups of parameters have different rates, r is each group's own; the warm-up's rate is the same for all.

    Args:
        optimizer: holds the learning rate r.
        epochs: number E of epochs.
        warmup_epochs: number w of epochs at `warmup_lr`.
        warmup_lr: their learning rate.
        minimum_lr: the learning rate m at the end of the decay.
    """

    def make_share(base: float) -> Callable[[int], float]:
        floor = minimum_lr / base if base else 0.0

        def share(epoch: int) -> float:
            if epoch < warmup_epochs:
                return warmup_lr / base if base else 1.0
            return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * (epoch - warmup_epochs) / epochs))

        return share

    return LambdaLR(optimizer, [make_share(group["lr"]) for group in optimizer.param_groups])


def shortened(
    schedule: Callable[[Optimizer, int], LRScheduler], optimizer: Optimizer, epochs: int, taken: int
) -> LRScheduler:
    """Return a schedule of E epochs compressed into e: epoch i has the rate of epoch floor((i + 1/2) E / e).

    Args:
        schedule: makes the learning-rate schedule of an optimiser and a number of epochs.
        optimizer: holds the learning rate.
        epochs: number E of epochs of the original schedule.
        taken: number e of epochs of the fit; with e = E, the original schedule is returned.
    """
    if taken == epochs:
        return schedule(optimizer, epochs)

    def make_share(base: float) -> Callable[[int], float]:
        rates = compute_rates(schedule, base, epochs)

        def share(epoch: int) -> float:
            place = int((epoch + 0.5) * epochs / taken)
            return rates[min(place, epochs - 1)] / (base or 1.0)

        return share

    return LambdaLR(optimizer, [make_share(group["lr"]) for group in optimizer.param_groups])


def compute_rates(schedule: Callable[[Optimizer, int], LRScheduler], base: float, epochs: int) -> list[float]:
    """Return a schedule's learning rate in each epoch, for an optimiser with the learning rate `base`."""
    probe = SGD([torch.zeros(1)], lr=base)
    whole = schedule(probe, epochs)
    rates = []
    for _ in range(epochs):
        rates.append(float(whole.get_last_lr()[0]))
        probe.step()
        whole.step()
    return rates
