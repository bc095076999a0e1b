"""The transformer block, and self-attention with the weights of an `nn.MultiheadAttention`."""

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

Attend = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Maps queries, keys and values `[..., R, H, d]` to the attention output `[..., R, H, d]`."""


def attend_all(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Compute full self-attention: every row attends to every row of its sequence.

    Args:
        query: queries, `[..., R, H, d]`.
        key: keys, `[..., R, H, d]`.
        value: values, `[..., R, H, d]`.

    Returns:
        The attention output, `[..., R, H, d]`.
    """
    query, key, value = (x.transpose(-3, -2) for x in (query, key, value))
    return functional.scaled_dot_product_attention(query, key, value).transpose(-3, -2)


class SplitAttention(nn.Module):
    """Self-attention with four linear layers over the storage of an `nn.MultiheadAttention`.

    Each projection is a module of its own, so that an adapter can be added to it.

    Args:
        attention: the module whose weights the layers share.
    """

    def __init__(self, attention: nn.MultiheadAttention) -> None:
        super().__init__()
        self.num_heads = attention.num_heads
        weights, biases = attention.in_proj_weight.chunk(3), attention.in_proj_bias.chunk(3)
        self.q_proj, self.k_proj, self.v_proj = map(_linear_over, weights, biases)
        self.out_proj = _linear_over(attention.out_proj.weight, attention.out_proj.bias)


def _linear_over(weight: Tensor, bias: Tensor) -> nn.Linear:
    """Return a frozen linear layer over the storage of these tensors."""
    layer = nn.Linear(weight.shape[1], weight.shape[0], device="meta")
    layer.weight = nn.Parameter(weight.detach(), requires_grad=False)
    layer.bias = nn.Parameter(bias.detach(), requires_grad=False)
    return layer


class Block(nn.Module):
    """Pre-norm residual attention block that shares the modules of a model's own block.

    Args:
        ln_1: norm before attention.
        attn: attention.
        ln_2: norm before the MLP.
        mlp: the MLP.
        ls_1: layer scale of the attention output; none if None.
        ls_2: layer scale of the MLP's output; none if None.
        beside: module whose output for the normed input of attention is added to the block's output; none if None.
    """

    def __init__(
        self,
        ln_1: nn.Module,
        attn: "nn.MultiheadAttention | SplitAttention",
        ln_2: nn.Module,
        mlp: nn.Module,
        ls_1: nn.Module | None = None,
        ls_2: nn.Module | None = None,
        beside: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.ln_1, self.attn, self.ls_1 = ln_1, attn, ls_1 or nn.Identity()
        self.ln_2, self.mlp, self.ls_2 = ln_2, mlp, ls_2 or nn.Identity()
        self.beside = beside


def split_block(block: Block) -> Block:
    """Return a copy of a block with split attention: own frozen parameters, over the storage of the block's."""
    own = {id(weight): nn.Parameter(weight.detach(), requires_grad=False) for weight in block.parameters()}
    split = copy.deepcopy(block, dict(own))
    if isinstance(split.attn, nn.MultiheadAttention):
        split.attn = SplitAttention(split.attn)
    return split


def self_attention(
    attention: nn.MultiheadAttention | SplitAttention, x: Tensor, attend: Attend, reads: Tensor | None = None
) -> Tensor:
    """Compute self-attention of rows `x [..., R, W]`; `attend` decides which row attends to which.

    With `reads [N]`, only these rows are queries, and the result is `[..., N, W]`.
    """
    query, key, value = _project(attention, x, reads)
    heads = (attention.num_heads, -1)
    attended = attend(query.unflatten(-1, heads), key.unflatten(-1, heads), value.unflatten(-1, heads))
    return attention.out_proj(attended.flatten(-2))


def attention_weights(attention: nn.MultiheadAttention | SplitAttention, x: Tensor) -> Tensor:
    """Return the weights `[..., H, R, R]` of full self-attention of rows `x [..., R, W]`, which sum to 1."""
    query, key, _ = _project(attention, x, None)
    query, key = (part.unflatten(-1, (attention.num_heads, -1)).transpose(-3, -2) for part in (query, key))
    return (query @ key.mT / query.shape[-1] ** 0.5).softmax(dim=-1)


def _project(
    attention: nn.MultiheadAttention | SplitAttention, x: Tensor, reads: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the queries of the rows `reads`, or of all rows, and the keys and values of all rows."""
    query_rows = x if reads is None else x.index_select(-2, reads)
    if isinstance(attention, SplitAttention):
        return attention.q_proj(query_rows), attention.k_proj(x), attention.v_proj(x)
    weight, bias, width = attention.in_proj_weight, attention.in_proj_bias, x.shape[-1]
    if reads is None:
        query, key, value = functional.linear(x, weight, bias).chunk(3, dim=-1)
    else:
        query = functional.linear(query_rows, weight[:width], bias[:width])
        key, value = functional.linear(x, weight[width:], bias[width:]).chunk(2, dim=-1)
    return query, key, value


def run_block(block: Block, x: Tensor, attend: Attend = attend_all, reads: Tensor | None = None) -> Tensor:
    """Run a block on rows `x [..., R, W]`.

    With `reads [N]`, only these rows are computed, `[..., N, W]`: enough if the next stage pools at these rows.
    """
    normed = block.ln_1(x)
    attended = self_attention(block.attn, normed, attend, reads)
    x = (x if reads is None else x.index_select(-2, reads)) + block.ls_1(attended)
    x = x + block.ls_2(block.mlp(block.ln_2(x)))
    if block.beside is None:
        return x
    return x + block.beside(normed if reads is None else normed.index_select(-2, reads))


def causal_mask(rows: int, prefix: int, device: torch.device) -> Tensor:
    """Return the mask `[rows, prefix + rows]`: each row attends to the prefix, to itself and to the rows before it."""
    own = torch.ones(rows, rows, dtype=torch.bool, device=device).tril()
    return torch.cat([own.new_ones(rows, prefix), own], dim=1)
