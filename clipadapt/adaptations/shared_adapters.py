"""Adapters beside the blocks of both towers, which share a layer."""

from typing import Annotated, Any

import torch
from annotated_types import Ge, Gt
from torch import Tensor, nn

from clipadapt.adaptations.blocks import BlockReplacement
from clipadapt.backbone.attention import Block
from clipadapt.backbone.dual_encoder import DualEncoder
from clipadapt.errors import UserError
from clipadapt.interfaces import SupportView


class ScaleGradient(torch.autograd.Function):
    """The identity, whose gradient is multiplied by a factor."""

    @staticmethod
    def forward(context: Any, x: Tensor, factor: float) -> Tensor:
        """Return `x` as it is."""
        context.factor = factor
        return x.view_as(x)

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        """Return the gradient times the factor."""
        return context.factor * gradients[0], None


class SharedAdapter(nn.Module):
    """A bottleneck with a layer inside that another adapter may share; each layer but the last is followed by a ReLU.

    The output is multiplied by a scale, but the gradients of the layers are those of an output that isn't: they are
    1 / scale times the derivatives. The gradient to the input is the derivative.

    Args:
        width: channels of input and output.
        shared: the layer inside.
        scale: factor on the output.
    """

    def __init__(self, width: int, shared: nn.Linear, scale: float) -> None:
        super().__init__()
        self.down, self.shared, self.up = linear(width, shared.in_features), shared, linear(shared.in_features, width)
        self.scale = scale

    def forward(self, x: Tensor) -> Tensor:
        """Return the scaled output for rows `x [..., W]`."""
        x = ScaleGradient.apply(x, self.scale)
        x = self.up(self.shared(self.down(x).relu()).relu())
        return self.scale * ScaleGradient.apply(x, 1 / self.scale)


def linear(inputs: int, outputs: int) -> nn.Linear:
    """Return a layer with normally distributed weights for a ReLU after it (He et al., ICCV 2015), and zero biases."""
    layer = nn.Linear(inputs, outputs)
    nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
    nn.init.zeros_(layer.bias)
    return layer


class SharedAdapters(BlockReplacement):
    """MMA, the Multi-Modal Adapter: adapters beside the blocks of both towers (Yang et al., CVPR 2024, not on arXiv).

    The output of an adapter for the normed input of a block is added to the block's output. Blocks of the same number
    in both towers share the layer inside of their adapters.

    Args:
        clip: the frozen backbone.
        task: class names and templates.
        first: the first block with an adapter, counted from 1; None leaves out a third: 5 of 12.
        last: the last block with an adapter; None for the last one of the tower with fewer blocks.
        inner: channels inside of an adapter.
        scale: factor on the adapters' outputs; the gradients of the adapters are those of outputs without it.

    Raises:
        UserError: a tower has no blocks, or there are no blocks of these numbers.
    """

    required_points = ("image.block.0", "text.block.0")

    def __init__(
        self,
        clip: DualEncoder,
        task: SupportView,
        first: Annotated[int, Ge(1)] | None = None,
        last: Annotated[int, Ge(1)] | None = None,
        inner: Annotated[int, Ge(1)] = 32,
        scale: Annotated[float, Gt(0)] = 0.001,
    ) -> None:
        count = min(len(clip.tower(tower).blocks) for tower in ("image", "text"))
        first, last = first or count // 3 + 1, last or count
        if count and not first <= last <= count:
            raise UserError(
                f"there are no blocks {first} to {last} in both towers, which have {count} in common: choose "
                f"method.adaptation.first and last between 1 and {count}"
            )
        self.shared = {number: linear(inner, inner) for number in range(first - 1, last)}
        self.scale = scale
        self.sizes = {tower: clip.widths.get(tower) or 0 for tower in ("image", "text")}
        super().__init__(clip, task)

    def change(self, name: str, block: Block) -> None:
        """Put an adapter beside a block, if it is one of the chosen ones."""
        tower, _, number = name.split(".")
        if (shared := self.shared.get(int(number))) is not None:
            block.beside = SharedAdapter(self.sizes[tower], shared, self.scale)
