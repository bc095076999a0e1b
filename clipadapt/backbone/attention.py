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


def self_attention(attention: nn.MultiheadAttention, x: Tensor, attend: Attend) -> Tensor:
    """Self-attention of rows `x [..., R, W]`; which row sees which is up to `attend`."""
    query, key, value = functional.linear(x, attention.in_proj_weight, attention.in_proj_bias).chunk(3, dim=-1)
    heads = (attention.num_heads, -1)
    attended = attend(query.unflatten(-1, heads), key.unflatten(-1, heads), value.unflatten(-1, heads))
    return attention.out_proj(attended.flatten(-2))


def is_plain_block(block: nn.Module) -> bool:
    """Whether `run_block` computes what this pre-norm residual block does."""
    attention = getattr(block, "attn", None)
    parts = all(hasattr(block, part) for part in ("ln_1", "ls_1", "ln_2", "ls_2", "mlp"))
    return parts and isinstance(attention, nn.MultiheadAttention) and not hasattr(block, "ln_1_kv")


def run_block(block: Any, x: Tensor, attend: Attend = attend_all) -> Tensor:
    """A pre-norm residual attention block on rows `x [..., R, W]`."""
    x = x + block.ls_1(self_attention(block.attn, block.ln_1(x), attend))
    return x + block.ls_2(block.mlp(block.ln_2(x)))


def causal_mask(rows: int, prefix: int, device: torch.device) -> Tensor:
    """Mask `[rows, prefix + rows]`: each row sees the whole prefix, itself and the rows before it."""
    own = torch.ones(rows, rows, dtype=torch.bool, device=device).tril()
    return torch.cat([own.new_ones(rows, prefix), own], dim=1)
