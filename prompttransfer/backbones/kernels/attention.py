"""Layers whose weights never change, run with less work than layers that could be trained.

The numbers are those of Hugging Face's own modules, whose weights are used in place; what is left out is work
that a frozen model does not need: the three projections of attention are one product, heads are laid out once for
forward and backward, and where only one position is read (the answer slot of a masked LM, the first step of a T5
decoder) its query goes to the states instead of every state being turned into a key and a value.

    q . (K x + b) = (q K) . x + const      the constant falls out of the softmax
    sum_t p_t (V x_t + b) = V (sum_t p_t x_t) + b      since the p_t add up to 1

On a CPU in bf16 the backward of scaled-dot-product attention costs more than three times that of plain products
(scripts/benchmark.py shows both), so attention is written out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

Layer = Callable[[Tensor], Tensor]
"""[batch, time, width] to the same."""


Pair = tuple[Tensor, Tensor]
"""Keys and values, [batch, heads, extra, head width] each."""


class _Attention(torch.autograd.Function):
    """Multi-head self-attention on projected states, with the fewest copies between its products."""

    @staticmethod
    def forward(
        ctx: Any,
        projected: Tensor,
        keys: Tensor | None,
        values: Tensor | None,
        bias: Tensor | None,
        heads: int,
        scale: float,
    ) -> Tensor:
        """projected [batch, time, 3 x heads x size]; bias [batch x heads, 1 or time, time]; returns [batch, time, heads x size].

        keys and values [batch, heads, extra, size] stand in front of the states' own, and the bias has them too.
        """
        query, key, value = by_head(projected, heads)
        if keys is not None and values is not None:
            key, value = _behind(keys, key), _behind(values, value)
        if bias is None:
            weights = torch.bmm(query, key.mT)
            weights = weights if scale == 1 else weights.mul_(scale)
        else:
            weights = torch.baddbmm(bias, query, key.mT, alpha=scale)
        weights = torch.softmax(weights, dim=-1)
        ctx.save_for_backward(query, key, value, weights)
        ctx.scale, ctx.heads = scale, heads
        return _merge(torch.bmm(weights, value), heads)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor | None, Tensor | None, None, None, None]:
        query, key, value, weights = ctx.saved_tensors
        rows, time, size = query.shape
        heads, extra = ctx.heads, key.shape[1] - time
        gradient = by_head(gradient, heads, parts=1)[0]
        result = torch.empty(3, rows, extra + time, size, dtype=query.dtype, device=query.device)
        torch.bmm(weights.mT, gradient, out=result[2])
        scores = torch._softmax_backward_data(torch.bmm(gradient, value.mT), weights, -1, weights.dtype)
        torch.bmm(scores, key, out=result[0, :, extra:])
        torch.bmm(scores.mT, query, out=result[1])
        if ctx.scale != 1:
            result[:2].mul_(ctx.scale)
        result = result.view(3, rows // heads, heads, extra + time, size)
        own = result[..., extra:, :].permute(1, 3, 0, 2, 4).reshape(rows // heads, time, -1)
        front = (result[1, :, :, :extra], result[2, :, :, :extra]) if extra else (None, None)
        return own, *front, None, None, None


def _behind(front: Tensor, states: Tensor) -> Tensor:
    """`states` [batch x heads, time, size] behind `front` [batch, heads, extra, size]."""
    return torch.cat([front.flatten(0, 1).to(states.dtype), states], dim=1)


def by_head(projected: Tensor, heads: int, parts: int = 3) -> Tensor:
    """[batch, time, parts x heads x size] to [parts, batch x heads, time, size], contiguous."""
    batch, time, width = projected.shape
    split = projected.view(batch, time, parts, heads, width // (parts * heads)).permute(2, 0, 3, 1, 4)
    return split.reshape(parts, batch * heads, time, -1)


def _merge(attended: Tensor, heads: int) -> Tensor:
    """[batch x heads, time, size] to [batch, time, heads x size]."""
    rows, time, size = attended.shape
    return attended.view(rows // heads, heads, time, size).transpose(1, 2).reshape(rows // heads, time, -1)


def self_attention(
    projected: Tensor, bias: Tensor | None, *, heads: int, scale: float, front: Pair | None = None
) -> Tensor:
    """Attention of every position to every other, and to `front`; see `_Attention` for the shapes."""
    keys, values = front or (None, None)
    if projected.is_cuda:  # there the fused kernel is the fastest, backward included
        query, key, value = projected.unflatten(2, (3, heads, -1)).permute(2, 0, 3, 1, 4)
        if keys is not None and values is not None:
            key, value = torch.cat([keys, key], dim=2), torch.cat([values, value], dim=2)
        mask = None if bias is None else bias.unflatten(0, (len(projected), heads))
        fast = F.scaled_dot_product_attention(query, key, value, attn_mask=mask, scale=scale)
        return fast.transpose(1, 2).flatten(2)
    attended: Tensor = _Attention.apply(projected, keys, values, bias, heads, scale)
    return attended


class _RootMeanSquare(torch.autograd.Function):
    """T5's norm without its float32 copies: x / sqrt(mean(x^2) + eps) times a frozen weight."""

    @staticmethod
    def forward(ctx: Any, states: Tensor, weight: Tensor, eps: float) -> Tensor:
        norm = torch.linalg.vector_norm(states, dim=-1, keepdim=True, dtype=torch.float32)
        scale = torch.rsqrt(norm.square().div_(states.shape[-1]).add_(eps))
        normed = (states * scale).to(states.dtype)
        ctx.save_for_backward(normed, scale, weight)
        return normed * weight

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        normed, scale, weight = ctx.saved_tensors
        weighted = gradient * weight
        mean = (weighted * normed).mean(dim=-1, keepdim=True, dtype=torch.float32).to(normed.dtype)
        return torch.addcmul(weighted, normed, mean, value=-1).mul_(scale.to(normed.dtype)), None, None


