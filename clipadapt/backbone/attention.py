"""The transformer block, and self-attention with the weights of an `nn.MultiheadAttention`."""

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

Attend = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Queries, keys and values `[..., R, H, d]` to the attended values `[..., R, H, d]`."""


def attend_all(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Every row attends to every row of its sequence: `[..., R, H, d]` each, the same out."""
    query, key, value = (x.transpose(-3, -2) for x in (query, key, value))
    return functional.scaled_dot_product_attention(query, key, value).transpose(-3, -2)


class SplitAttention(nn.Module):
    """Four linear layers over the storage of an `nn.MultiheadAttention`, so that each projection is a module.

    Args:
        attention: whose weights they share.
    """

    def __init__(self, attention: nn.MultiheadAttention) -> None:
        super().__init__()
        self.num_heads = attention.num_heads
        weights, biases = attention.in_proj_weight.chunk(3), attention.in_proj_bias.chunk(3)
        self.q_proj, self.k_proj, self.v_proj = map(_linear_over, weights, biases)
        self.out_proj = _linear_over(attention.out_proj.weight, attention.out_proj.bias)


def _linear_over(weight: Tensor, bias: Tensor) -> nn.Linear:
    """A frozen linear layer over the storage of these tensors."""
    layer = nn.Linear(weight.shape[1], weight.shape[0], device="meta")
    layer.weight = nn.Parameter(weight.detach(), requires_grad=False)
    layer.bias = nn.Parameter(bias.detach(), requires_grad=False)
    return layer


class Block(nn.Module):
    """A pre-norm residual attention block, made of the parts of a model's own block, which it shares.

    Args:
        ln_1: norm before attention.
        attn: attention.
        ls_1: what scales the attended values; nothing where None.
        ln_2: norm before the MLP.
        mlp: the MLP.
        ls_2: what scales the MLP's output; nothing where None.
    """

    def __init__(
        self,
        ln_1: nn.Module,
        attn: "nn.MultiheadAttention | SplitAttention",
        ln_2: nn.Module,
        mlp: nn.Module,
        ls_1: nn.Module | None = None,
        ls_2: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.ln_1, self.attn, self.ls_1 = ln_1, attn, ls_1 or nn.Identity()
        self.ln_2, self.mlp, self.ls_2 = ln_2, mlp, ls_2 or nn.Identity()


def split_block(block: Block) -> Block:
    """Return a copy of a block with split attention, over the same storage: parameters of its own, frozen."""
    own = {id(weight): nn.Parameter(weight.detach(), requires_grad=False) for weight in block.parameters()}
    split = copy.deepcopy(block, dict(own))
    if isinstance(split.attn, nn.MultiheadAttention):
        split.attn = SplitAttention(split.attn)
    return split


def self_attention(
    attention: nn.MultiheadAttention | SplitAttention, x: Tensor, attend: Attend, reads: Tensor | None = None
) -> Tensor:
    """Self-attention of rows `x [..., R, W]`; which row sees which is up to `attend`.

    Only the rows `reads [N]` ask, where they are given: the result is `[..., N, W]`.
    """
    query, key, value = _project(attention, x, reads)
    heads = (attention.num_heads, -1)
    attended = attend(query.unflatten(-1, heads), key.unflatten(-1, heads), value.unflatten(-1, heads))
    return attention.out_proj(attended.flatten(-2))


def _project(
    attention: nn.MultiheadAttention | SplitAttention, x: Tensor, reads: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Queries of the rows `reads`, or of all, and keys and values of all."""
    asking = x if reads is None else x.index_select(-2, reads)
    if isinstance(attention, SplitAttention):
        return attention.q_proj(asking), attention.k_proj(x), attention.v_proj(x)
    weight, bias, width = attention.in_proj_weight, attention.in_proj_bias, x.shape[-1]
    if reads is None:
        query, key, value = functional.linear(x, weight, bias).chunk(3, dim=-1)
    else:
        query = functional.linear(asking, weight[:width], bias[:width])
        key, value = functional.linear(x, weight[width:], bias[width:]).chunk(2, dim=-1)
    return query, key, value


def run_block(block: Block, x: Tensor, attend: Attend = attend_all, reads: Tensor | None = None) -> Tensor:
    """Run a block on rows `x [..., R, W]`.

    Where `reads [N]` is given, only these rows come out, `[..., N, W]`: what reads no others needs no others.
    """
    attended = self_attention(block.attn, block.ln_1(x), attend, reads)
    x = (x if reads is None else x.index_select(-2, reads)) + block.ls_1(attended)
    return x + block.ls_2(block.mlp(block.ln_2(x)))


def causal_mask(rows: int, prefix: int, device: torch.device) -> Tensor:
    """Mask `[rows, prefix + rows]`: each row sees the whole prefix, itself and the rows before it."""
    own = torch.ones(rows, rows, dtype=torch.bool, device=device).tril()
    return torch.cat([own.new_ones(rows, prefix), own], dim=1)
