"""Adaptations of what leaves the image tower."""

from collections.abc import Mapping
from typing import Annotated

from annotated_types import Ge, Interval
from torch import Tensor, nn

from clipadapt.adaptations.base import Adaptation, Edit
from clipadapt.backbone.dual_encoder import DualEncoder
from clipadapt.errors import UserError
from clipadapt.interfaces import SupportView


class FeatureAdapter(Adaptation):
    """CLIP-Adapter: a residual two-layer MLP on image features (Gao et al., IJCV 2024, arXiv:2110.04544, equation 7).

    `ratio * adapter(f) + (1 - ratio) * f` of the raw feature f `[..., D]`, with a rectifier after either layer, as the
    authors' code has it.

    Args:
        clip: the frozen backbone.
        task: class names and templates.
        ratio: weight of the adapted feature.
        reduction: the hidden layer has D // reduction channels.

    Raises:
        UserError: the reduction leaves no hidden channel.
    """

    def __init__(
        self,
        clip: DualEncoder,
        task: SupportView,
        ratio: Annotated[float, Interval(ge=0, le=1)] = 0.2,
        reduction: Annotated[int, Ge(1)] = 4,
    ) -> None:
        super().__init__(clip, task)
        self.ratio = ratio
        self.down, self.up = bottleneck(clip.width or 0, reduction)

    def edits(self, tower: str, image: Tensor | None = None) -> Mapping[str, Edit]:
        """Mix the adapted image feature into the frozen one."""
        return {"features": lambda x: mix(self.down, self.up, x, self.ratio)} if tower == "image" else {}


def bottleneck(width: int, reduction: int) -> tuple[nn.Linear, nn.Linear]:
    """The two layers of an adapter of features `[..., width]`.

    Raises:
        UserError: the reduction leaves no hidden channel.
    """
    if width < reduction:
        raise UserError(f"reduction {reduction} leaves no channel of the backbone's {width}: choose at most {width}")
    hidden = width // reduction
    return nn.Linear(width, hidden, bias=False), nn.Linear(hidden, width, bias=False)


def mix(down: nn.Linear, up: nn.Linear, x: Tensor, ratio: float) -> Tensor:
    """Features `[..., D]` and what an adapter makes of them, a rectifier after either layer."""
    adapted = up(down(x.to(down.weight.dtype)).relu()).relu()
    return ratio * adapted + (1 - ratio) * x
