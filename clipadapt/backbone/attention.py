"""Self-attention with the weights of an `nn.MultiheadAttention`, and the transformer block around it."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

Attend = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Queries, keys and values `[..., R, H, d]` to the attended values `[..., R, H, d]`."""


def attend_all(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Every row attends to every row of its sequence: `[..., R, H, d]` each, the same out."""
    query, key, value = (x.transpose(-3, -2) for x in (query, key, value))
    return functional.scaled_dot_product_attention(query, key, value).transpose(-3, -2)


def self_attention(attention: nn.MultiheadAttention, x: Tensor, attend: Attend, reads: Tensor | None = None) -> Tensor:
    """Self-attention of rows `x [..., R, W]`; which row sees which is up to `attend`.

    Only the rows `reads [N]` ask, where they are given: the result is `[..., N, W]`.
    """
    weight, bias = attention.in_proj_weight, attention.in_proj_bias
    if reads is None:
        query, key, value = functional.linear(x, weight, bias).chunk(3, dim=-1)
    else:
        width = x.shape[-1]
        query = functional.linear(x.index_select(-2, reads), weight[:width], bias[:width])
        key, value = functional.linear(x, weight[width:], bias[width:]).chunk(2, dim=-1)
    heads = (attention.num_heads, -1)
    attended = attend(query.unflatten(-1, heads), key.unflatten(-1, heads), value.unflatten(-1, heads))
    return attention.out_proj(attended.flatten(-2))


def is_plain_block(block: nn.Module) -> bool:
    """Whether `run_block` computes what this pre-norm residual block does."""
    attention = getattr(block, "attn", None)
    parts = all(hasattr(block, part) for part in ("ln_1", "ls_1", "ln_2", "ls_2", "mlp"))
    return parts and isinstance(attention, nn.MultiheadAttention) and not hasattr(block, "ln_1_kv")


def run_block(block: Any, x: Tensor, attend: Attend = attend_all, reads: Tensor | None = None) -> Tensor:
    """A pre-norm residual attention block on rows `x [..., R, W]`.

    Where `reads [N]` is given, only these rows come out, `[..., N, W]`: what reads no others needs no others.
    """
    attended = self_attention(block.attn, block.ln_1(x), attend, reads)
    x = (x if reads is None else x.index_select(-2, reads)) + block.ls_1(attended)
    return x + block.ls_2(block.mlp(block.ln_2(x)))


def causal_mask(rows: int, prefix: int, device: torch.device) -> Tensor:
    """Mask `[rows, prefix + rows]`: each row sees the whole prefix, itself and the rows before it."""
    own = torch.ones(rows, rows, dtype=torch.bool, device=device).tril()
    return torch.cat([own.new_ones(rows, prefix), own], dim=1)
