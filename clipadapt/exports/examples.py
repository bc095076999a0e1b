"""The images that an exported file is checked on."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from rich.console import Console
from torch import Tensor

from clipadapt.backbone.dual_encoder import DualEncoder
from clipadapt.data.framing import CROPPED, Framing
from clipadapt.errors import UserError
from clipadapt.runs.finished import FinishedRun
from clipadapt.runs.predictor import Predictor

BATCH, MADE = 64, 32
"""Images of a batch, and images that are made where there are no test images."""


@dataclass(frozen=True)
class Examples:
    """Images to compare an exported file with the predictor on.

    Attributes:
        pictures: RGB images.
        labels: their class numbers; None if they have none.
        source: which images they are, in words.
        framing: how images that aren't square are seen; it leaves those of a run, which are squares then, as they are.
    """

    pictures: Sequence[Image.Image]
    labels: Tensor | None
    source: str
    framing: Framing = CROPPED

    def batches(self, clip: DualEncoder) -> Iterator[Tensor]:
        """Yield pixels `[B, 3, height, width]` of the images, preprocessed by the backbone's transform."""
        for first in range(0, len(self.pictures), BATCH):
            some = [self.pictures[index] for index in range(first, min(first + BATCH, len(self.pictures)))]
            yield torch.stack([clip.transform(self.framing(picture)) for picture in some])


def find_examples(directory: Path | None, predictor: Predictor, count: int, config_dir: str | Path | None) -> Examples:
    """Return `count` of a run's test images, spread evenly; images made here where the run's can't be built.

    Args:
        directory: of the run; None for a predictor without one.
        predictor: of the run.
        count: the most images.
        config_dir: a folder of the user's own with modules that the run may name.
    """
    if directory is None:
        return make_examples("as a predictor has no test images", predictor.framing)
    try:
        task = FinishedRun(directory, config_dir).task(None, Console(quiet=True))
    except UserError as error:
        return make_examples(f"as the run's test images can't be had: {error}", predictor.framing)
    name, test = next(iter(task.tests.items()))
    chosen = test.select(np.linspace(0, len(test) - 1, min(count, len(test))).round().astype(int).tolist())
    same_classes = (test.class_names or task.class_names) == predictor.class_names
    labels = class_numbers(chosen.labels) if same_classes and chosen.labelled else None
    return Examples(
        chosen.images, labels, f"{len(chosen):,} of {len(test):,} images of the test set '{name}'", predictor.framing
    )


def class_numbers(labels: Sequence[Any]) -> Tensor | None:
    """Return targets as class numbers `[N]`; None if they are something else."""
    return torch.tensor(labels) if all(isinstance(label, int) for label in labels) else None


def make_examples(reason: str, framing: Framing = CROPPED) -> Examples:
    """Return images of smooth noise in several sizes, always the same."""
    random, pictures = np.random.default_rng(0), []
    for _ in range(MADE):
        coarse = Image.fromarray(random.integers(0, 256, (8, 8, 3), dtype=np.uint8))
        pictures.append(coarse.resize((int(random.integers(40, 300)), int(random.integers(40, 300)))))
    return Examples(pictures, None, f"{MADE} images of noise made here, {reason}", framing)
