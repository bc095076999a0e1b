"""Fine-tuning of the towers' own weights."""

from collections.abc import Mapping

from torch import nn

from clipadapt.adaptations.blocks import StageReplacement, Which, names
from clipadapt.backbone.dual_encoder import DualEncoder
from clipadapt.errors import UserError
from clipadapt.interfaces import SupportView


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

    def __init__(self, clip: DualEncoder, task: SupportView, towers: Which = "image") -> None:
        super().__init__(clip, task)
        frozen: dict[str, nn.Parameter] = {}
        points: dict[str, list[str]] = {}
        for tower in names(towers):
            chosen = {point: self._chosen(weights) for point, weights in clip.weights(tower).items()}
            points[tower] = [point for point, weights in chosen.items() if weights]
            if not points[tower]:
                raise UserError(f"the {tower} tower of this backbone has no weights that could be trained")
            frozen |= {name: weight for weights in chosen.values() for name, weight in weights.items()}
        own = {name: nn.Parameter(weight.detach().clone().float()) for name, weight in frozen.items()}
        self.register(own)
        self.start = {name.replace(".", "/"): weight for name, weight in frozen.items()}
        built = clip.towers_with(own)
        self.replaced = {
            tower: {point: built[tower].blocks.get(point, built[tower].stages[point]) for point in each}
            for tower, each in points.items()
        }

    def _chosen(self, weights: Mapping[str, nn.Parameter]) -> dict[str, nn.Parameter]:
        return {name: weight for name, weight in weights.items() if self.trains(name)}

    def trains(self, name: str) -> bool:
        """Return whether the weight with this name is trained."""
        return True


class BiasFinetuning(FullFinetuning):
    """BitFit: fine-tuning of the biases of a tower (Ben Zaken et al., ACL 2022, arXiv:2106.10199, section 3).

    Args:
        clip: the frozen backbone.
        task: class names and templates.
        towers: the towers to train.

    Raises:
        UserError: a tower has no biases.
    """

    def trains(self, name: str) -> bool:
        """Return whether the weight with this name is a bias."""
        return name.endswith("bias")
