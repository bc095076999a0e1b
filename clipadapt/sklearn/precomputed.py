"""Features that are given, in place of those that towers compute: an encoder and a loader for the same fits."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from clipadapt.backbone.dual_encoder import DualEncoder
from clipadapt.backbone.rows import Prompt
from clipadapt.backbone.text import PromptLayout
from clipadapt.backbone.towers import Stage, Tower
from clipadapt.data.tasks import Augment, Split, Task
from clipadapt.engine.settings import Settings
from clipadapt.errors import UserError
from clipadapt.features.batch_sources import InMemoryFeatures
from clipadapt.features.loader import CachePlacement, FeatureLoader, Processes, ProgressFactory
from clipadapt.model import AdaptedCLIP
from clipadapt.tasks import TaskKind

NAME = "precomputed features"


@dataclass(frozen=True)
class GivenText:
    """Text features `[C, 1, D]` in the place of prompts that are tokenized."""

    features: Tensor

    def run(
        self,
        tower: Tower,
        edits: Mapping[str, Stage] | None = None,
        stages: Mapping[str, Stage] | None = None,
        start: str | None = None,
        stop: str | None = None,
    ) -> Any:
        """Return the features, edited if asked for; arguments as of `Tower.run`."""
        return tower.run(self.features, edits, stages, start, stop)


class PrecomputedEncoder(DualEncoder):
    """A dual encoder whose inputs are features, and whose text features are one vector for each class.

    Its towers have the point `features` alone, so that what edits an earlier one is refused.

    Args:
        class_weights: the text features, `[C, D]`.
        scale: the factor on cosine similarities.
    """

    def __init__(self, class_weights: Tensor, scale: float) -> None:
        model = nn.Module()
        model.class_weights = nn.Parameter(class_weights)
        super().__init__(
            model,
            {"name": NAME},
            scale=scale,
            preprocess={},
            transform=_no_images,
            tokenizer=f"{NAME} have no tokenizer",
            layout=PromptLayout(),
            width=class_weights.shape[-1],
        )

    def build_towers(self, model: Any) -> dict[str, Tower]:
        """Return towers without stages."""
        return {"image": Tower("image", {}), "text": Tower("text", {})}

    def tokenize_in_chunks(
        self, prompts: Sequence[Sequence[Prompt]], max_rows: int | None = None, unshared_prefix: bool = False
    ) -> Any:
        """Return the text features of all classes, whatever their prompts."""
        return GivenText(self.text_features(""))

    def text_features(self, prompts: Sequence[str | Sequence[Prompt]] | str) -> Tensor:
        """Return the text features `[C, 1, D]` of all classes, whatever their prompts."""
        features: Tensor = self.model.class_weights.detach()
        return features[:, None]


def _no_images(image: Any) -> Tensor:
    raise UserError(f"{NAME} are given in place of images")


@dataclass(frozen=True)
class PrecomputedLoader(FeatureLoader):
    """A loader of splits whose images are features `[N, D]`, which lie in memory."""

    def placement(self, model: AdaptedCLIP, task: Task) -> CachePlacement:
        """Return a place in memory."""
        return CachePlacement(in_memory=True, on_disk=False)

    def support(self, model: AdaptedCLIP, task: Task, placement: CachePlacement) -> InMemoryFeatures:
        """Return the batch source of the support set."""
        labels = self.collate(task.support.labels).to(self.processes.device)
        return InMemoryFeatures(self.values(model, task.support, 1, "none"), labels, model.image_cut)

    def values(self, model: AdaptedCLIP, split: Split, views: int, augment: Augment) -> Tensor:
        """Return a split's features `[1, N, D]`, on the device."""
        return cast(Tensor, split.images).to(self.processes.device)[None]


def make_precomputed_loader(
    processes: Processes, settings: Settings, progress: ProgressFactory, kind: TaskKind
) -> PrecomputedLoader:
    """Return the loader of a run on features; arguments as of `engine.loaders.make_loader`."""
    return PrecomputedLoader(processes, progress=progress, collate=kind.collate)


def class_means(features: Tensor, labels: Sequence[int], classes: int) -> Tensor:
    """Return the mean `[C, D]` of the unit features `[N, D]` of each class, in the place of text features."""
    unit = nn.functional.normalize(features, dim=-1)
    where = torch.tensor(labels)
    sums = torch.zeros(classes, features.shape[-1]).index_add(0, where, unit)
    return sums / where.bincount(minlength=classes).clamp(min=1)[:, None]
