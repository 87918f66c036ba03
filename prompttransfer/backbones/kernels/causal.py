"""Attention that looks back only, and what stands beside it in a decoder's layer, with few passes over memory.

Query heads of a group share their keys and values (grouped queries, Ainslie et al. 2023, arXiv 2305.13245): a group is
folded into time, so no key is ever repeated. On a CPU in bf16 the backward of scaled-dot-product attention costs more than
plain products, so attention is written out.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F


class _Attention(torch.autograd.Function):
    """softmax(scale q k^T + bias) v for products in three dimensions."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, bias: Tensor, scale: float) -> Tensor:
        weights = torch.softmax(torch.baddbmm(bias, query, key.mT, alpha=scale), dim=-1)
        ctx.save_for_backward(query, key, value, weights)
        ctx.scale = scale
        return torch.bmm(weights, value)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:
        query, key, value, weights = ctx.saved_tensors
        values = torch.bmm(weights.mT, gradient)
        scores = torch._softmax_backward_data(torch.bmm(gradient, value.mT), weights, -1, weights.dtype)
        if ctx.scale != 1:
            scores.mul_(ctx.scale)
        return torch.bmm(scores, key), torch.bmm(scores.mT, query), values, None, None


def attend(query: Tensor, key: Tensor, value: Tensor, bias: Tensor, *, scale: float) -> Tensor:
    """Attention of grouped queries.

    query [batch, asking, heads, size]; key and value [batch, time, key heads, size], heads being a multiple of key heads;
    bias [1 or batch, asking, time], what is added to the scores. Returns [batch, asking, heads x size].
    """
    batch, asking, heads, size = query.shape
    time, shared = key.shape[1:3]
    if query.is_cuda:  # there the fused kernel is the fastest, backward included
        q, k, v = (part.transpose(1, 2) for part in (query, key, value))
        fast = F.scaled_dot_product_attention(q, k, v, bias[:, None], scale=scale, enable_gqa=True)
        return fast.transpose(1, 2).flatten(2)
    groups = heads // shared
    asked = query.unflatten(2, (shared, groups)).permute(0, 2, 3, 1, 4)
    keys, values = (part.transpose(1, 2).reshape(batch * shared, time, size) for part in (key, value))
    added = bias.repeat(1, groups, 1)
    if len(added) > 1:
        added = added.repeat_interleave(shared, dim=0)
    attended: Tensor = _Attention.apply(
        asked.reshape(batch * shared, groups * asking, size), keys, values, added, scale
    )
    back = attended.view(batch, shared, groups, asking, size).permute(0, 3, 1, 2, 4)
    return back.reshape(batch, asking, heads * size)


def look_back(asking: Tensor, time: int, dtype: torch.dtype, window: int | None = None) -> Tensor:
    """What is added to scores so that a query at position `asking` [..., queries] sees none behind it, [..., queries, time].

    With a `window` it sees that many, itself included.
    """
    positions = torch.arange(time, device=asking.device)
    hidden = positions > asking[..., None]
    if window is not None:
        hidden |= positions <= asking[..., None] - window
    bias = torch.zeros(hidden.shape, dtype=dtype, device=asking.device)
    return bias.masked_fill_(hidden, torch.finfo(dtype).min)


class _Rotation(torch.autograd.Function):
    """x cos + (the halves of x changed places) sin; its inverse in the backward pass."""

    @staticmethod
    def forward(ctx: Any, states: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        ctx.save_for_backward(cos, sin)
        return torch.addcmul(states * cos, states.roll(states.shape[-1] // 2, -1), sin)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        cos, sin = ctx.saved_tensors
        return (
            torch.addcmul(gradient * cos, gradient.roll(gradient.shape[-1] // 2, -1), sin, value=-1),
            None,
            None,
        )


def rotate(states: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary positions (Su et al. 2021, arXiv 2104.09864) in [batch, time, heads, size].

    cos and sin [time, size] as transformers gives them, but for the sign of the first half of sin (`signed`).
    """
    rotated: Tensor = _Rotation.apply(states, cos[:, None], sin[:, None])
    return rotated


def signed(sin: Tensor) -> Tensor:
    """sin with the sign that `rotate_half` of transformers gives the first half."""
    first, second = sin.chunk(2, dim=-1)
    return torch.cat([-first, second], dim=-1)


class _Gated(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, projected: Tensor) -> Tensor:
        gate, up = projected.chunk(2, dim=-1)
        ctx.save_for_backward(projected)
        return F.silu(gate).mul_(up)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (projected,) = ctx.saved_tensors
        gate, up = projected.chunk(2, dim=-1)
        result = torch.empty_like(projected)
        for_gate, for_up = result.chunk(2, dim=-1)
        torch.mul(gradient, F.silu(gate), out=for_up)
        for_gate.copy_(torch.ops.aten.silu_backward(gradient * up, gate))
        return result


def gated(projected: Tensor) -> Tensor:
    """silu(gate) up (SwiGLU, Shazeer 2020, arXiv 2002.05202), gate and up [..., inner] standing side by side in `projected`."""
    active: Tensor = _Gated.apply(projected)
    return active
