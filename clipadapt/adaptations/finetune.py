"""Fine-tuning of the towers' own weights."""

from collections.abc import Mapping
from typing import Annotated, Any

from annotated_types import Ge
from torch import nn

from clipadapt.adaptations.blocks import StageReplacement, Which, names
from clipadapt.backbone.dual_encoder import DualEncoder
from clipadapt.backbone.towers import Tower
from clipadapt.errors import UserError
from clipadapt.interfaces import SupportView

Weights = Mapping[str, Mapping[str, nn.Parameter]]
"""Weights of a tower, by the stage's point and by the weight's name in the model."""


class FullFinetuning(StageReplacement):
    """Fine-tuning of all weights of a tower (WiSE-FT: Wortsman et al., CVPR 2022, arXiv:2109.01903).

    The trained weights are float32 copies of the frozen weights. The batch norms of a ResNet are trained, too, but keep
    using the frozen running statistics.

    Args:
        clip: the frozen backbone.
        task: class names and templates.
        towers: the towers to train.

    Raises:
        UserError: a tower has no weights to train.
    """

    trained = "weights"
    """What is trained, in the plural, for messages."""

    def __init__(self, clip: DualEncoder, task: SupportView, towers: Which = "image") -> None:
        super().__init__(clip, task)
        frozen: dict[str, nn.Parameter] = {}
        points: dict[str, list[str]] = {}
        for tower in names(towers):
            chosen = self.choose(clip.tower(tower), clip.weights(tower))
            points[tower] = [point for point, weights in chosen.items() if weights]
            if not points[tower]:
                raise UserError(f"the {tower} tower of this backbone has no {self.trained} that could be trained")
            frozen |= {name: weight for weights in chosen.values() for name, weight in weights.items()}
        own = {name: nn.Parameter(weight.detach().clone().float()) for name, weight in frozen.items()}
        self.register(own)
        self.start = {name.replace(".", "/"): weight for name, weight in frozen.items()}
        built = clip.towers_with(own)
        self.replaced = {
            tower: {point: built[tower].blocks.get(point, built[tower].stages[point]) for point in each}
            for tower, each in points.items()
        }

    def choose(self, tower: Tower, weights: Weights) -> Weights:
        """Return the weights of a tower that are trained, by point and name."""
        return weights


class BiasFinetuning(FullFinetuning):
    """BitFit: fine-tuning of the biases of a tower (Ben Zaken et al., ACL 2022, arXiv:2106.10199, section 3).

    Args:
        clip: the frozen backbone.
        task: class names and templates.
        towers: the towers to train.

    Raises:
        UserError: a tower has no biases.
    """

    trained = "biases"

    def choose(self, tower: Tower, weights: Weights) -> Weights:
        """Return the biases of a tower, by point and name."""
        return {
            point: {name: weight for name, weight in own.items() if name.endswith("bias")}
            for point, own in weights.items()
        }


class ProjectionFinetuning(FullFinetuning):
    """ProLIP: fine-tuning of a tower's projection into the joint space (Fahes et al., 2024, arXiv:2410.05270).

    It is the last matrix of the tower: `proj` of a vision transformer, the output layer of a ResNet's attention pool,
    without its bias. What enters the last stage is computed once.

    Args:
        clip: the frozen backbone.
        task: class names and templates.
        towers: the towers to train; the paper's is the image tower.

    Raises:
        UserError: a tower has no projection.
    """

    trained = "projection"

    @classmethod
    def points_for(cls, settings: Mapping[str, Any]) -> tuple[str, ...]:
        """Return the last stages of the towers that are trained."""
        return tuple(f"{tower}.tokens" for tower in names(settings.get("towers", "image")))

    def choose(self, tower: Tower, weights: Weights) -> Weights:
        """Return the last matrix of a tower's last stage, by point and name."""
        matrices = [(name, weight) for name, weight in weights.get("tokens", {}).items() if weight.dim() == 2]
        return {"tokens": dict(matrices[-1:])}


class NormFinetuning(FullFinetuning):
    """Fine-tuning of layer norms (2SFS, first stage: Farina et al., CVPR 2025, arXiv:2503.11609).

    Args:
        clip: the frozen backbone.
        task: class names and templates.
        towers: the towers to train.
        image_start: the first image block whose norms are trained, counted from 0.
        text_start: the same of the text tower.
        outside_blocks: whether norms before and after the blocks are trained, too, as in the paper; not so in its code.

    Raises:
        UserError: a tower has no norms to train.
    """

    trained = "layer norms of blocks"

    @classmethod
    def points_for(cls, settings: Mapping[str, Any]) -> tuple[str, ...]:
        """Return the first block of each tower that is trained."""
        return tuple(f"{tower}.block.0" for tower in names(settings.get("towers", "both")))

    def __init__(
        self,
        clip: DualEncoder,
        task: SupportView,
        towers: Which = "both",
        image_start: Annotated[int, Ge(0)] = 0,
        text_start: Annotated[int, Ge(0)] = 0,
        outside_blocks: bool = False,
    ) -> None:
        self.starts = {"image": image_start, "text": text_start}
        self.outside_blocks = outside_blocks
        super().__init__(clip, task, towers)

    def choose(self, tower: Tower, weights: Weights) -> Weights:
        """Return the weights and biases of a tower's layer norms, by point and name."""
        blocks = [*tower.blocks.values()][self.starts[tower.name] :]
        norms = [norm for block in blocks for norm in (block.ln_1, block.ln_2)]
        if self.outside_blocks:
            norms += [part for parts in tower.weights.values() for part in parts if isinstance(part, nn.LayerNorm)]
        kept = {id(weight) for norm in norms for weight in norm.parameters()}
        return {
            point: {name: weight for name, weight in own.items() if id(weight) in kept}
            for point, own in weights.items()
        }
