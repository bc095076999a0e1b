"""Metrics on test images; the only module that reads test targets."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from clipadapt.tasks.base import Evaluation, Head, TaskKind, check_finite, not_finite
from clipadapt.tasks.uncertainty import scale_by_temperature


def evaluate_batches(
    predict: Callable[[Tensor], Tensor],
    batches: Iterable[tuple[Tensor, Tensor]],
    kind: TaskKind,
    head: Head,
    device: torch.device,
) -> Evaluation:
    """Evaluate this process's batches; metrics are reduced over all processes.

    Args:
        predict: maps activations to outputs of the head, such as logits `[B, C]`.
        batches: activations and targets `[B, ...]`.
        kind: the kind of task, which defines the metrics.
        head: the head that predicts.
        device: device of the metrics.

    Raises:
        UserError: outputs aren't finite.
    """
    from torchmetrics import MetricCollection, SumMetric  # takes a second, and only evaluation needs it

    measures = kind.metrics(head)
    metrics = MetricCollection({name: one.metric for name, one in measures.items()}, compute_groups=False).to(device)
    count = SumMetric().to(device)
    metrics.update(*kind.uncounted(head, device))  # a process without images must update its metrics, too
    images, predicted, ranked, scores = 0, list[Tensor](), list[Tensor | None](), list[Tensor | None]()
    kept: list[tuple[Tensor, Tensor]] = []
    odd = torch.zeros((), dtype=torch.bool, device=device)
    for x, targets in batches:
        outputs = predict(x)
        odd |= not_finite(outputs)
        answers = kind.answers(outputs)
        metrics.update(answers, targets)
        images += len(targets)
        predicted.append(kind.predicted(answers))
        ranked.append(kind.ranked(answers))
        scores.append(kind.scores(answers, targets, head))
        if kind.calibration:
            kept.append((answers, targets))
    check_finite(odd)  # once, as it waits for the device
    count.update(images)
    values = metrics.compute()
    return Evaluation(
        figures={name: values[name].item() for name, one in measures.items() if one.title is not None},
        details={name: values[name] for name, one in measures.items() if one.title is None},
        images=int(count.compute()),
        predicted=as_list(predicted),
        ranked=[[(int(index), share) for index, share in row] for row in as_list(ranked)],
        scores=as_list(scores),
        answers=joined(kept),
    )


def scaled_figures(
    batches: Iterable[tuple[Tensor, Tensor]], temperature: float, kind: TaskKind, head: Head, device: torch.device
) -> dict[str, float]:
    """Return the figures of calibration after temperature scaling, reduced over all processes.

    Args:
        batches: this process's probabilities `[B, C]` and targets `[B]`.
        temperature: of the scaling.
        kind: the kind of task, which names the figures.
        head: the head that answered.
        device: device of the metrics.
    """
    from torchmetrics import MetricCollection  # takes a second, and only evaluation needs it

    measures = kind.metrics(head)
    metrics = MetricCollection({name: measures[name].metric for name in kind.calibration}, compute_groups=False)
    metrics.to(device).update(*kind.uncounted(head, device))  # a process without images must update its metrics, too
    for probabilities, targets in batches:
        metrics.update(scale_by_temperature(probabilities, temperature).to(device), targets.to(device))
    return {name: value.item() for name, value in metrics.compute().items()}


def joined(batches: Sequence[tuple[Tensor, Tensor]]) -> list[tuple[Tensor, Tensor]]:
    """Return batches of answers and targets as one on the CPU, in one copy from the device; an empty list if empty."""
    if not batches:
        return []
    answers, targets = zip(*batches, strict=True)
    return [(torch.cat(answers).cpu(), torch.cat(targets).cpu())]


def as_list(parts: Sequence[Tensor | None]) -> list[Any]:
    """Return the rows of tensors as plain values, in one copy from the device; nothing if there are none."""
    found = [part for part in parts if part is not None]
    return torch.cat(found).tolist() if found else []
