"""Adaptations of the features of one tower."""

from collections.abc import Mapping
from typing import Annotated, Literal

from annotated_types import Ge, Interval
from torch import Tensor, nn

from clipadapt.adaptations.base import Adaptation, Edit
from clipadapt.backbone.dual_encoder import DualEncoder
from clipadapt.errors import UserError
from clipadapt.interfaces import SupportView


class FeatureAdapter(Adaptation):
    """CLIP-Adapter: a residual two-layer MLP on features (Gao et al., IJCV 2024, arXiv:2110.04544, equation 7).

    The adapted feature is `ratio * adapter(f) + (1 - ratio) * f` for the raw feature f `[..., D]`. A ReLU follows each
    of the two layers, as in the authors' code.

    Args:
        clip: the frozen backbone.
        task: class names and templates.
        ratio: weight of the adapted feature.
        reduction: divisor of the hidden width, which is D // reduction.
        tower: whose features are adapted.

    Raises:
        UserError: `reduction` is larger than D, so that there would be no hidden channel.
    """

    def __init__(
        self,
        clip: DualEncoder,
        task: SupportView,
        ratio: Annotated[float, Interval(ge=0, le=1)] = 0.2,
        reduction: Annotated[int, Ge(1)] = 4,
        tower: Literal["image", "text"] = "image",
    ) -> None:
        super().__init__(clip, task)
        self.ratio, self.tower = ratio, tower
        self.down, self.up = bottleneck(clip.width or 0, reduction)

    def edits(self, tower: str, image: Tensor | None = None) -> Mapping[str, Edit]:
        """Return the edit that mixes the adapted feature with the tower's own."""
        return {"features": lambda x: mix(self.down, self.up, x, self.ratio)} if tower == self.tower else {}


def bottleneck(width: int, reduction: int) -> tuple[nn.Linear, nn.Linear]:
    """Return the two layers, down and up, of a bottleneck adapter for features `[..., width]`.

    Raises:
        UserError: `reduction` is larger than `width`, so that there would be no hidden channel.
    """
    if width < reduction:
        raise UserError(f"reduction {reduction} leaves no channel of the backbone's {width}: choose at most {width}")
    hidden = width // reduction
    return nn.Linear(width, hidden, bias=False), nn.Linear(hidden, width, bias=False)


def mix(down: nn.Linear, up: nn.Linear, x: Tensor, ratio: float) -> Tensor:
    """Return the weighted mean `[..., D]` of adapted and given features; a ReLU follows each of the two layers."""
    adapted = up(down(x.to(down.weight.dtype)).relu()).relu()
    return ratio * adapted + (1 - ratio) * x
