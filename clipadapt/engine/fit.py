"""Fitting by gradient."""

import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from clipadapt.data.seeds import hash_seed
from clipadapt.engine.batches import BatchSampler, MicroBatch
from clipadapt.engine.learner import Learner
from clipadapt.engine.snapshot import copied
from clipadapt.errors import DivergenceError
from clipadapt.features.batch_sources import BatchIterator, BatchSource
from clipadapt.objectives.base import GradientRule, WeightAverage
from clipadapt.tasks.base import TaskKind

Row = dict[str, float]


@dataclass
class TrainState:
    """How far a fit has come, and all it takes to go on.

    Attributes:
        epoch: number of epochs done.
        history: of each, its mean losses, training accuracy and learning rate.
        seconds: spent so far.
        state: of the learned tensors, the optimiser and the schedule; empty before the first epoch. The fit writes each
            epoch's into the same tensors: copy what shall outlast the next epoch.
        fingerprint: the task's, to detect that its images have changed.
    """

    epoch: int = 0
    history: list[Row] = field(default_factory=list)
    seconds: float = 0.0
    state: dict[str, Any] = field(default_factory=dict)
    fingerprint: str = ""


class PerLossGradients:
    """The gradients of each of several losses over a batch's parts, and what a rule makes of them.

    Args:
        rule: what becomes of the gradients.
        parameters: what is learned.
    """

    def __init__(self, rule: GradientRule, parameters: list[nn.Parameter]) -> None:
        self.rule = rule
        self.parameters = parameters
        self.gradients: dict[str, list[Tensor]] = {}

    def add(self, losses: dict[str, Tensor]) -> None:
        """Add the gradients of a part's losses."""
        for name, loss in losses.items():
            found = torch.autograd.grad(loss, self.parameters, retain_graph=True, materialize_grads=True)
            before = self.gradients.get(name)
            self.gradients[name] = [*found] if before is None else [a + b for a, b in zip(before, found, strict=True)]

    def apply(self, accelerator: Accelerator) -> None:
        """Give the optimiser what the rule makes of the gradients' averages over processes."""
        averaged = {name: accelerator.reduce(found, reduction="mean") for name, found in self.gradients.items()}
        for parameter, gradient in zip(self.parameters, self.rule(averaged), strict=True):
            parameter.grad = gradient