def root_mean_square(states: Tensor, norm: Any) -> Tensor:
    """What a `T5LayerNorm` gives."""
    if states.is_cuda:  # where torch has a kernel for it
        return F.rms_norm(states, norm.weight.shape, norm.weight, norm.variance_epsilon)
    normed: Tensor = _RootMeanSquare.apply(states, norm.weight, norm.variance_epsilon)
    return normed


def attend_once(
    query: Tensor,
    states: Tensor,
    key: nn.Linear,
    value: nn.Linear,
    bias: Tensor | None,
    *,
    heads: int,
    scale: float,
    front: Pair | None = None,
) -> Tensor:
    """Attention of one query a row over `states`, with neither keys nor values made, and over `front`.

    query [batch, heads x size], states [batch, time, width], bias [batch, 1, extra + time]; returns
    [batch, heads x size].
    """
    width = states.shape[-1]
    by_heads = query.view(len(query), heads, -1).transpose(0, 1)
    asked = torch.bmm(by_heads, key.weight.view(heads, -1, width)).transpose(0, 1)
    scores = torch.bmm(asked * scale, states.mT)
    if front is not None:
        scores = torch.cat([_to_front(query, front[0], key.bias) * scale, scores], dim=-1)
    if bias is not None:
        scores = scores + bias
    weights = torch.softmax(scores, dim=-1)
    own = weights if front is None else weights[..., front[0].shape[2] :]
    mixed = torch.bmm(own, states).transpose(0, 1)
    attended = torch.bmm(mixed, value.weight.view(heads, -1, width).mT).transpose(0, 1)
    if front is None:
        attended = attended.flatten(1)
        return attended if value.bias is None else attended + value.bias
    if value.bias is not None:
        attended = attended + own.sum(dim=-1, keepdim=True) * value.bias.view(heads, -1)
    ahead = weights[..., None, : front[1].shape[2]] @ front[1].to(weights.dtype)
    return (attended + ahead[:, :, 0]).flatten(1)


def _to_front(query: Tensor, keys: Tensor, bias: Tensor | None) -> Tensor:
    """Scores of one query a row with keys in front, [batch, heads, extra].

    Those of the states lack what the keys' bias adds, the same for all of them, so it is taken away here.
    """
    asking = query.unflatten(1, (keys.shape[1], 1, -1))
    scores = (asking @ keys.to(query.dtype).mT)[:, :, 0]
    return (
        scores
        if bias is None
        else scores - (asking[:, :, 0] * bias.view(keys.shape[1], -1)).sum(-1, keepdim=True)
    )


def attend_to(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    bias: Tensor | None,
    *,
    heads: int,
    scale: float,
    front: Pair | None = None,
) -> Tensor:
    """Attention of one query a row over keys and values that are there, and over `front`.

    query [batch, heads x size], key and value [batch, time, heads x size], bias [batch, 1 or heads, extra + time];
    returns [batch, heads x size].
    """
    asking = query.unflatten(1, (heads, 1, -1))
    keys, values = (part.unflatten(2, (heads, -1)).transpose(1, 2) for part in (key, value))
    if front is not None:
        keys, values = (
            torch.cat([a.to(b.dtype), b], dim=2) for a, b in zip(front, (keys, values), strict=True)
        )
    scores = (asking * scale) @ keys.mT
    if bias is not None:
        scores = scores + bias[:, :, None]
    return (torch.softmax(scores, dim=-1) @ values).flatten(1)


def mask_bias(mask: Tensor, dtype: torch.dtype) -> Tensor | None:
    """What is added to scores so that padding is not read, [batch, 1, time]; None where nothing is padded."""
    if mask.device.type == "cpu" and bool(mask.all()):  # elsewhere the look would cost more than the mask
        return None
    hidden = torch.zeros(mask.shape, dtype=dtype, device=mask.device)
    hidden.masked_fill_(mask == 0, torch.finfo(dtype).min)
    return hidden[:, None]


def reach(bias: Tensor | None, front: Pair | None, extra: int) -> Tensor | None:
    """The part of a bias [..., extra + time] that an attention needs which has nothing in front."""
    return bias[..., extra:] if front is None and extra and bias is not None else bias


def run(layers: Sequence[Layer], states: Tensor, *, keep: bool = True) -> Tensor:
    """Run layers one after another; without `keep` their inner values are computed again in the backward pass."""
    for layer in layers:
        if keep or not torch.is_grad_enabled():
            states = layer(states)
        else:
            states = checkpoint(layer, states, use_reentrant=False, preserve_rng_state=False)
    return states
