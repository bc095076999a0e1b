"""Accuracy and calibration on test images: the only place that reads test labels."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor
from torchmetrics import MetricCollection
from torchmetrics.classification import (
    MulticlassAccuracy,
    MulticlassCalibrationError,
    MulticlassConfusionMatrix,
)

NO_LABEL = -1


@dataclass(frozen=True)
class Evaluation:
    """What is measured on one test set.

    Attributes:
        accuracy: share of the images whose most probable class is theirs.
        calibration_error: expected calibration error, 15 bins.
        per_class: accuracy within each class, NaN for a class without test images; C.
        confusion: number of images by true (row) and predicted class, C x C.
        images: their number.
        predicted: the most probable class of each of this process's images, in their order.
    """

    accuracy: float
    calibration_error: float
    per_class: list[float]
    confusion: list[list[int]]
    images: int
    predicted: list[int]


def evaluate_batches(
    predict: Callable[[Tensor], Tensor], batches: Iterable[tuple[Tensor, Tensor]], classes: int, device: torch.device
) -> Evaluation:
    """Measure on this process's batches; with several processes, their counts are summed.

    Args:
        predict: activations to logits `[B, C]`.
        batches: activations and labels `[B]`.
        classes: number C of classes.
        device: where the counting is done.
    """
    metrics = MetricCollection(
        {
            "accuracy": MulticlassAccuracy(classes, average="micro", ignore_index=NO_LABEL),
            "calibration_error": MulticlassCalibrationError(classes, n_bins=15, ignore_index=NO_LABEL),
            "confusion": MulticlassConfusionMatrix(classes, ignore_index=NO_LABEL),
        },
        compute_groups=False,
    ).to(device)
    nothing = torch.zeros(1, classes, device=device), torch.full((1,), NO_LABEL, device=device)
    metrics.update(*nothing)  # a process without images has something to add, too
    predicted: list[Tensor] = []
    for x, labels in batches:
        probabilities = predict(x).float().softmax(dim=-1)
        metrics.update(probabilities, labels)
        predicted.append(probabilities.argmax(dim=-1))
    values = metrics.compute()
    confusion = values["confusion"].long()
    counts = confusion.sum(dim=1)
    return Evaluation(
        accuracy=values["accuracy"].item(),
        calibration_error=values["calibration_error"].item(),
        per_class=(confusion.diagonal() / counts).tolist(),
        confusion=confusion.tolist(),
        images=int(counts.sum()),
        predicted=torch.cat(predicted).tolist() if predicted else [],
    )
