"""Adaptations of what leaves the image tower."""

from collections.abc import Mapping
from typing import Annotated

from annotated_types import Ge, Interval
from torch import Tensor, nn

from clipadapt.adaptations.base import Adaptation, Edit, TaskLike
from clipadapt.backbone.clip import CLIP
from clipadapt.errors import UserError


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
        clip: CLIP,
        task: TaskLike,
        ratio: Annotated[float, Interval(ge=0, le=1)] = 0.2,
        reduction: Annotated[int, Ge(1)] = 4,
    ) -> None:
        super().__init__(clip, task)
        width = clip.width or 0
        if width < reduction:
            raise UserError(
                f"reduction {reduction} leaves no channel of the backbone's {width}: choose at most {width}"
            )
        self.ratio = ratio
        self.down = nn.Linear(width, width // reduction, bias=False)
        self.up = nn.Linear(width // reduction, width, bias=False)

    def image_edits(self) -> Mapping[str, Edit]:
        """Mixes the adapted feature into the feature."""
        return {"features": self._adapt}

    def _adapt(self, image: Tensor) -> Tensor:
        adapted = self.up(self.down(image.to(self.down.weight.dtype)).relu()).relu()
        return self.ratio * adapted + (1 - self.ratio) * image
