"""Weights of the towers, trained themselves."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from clipadapt.adaptations.base import Adaptation, Edit
from clipadapt.adaptations.blocks import Which, names
from clipadapt.backbone.open_clip import CLIP
from clipadapt.errors import UserError
from clipadapt.interfaces import SupportView


class FullFinetuning(Adaptation):
    """All weights of a tower, end to end (WiSE-FT's fine-tuning: Wortsman et al., CVPR 2022, arXiv:2109.01903).

    They are float32 copies of the frozen ones; those of a ResNet's batch norms go on with the frozen statistics.

    Args:
        clip: the frozen backbone.
        task: class names and templates.
        towers: which towers.

    Raises:
        UserError: there are no such weights in a tower.
    """

    def __init__(self, clip: CLIP, task: SupportView, towers: Which = "image") -> None:
        super().__init__(clip, task)
        self.start: dict[str, nn.Parameter] = {}
        points: dict[str, list[str]] = {}
        for tower in names(towers):
            chosen = {point: self._chosen(weights) for point, weights in clip.weights(tower).items()}
            points[tower] = [point for point, weights in chosen.items() if weights]
            if not points[tower]:
                raise UserError(f"the {tower} tower of this backbone has no weights that could be trained")
            self.start |= {name: weight for weights in chosen.values() for name, weight in weights.items()}
        own = {name: nn.Parameter(weight.detach().clone().float()) for name, weight in self.start.items()}
        for name, weight in own.items():
            self.register_parameter(slashed(name), weight)
        built = clip.towers_with(own)
        self.replaced: dict[str, dict[str, Any]] = {
            tower: {point: built[tower].blocks.get(point, built[tower].stages[point]) for point in each}
            for tower, each in points.items()
        }

    def _chosen(self, weights: Mapping[str, nn.Parameter]) -> dict[str, nn.Parameter]:
        return {name: weight for name, weight in weights.items() if self.trains(name)}

    def trains(self, name: str) -> bool:
        """Whether the weight of this name is trained."""
        return True

    def stages(self, tower: str) -> Mapping[str, Edit]:
        """Return the stages of a tower with trained weights."""
        return self.replaced.get(tower, {})

    def interpolate(self, ratio: float) -> None:
        """Weights between the frozen and the trained ones (WiSE-FT, equation 1)."""
        with torch.no_grad():
            for name, start in self.start.items():
                weight = self.get_parameter(slashed(name))
                weight.lerp_(start.to(weight), 1 - ratio)


class BiasFinetuning(FullFinetuning):
    """BitFit: the biases of a tower alone (Ben Zaken et al., ACL 2022, arXiv:2106.10199, section 3).

    Args:
        clip: the frozen backbone.
        task: class names and templates.
        towers: which towers.

    Raises:
        UserError: there are none in a tower.
    """

    def trains(self, name: str) -> bool:
        """Whether the weight of this name is a bias."""
        return name.endswith("bias")


def slashed(name: str) -> str:
    """A weight's name in the model as one that can be registered."""
    return name.replace(".", "/")
