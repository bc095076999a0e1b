"""Bottleneck adapters inside of blocks, of plain or of hypercomplex layers, which may be shared."""

import math
from collections.abc import Mapping
from typing import Annotated, Any, cast

import torch
from annotated_types import Ge
from torch import Tensor, nn
from torch.nn import functional

from clipadapt.adaptations.blocks import BlockReplacement, Which, names
from clipadapt.backbone.attention import Block
from clipadapt.backbone.dual_encoder import DualEncoder
from clipadapt.errors import UserError
from clipadapt.interfaces import SupportView

RULE_DEVIATION = 1e-4
"""Standard deviation of a rule's initial values: the released code's default."""


class HypercomplexLinear(nn.Module):
    """A layer whose matrix is a sum of n Kronecker products, as in Compacter (VL-Adapter: arXiv:2112.06825).

    Args:
        inputs: channels of the input.
        outputs: channels of the output.
        division: number n of products, which divides both.
        rank: rank of the second factors; None for full matrices.
        rule: the first factors `[n, n, n]`, which layers may share; None for own ones.
    """

    def __init__(self, inputs: int, outputs: int, division: int, rank: int | None, rule: nn.Parameter | None) -> None:
        super().__init__()
        self.rule = nn.Parameter(RULE_DEVIATION * torch.randn(division, division, division)) if rule is None else rule
        rows, columns = inputs // division, outputs // division
        if rank is None:
            self.weight = _glorot(division, rows, columns)
        else:
            self.left, self.right = _glorot(division, rows, rank), _glorot(division, rank, columns)
        self.rank, self.bias = rank, nn.Parameter(torch.zeros(outputs))

    def matrix(self) -> Tensor:
        """Return the matrix `[inputs, outputs]`: the sum of the products, the rule's entries outside."""
        second = self.weight if self.rank is None else self.left @ self.right
        return torch.einsum("nac,nij->aicj", self.rule, second).flatten(2).flatten(0, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Return the output for rows `x [..., inputs]`."""
        return x @ self.matrix().to(x.dtype) + self.bias.to(x.dtype)


def _glorot(*shape: int) -> nn.Parameter:
    """Return matrices `[n, rows, columns]`, each uniformly distributed with a gain of sqrt(2)."""
    bound = math.sqrt(2) * math.sqrt(6 / (shape[-2] + shape[-1]))
    return nn.Parameter(torch.empty(shape).uniform_(-bound, bound))


class Bottleneck(nn.Module):
    """A residual adapter: the input plus what two layers with a GELU between them make of it.

    Args:
        down: the layer to fewer channels.
        up: the layer back.
        before: norm of the input of `down`; none if None.
        after: norm of the output of `up`; none if None.
    """

    def __init__(
        self, down: nn.Module, up: nn.Module, before: nn.Module | None = None, after: nn.Module | None = None
    ) -> None:
        super().__init__()
        self.before, self.down, self.up, self.after = before or nn.Identity(), down, up, after or nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Return the output for rows `x [..., W]`."""
        return x + self.after(self.up(functional.gelu(self.down(self.before(x)), approximate="tanh")))


class AdapterFamily:
    """Makes adapters of any width; those of the same width may share layers, and they share their norms.

    Args:
        reduction: divisor of the width inside of an adapter.
        share_down: whether adapters of the same width share the layer to fewer channels.
        share_up: whether they share the layer back.
        norm_before: whether there is a layer norm before the adapter.
        norm_after: whether there is a layer norm before its residual.
        division: number of Kronecker products of each layer; None for plain layers.
        factorized: whether the products' second factors are products of two matrices themselves.
        rank: the rank of these; without effect where `factorized` is false.
        shared_rule: whether all layers share the products' first factors.
    """

    def __init__(
        self,
        reduction: int,
        share_down: bool,
        share_up: bool,
        norm_before: bool,
        norm_after: bool,
        division: int | None,
        factorized: bool,
        rank: int,
        shared_rule: bool,
    ) -> None:
        self.reduction, self.division, self.rank = reduction, division, rank if factorized else None
        wanted = {"down": share_down, "up": share_up, "before": norm_before, "after": norm_after}
        self.kept = [kind for kind, yes in wanted.items() if yes]
        self.shared_rule, self.rule = shared_rule, cast(nn.Parameter | None, None)
        self.parts: dict[tuple[str, int], nn.Module] = {}

    def adapter(self, width: int) -> Bottleneck:
        """Return another adapter for rows of `width` channels.

        Raises:
            UserError: `reduction` leaves no channel, or `division` doesn't divide the channels.
        """
        inner = width // self.reduction
        if not inner:
            raise UserError(f"reduction {self.reduction} leaves no channel of {width}: choose at most {width}")
        if self.division is not None and (width % self.division or inner % self.division):
            raise UserError(f"division {self.division} doesn't divide {width} and {inner} channels: choose another one")
        norms = {
            kind: self._kept(kind, width, nn.LayerNorm(width)) for kind in ("before", "after") if kind in self.kept
        }
        down, up = self._layer("down", width, inner), self._layer("up", inner, width)
        return Bottleneck(down, up, **norms)

    def _layer(self, kind: str, inputs: int, outputs: int) -> nn.Module:
        layer: nn.Module = nn.Linear(inputs, outputs)
        if self.division is not None:
            layer = HypercomplexLinear(inputs, outputs, self.division, self.rank, self.rule)
            self.rule = layer.rule if self.shared_rule else None
        return self._kept(kind, max(inputs, outputs), layer) if kind in self.kept else layer

    def _kept(self, kind: str, width: int, new: nn.Module) -> nn.Module:
        return self.parts.setdefault((kind, width), new)


class BlockAdapters(BlockReplacement):
    """VL-Adapter: adapters on the outputs of attention and MLP (Sung et al., CVPR 2022, arXiv:2112.06825).

    The adapter stands before the residual is added. With hypercomplex layers it is Compacter, as in the same code.

    Args:
        clip: the frozen backbone.
        task: class names and templates.
        towers: the towers whose blocks get adapters.
        reduction: divisor of the width inside of an adapter.
        share_down: whether adapters of the same width, in all blocks of both towers, share the layer to fewer channels.
        share_up: whether they share the layer back.
        norm_before: whether there is a layer norm before the adapter.
        norm_after: whether there is a layer norm before the adapter's own residual.
        block_norms: whether the blocks' own layer norms are trained, too.
        division: number of Kronecker products of each layer (Compacter); None for plain layers.
        factorized: whether the products' second factors are products of two matrices themselves.
        rank: the rank of these; without effect where `factorized` is false.
        shared_rule: whether all layers share the products' first factors.

    Raises:
        UserError: a tower has no blocks, or as of `AdapterFamily.adapter`.
    """

    def __init__(
        self,
        clip: DualEncoder,
        task: SupportView,
        towers: Which = "both",
        reduction: Annotated[int, Ge(1)] = 8,
        share_down: bool = False,
        share_up: bool = False,
        norm_before: bool = False,
        norm_after: bool = False,
        block_norms: bool = True,
        division: Annotated[int, Ge(1)] | None = None,
        factorized: bool = False,
        rank: Annotated[int, Ge(1)] = 1,
        shared_rule: bool = False,
    ) -> None:
        shared = share_down, share_up, norm_before, norm_after
        self.family = AdapterFamily(reduction, *shared, division, factorized, rank, shared_rule)
        self.block_norms, self.sizes = block_norms, {tower: clip.widths.get(tower) or 0 for tower in clip.towers}
        super().__init__(clip, task, towers)

    @classmethod
    def points_for(cls, settings: Mapping[str, Any]) -> tuple[str, ...]:
        """Return the first block of each tower whose blocks get adapters."""
        return tuple(f"{tower}.block.0" for tower in names(settings.get("towers", "both")))

    def change(self, name: str, block: Block) -> None:
        """Put adapters behind a block's attention and MLP, and let its norms be trained if they are."""
        width = self.sizes[name.partition(".")[0]]
        block.ls_1 = nn.Sequential(block.ls_1, self.family.adapter(width))
        block.ls_2 = nn.Sequential(block.ls_2, self.family.adapter(width))
        for norm in (block.ln_1, block.ln_2) if self.block_norms else ():
            for kind, weight in list(norm.named_parameters()):
                setattr(norm, kind, nn.Parameter(weight.detach().clone().float()))