@dataclass
class Fit:
    """A fit of a learner to a support set.

    Attributes:
        accelerator: the processes and the number format.
        learner: what is fitted.
        optimizer: over the learner's parameters.
        schedule: its learning rate, stepped every epoch.
        batches: which images make up which step.
        source: the images.
        epochs: how many there shall be.
        seed: of what is random in the learner.
        kind: the kind of task, whose score is logged.
        rule: what becomes of the gradients of several losses; their sum's where None.
        average: of what was learned after each epoch, which is what is learned in the end; the last one's where None.
    """

    accelerator: Accelerator
    learner: Learner
    optimizer: Optimizer
    schedule: LRScheduler
    batches: BatchSampler
    source: BatchSource
    epochs: int
    seed: int
    kind: TaskKind
    rule: GradientRule | None = None
    average: WeightAverage | None = None

    def run(self, progress: TrainState, after_epoch: Callable[[TrainState], None]) -> TrainState:
        """Go on from where `progress` stands to the last epoch.

        Raises:
            DivergenceError: a loss was not finite.
        """
        wrapped, optimizer = self.accelerator.prepare(self.learner, self.optimizer)
        self.learner.train()
        if progress.state:
            self._restore(progress.state)
        good, average = copied(self._state()), progress.state.get("average", {})
        if progress.state:
            progress.state = {**good, "average": average}
        for epoch in range(progress.epoch, self.epochs):
            began = time.monotonic()
            try:
                row = self._epoch(wrapped, optimizer, epoch)
            except DivergenceError:
                self._restore(good)
                raise
            self.schedule.step()
            progress.epoch, progress.seconds = epoch + 1, progress.seconds + time.monotonic() - began
            progress.history.append(row)
            self._add_to(average, epoch)
            good = copied(self._state(), good)
            progress.state = {**good, "average": average}
            after_epoch(progress)
        if average:
            self.learner.head.adaptation.load_state_dict(average, strict=False)  # buffers aren't averaged
        return progress

    @torch.no_grad()
    def _add_to(self, average: dict[str, Tensor], epoch: int) -> None:
        """Add what was learned up to this epoch, with its weight, to the sum of the epochs before."""
        if self.average is None:
            return
        weight = self.average.weights(self.epochs)[epoch]
        for name, value in self.learner.head.adaptation.named_parameters():
            if name in average:
                average[name] += weight * value
            else:
                average[name] = weight * value

    def _epoch(self, wrapped: nn.Module, optimizer: Optimizer, epoch: int) -> Row:
        """One pass over the support set; nothing in it waits for the device."""
        torch.manual_seed(hash_seed(self.seed, epoch, self.batches.rank))
        rate = self.schedule.get_last_lr()[0]
        steps = list(self.batches.epoch(epoch))
        iterator = self.source.iterate([part.indices for step in steps for part in step], epoch)
        measured = [self._step(wrapped, optimizer, step, iterator) for step in steps]
        totals = self.accelerator.reduce(torch.stack(measured), reduction="mean")
        self._check(totals, epoch)
        shares = torch.tensor(self.batches.shares(), device=totals.device)
        loss, score = (shares @ totals).tolist()
        return {"epoch": epoch + 1, "loss": loss, self.kind.leads: score, "lr": rate}

    def _step(
        self, wrapped: nn.Module, optimizer: Optimizer, parts: list[MicroBatch], iterator: BatchIterator
    ) -> Tensor:
        """One optimiser step; this process's share of the batch's mean loss and of its accuracy, `[2]`."""
        measured = torch.zeros(2, device=self.accelerator.device)
        bent = PerLossGradients(self.rule, self._parameters()) if self.rule is not None else None
        for i, part in enumerate(parts):
            x, labels, *teacher_features = next(iterator)
            last = i == len(parts) - 1
            with contextlib.nullcontext() if last and bent is None else self.accelerator.no_sync(wrapped):
                losses, logits = wrapped(x, labels, self.source.start, teacher_features)
                losses = {name: part.weight * value for name, value in losses.items()}
                loss = torch.stack(list(losses.values())).sum() if bent is None else losses[bent.rule.primary_loss]
                if bent is None:
                    self.accelerator.backward(loss)
                else:
                    bent.add(losses)
            score = self.kind.score(logits.detach(), labels)
            measured += torch.stack([loss.detach().float(), part.weight * score])
        if bent is not None:
            bent.apply(self.accelerator)
        optimizer.step()
        optimizer.zero_grad()
        return measured

    def _parameters(self) -> list[nn.Parameter]:
        return list(self.learner.head.adaptation.parameters())

    def _check(self, totals: Tensor, epoch: int) -> None:
        bad = (~totals[:, 0].isfinite()).nonzero()
        if len(bad):
            self._stop(f"the loss became {float(totals[bad[0], 0])}", epoch, int(bad[0]))
        if not all(value.isfinite().all() for value in self._parameters()):
            self._stop("what is learned became infinite", epoch, len(totals) - 1)

    def _stop(self, what: str, epoch: int, step: int) -> None:
        raise DivergenceError(
            f"{what} at step {epoch * len(self.batches) + step + 1} (epoch {epoch + 1}); what was learned up to epoch "
            f"{epoch} is kept. Try a smaller engine.optimizer.lr" + self._advice()
        )

    def _advice(self) -> str:
        return "" if self.accelerator.mixed_precision == "no" else ", or engine.precision=fp32"

    def _state(self) -> dict[str, Any]:
        """The state as it is, in the very tensors that the fit goes on changing."""
        state = {
            "adaptation": self.learner.head.adaptation.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
        }
        if self.accelerator.scaler is not None:
            state["scaler"] = self.accelerator.scaler.state_dict()
        return state

    def _restore(self, state: dict[str, Any]) -> None:
        self.learner.head.adaptation.load_state_dict(state["adaptation"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])
        if self.accelerator.scaler is not None:
            self.accelerator.scaler.load_state_dict(state["scaler"])
