"""Gradient descent: epochs, steps and accumulated gradients."""

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
from clipadapt.stopping import whole_change
from clipadapt.tasks.base import TaskKind

Row = dict[str, float]


@dataclass
class TrainState:
    """State of a fit between two epochs, from which it can be resumed.

    Attributes:
        epoch: number of epochs done.
        history: mean loss, training accuracy and learning rate of each epoch.
        seconds: training time so far.
        state: state of the learned tensors, the optimiser and the schedule; empty before the first epoch. Each epoch
            overwrites the same tensors: copy the state to use it after the next epoch.
        fingerprint: the task's fingerprint, to detect that its images have changed.
    """

    epoch: int = 0
    history: list[Row] = field(default_factory=list)
    seconds: float = 0.0
    state: dict[str, Any] = field(default_factory=dict)
    fingerprint: str = ""


class PerLossGradients:
    """Gradients of each of several losses, accumulated over a batch's micro-batches, then combined by a rule.

    Args:
        rule: combines the gradients of the losses.
        parameters: the learned parameters.
    """

    def __init__(self, rule: GradientRule, parameters: list[nn.Parameter]) -> None:
        self.rule = rule
        self.parameters = parameters
        self.gradients: dict[str, list[Tensor]] = {}

    def add(self, losses: dict[str, Tensor]) -> None:
        """Add the gradients of a micro-batch's losses."""
        for name, loss in losses.items():
            found = torch.autograd.grad(loss, self.parameters, retain_graph=True, materialize_grads=True)
            before = self.gradients.get(name)
            self.gradients[name] = [*found] if before is None else [a + b for a, b in zip(before, found, strict=True)]

    def apply(self, accelerator: Accelerator) -> None:
        """Average the gradients over processes, combine them by the rule, and set the parameters' gradients."""
        averaged = {name: accelerator.reduce(found, reduction="mean") for name, found in self.gradients.items()}
        for parameter, gradient in zip(self.parameters, self.rule(averaged), strict=True):
            parameter.grad = gradient


@dataclass
class Fit:
    """Fit of a learner to a support set by gradient descent.

    Attributes:
        accelerator: the processes, the device and the number format.
        learner: the head and its objective.
        optimizer: the optimiser of the learner's parameters.
        schedule: the learning-rate schedule, stepped every epoch.
        batches: the batch sampler.
        source: the batch source of the support set.
        epochs: number of epochs.
        seed: seed of the learner's random numbers, such as dropout.
        kind: the kind of task, whose score is logged.
        rule: combines the gradients of several losses; if None, the losses are summed.
        average: weighted average of the parameters over epochs, which the fit ends with; if None, the last epoch's.
        begins: whether a phase begins, so that what a state holds is of an earlier phase and isn't restored.
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
    begins: bool = False

    def run(self, progress: TrainState, after_epoch: Callable[[TrainState], None]) -> TrainState:
        """Train from the state `progress` to the last epoch, and call `after_epoch` after each.

        Raises:
            DivergenceError: a loss or a parameter was not finite.
        """
        wrapped, optimizer = self.accelerator.prepare(self.learner, self.optimizer)
        self.learner.train()
        earlier = {} if self.begins else progress.state
        if earlier:
            self._restore(earlier)
        good, average = copied(self._state()), earlier.get("average", {})
        if earlier:
            progress.state = {**good, "average": average}
        for epoch in range(progress.epoch, self.epochs):
            began = time.monotonic()
            try:
                row = self._epoch(wrapped, optimizer, epoch)
            except DivergenceError:
                self._restore(good)
                raise
            with whole_change():  # else a signal could leave a state that is half this epoch's
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
        """Add this epoch's parameters, times the epoch's weight, to the running average."""
        if self.average is None:
            return
        weight = self.average.weights(self.epochs)[epoch]
        for name, value in self.learner.head.adaptation.named_parameters():
            if name in average:
                average[name] += weight * value
            else:
                average[name] = weight * value

    def _epoch(self, wrapped: nn.Module, optimizer: Optimizer, epoch: int) -> Row:
        """Train for one epoch, without synchronising with the device before its end."""
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
        """Take one optimiser step; return this process's share of the batch's mean loss and of its accuracy, `[2]`."""
        measured = torch.zeros(2, device=self.accelerator.device)
        per_loss = PerLossGradients(self.rule, self._parameters()) if self.rule is not None else None
        for i, part in enumerate(parts):
            x, labels, *teacher_features = next(iterator)
            last = i == len(parts) - 1
            with contextlib.nullcontext() if last and per_loss is None else self.accelerator.no_sync(wrapped):
                losses, logits = wrapped(x, labels, self.source.start, teacher_features)
                losses = {name: part.weight * value for name, value in losses.items()}
                loss = (
                    torch.stack(list(losses.values())).sum() if per_loss is None else losses[per_loss.rule.primary_loss]
                )
                if per_loss is None:
                    self.accelerator.backward(loss)
                else:
                    per_loss.add(losses)
            score = self.kind.score(logits.detach(), labels)
            measured += torch.stack([loss.detach().float(), part.weight * score])
        if per_loss is not None:
            per_loss.apply(self.accelerator)
        optimizer.step()
        optimizer.zero_grad()
        return measured

    def _parameters(self) -> list[nn.Parameter]:
        return [value for value in self.learner.head.adaptation.parameters() if value.requires_grad]

    def _check(self, totals: Tensor, epoch: int) -> None:
        bad = (~totals[:, 0].isfinite()).nonzero()
        if len(bad):
            self._stop(f"the loss became {float(totals[bad[0], 0])}", epoch, int(bad[0]))
        if not all(value.isfinite().all() for value in self._parameters()):
            self._stop("what is learned became infinite", epoch, len(totals) - 1)

    def _stop(self, cause: str, epoch: int, step: int) -> None:
        raise DivergenceError(
            f"{cause} at step {epoch * len(self.batches) + step + 1} (epoch {epoch + 1}); what was learned up to epoch "
            f"{epoch} is kept. Try a smaller engine.optimizer.lr" + self._advice()
        )

    def _advice(self) -> str:
        return "" if self.accelerator.mixed_precision == "no" else ", or engine.precision=fp32"

    def _state(self) -> dict[str, Any]:
        """Return the current state, without copying: the tensors are those that the fit goes on changing."""
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
