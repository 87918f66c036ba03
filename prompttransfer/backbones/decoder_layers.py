"""Layers of Llama-like decoders and GPT-2 on their frozen weights; the same numbers as the modules of transformers.

A prompt that stands first does not see the text behind it. So the layers run over two kinds of tokens side by side: those
of each prompt once, whoever's rows stand in the batch, and those of the texts, which look back at the keys and values of
their prompt. Everything but attention is one product over all of them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from prompttransfer.backbones.interventions import Interventions
from prompttransfer.backbones.kernels.attention import root_mean_square
from prompttransfer.backbones.kernels.causal import attend, gated, look_back, rotate
from prompttransfer.backbones.kernels.linear import FrozenLinear
from prompttransfer.backbones.rows import of_rows


@dataclass(frozen=True, eq=False)
class Tokens:
    """What the tokens of a pass are: [prompts x length] of prompts, then [rows x time] of texts."""

    own: Interventions
    """Bound to the rows."""
    rows: int
    time: int
    prompts: Interventions | None = None
    """Bound to the prompts, one row each; None where prompts are part of their rows."""
    owners: Tensor | None = None
    """[rows] which prompt a row has."""
    count: int = 0
    length: int = 0

    @property
    def ahead(self) -> int:
        """How many tokens are those of prompts."""
        return self.count * self.length

    def split(self, states: Tensor) -> tuple[Tensor, Tensor]:
        """[tokens, ...] as [prompts, length, ...] and [rows, time, ...]."""
        first, second = states[: self.ahead], states[self.ahead :]
        return first.unflatten(0, (self.count, self.length)), second.unflatten(0, (self.rows, self.time))

    def before(self, site: str, states: Tensor) -> Tensor:
        """What a linear map reads, [tokens, in]."""
        asked = self.split(states)
        text = self.own.before(site, asked[1]).flatten(0, 1)
        if self.prompts is None:
            return text
        return torch.cat([self.prompts.before(site, asked[0]).flatten(0, 1), text])

    def changed(self, site: str, states: Tensor, output: Tensor) -> Tensor:
        """The output of a linear map that counts, [tokens, out]."""
        asked, made = self.split(states), self.split(output)
        text = self.own.changed(site, asked[1], made[1]).flatten(0, 1)
        if self.prompts is None:
            return text
        return torch.cat([self.prompts.changed(site, asked[0], made[0]).flatten(0, 1), text])


@dataclass(frozen=True, eq=False)
class Positions:
    """What the positions of a pass decide: which keys a query sees, and how keys are rotated."""

    prompt: Tensor | None
    """[1, length, length], added to scores."""
    text: Tensor
    """[1, time, extra + length + time]."""
    last: Tensor
    """[rows, slots, extra + length + time], for the queries that are read."""
    extra: int = 0
    """Keys and values in front of everything, which every query sees."""
    cos: Tensor | None = None
    """[extra + length + time, size] for rotary positions; prompts come first."""
    sin: Tensor | None = None

    @classmethod
    def of(cls, tokens: Tokens, slots: Tensor, dtype: torch.dtype, window: int | None) -> Positions:
        """For queries read at `slots` [rows, slots], which count the prompt's positions."""
        whole = tokens.length + tokens.time
        every = torch.arange(whole, device=slots.device)
        bias = look_back(every, whole, dtype, window)
        length, extra = tokens.length, tokens.own.extra
        behind = F.pad(bias, (extra, 0))
        return cls(
            bias[None, :length, :length] if length else None, behind[None, length:], behind[slots], extra
        )

    def turned(self, states: Tensor, start: int) -> Tensor:
        """[batch, time, heads, size], the first at position `start` behind `extra`, with their positions in them."""
        if self.cos is None or self.sin is None:
            return states
        start += self.extra
        stop = start + states.shape[1]
        return rotate(states, self.cos[start:stop], self.sin[start:stop])


@dataclass(frozen=True, eq=False)
class Product:
    """Frozen linear maps of the same states whose outputs stand side by side."""

    frozen: FrozenLinear
    sites: tuple[str, ...]
    sizes: tuple[int, ...]

    def __call__(self, states: Tensor, tokens: Tokens, *, add: Tensor | None = None) -> Tensor:
        if not tokens.own.changes(*self.sites):
            return self.frozen(states, add=add)
        for site in self.sites:  # a map whose input changes stands alone
            if site in tokens.own.inputs:
                states = tokens.before(site, states)
        parts = self.frozen(states).split(self.sizes, dim=-1)
        changed = [
            tokens.changed(site, states, part) if tokens.own.changes(site) else part
            for site, part in zip(self.sites, parts, strict=True)
        ]
        output = changed[0] if len(changed) == 1 else torch.cat(changed, dim=-1)
        return output if add is None else output + add


@dataclass(frozen=True, eq=False)
class DecoderLayer:
    """One layer: norm, attention, residual, norm, feed-forward, residual."""

    attention: str
    """Full name of the attention module."""
    before: Callable[[Tensor], Tensor]
    projections: Product
    merge: Product
    between: Callable[[Tensor], Tensor]
    widen: Product
    activation: Callable[[Tensor], Tensor]
    narrow: Product
    heads: int
    shared: int
    """Heads of keys and values."""
    scale: float
    window: int | None = None

    def everywhere(self, states: Tensor, tokens: Tokens, positions: Positions) -> Tensor:
        """[tokens, width] to the same."""
        asking, keys, values, prompt = self._projected(states, tokens, positions)
        # Where only other layers have something in front, the last columns are left.
        bias = positions.text[..., -keys.shape[1] :]
        attended = attend(asking, keys, values, bias, scale=self.scale).flatten(0, 1)
        if prompt is not None and positions.prompt is not None:
            ahead = attend(*prompt, positions.prompt, scale=self.scale).flatten(0, 1)
            attended = torch.cat([ahead, attended])
        return self._rest(attended, states, tokens)

    def at(self, slots: Tensor, states: Tensor, tokens: Tokens, positions: Positions) -> Tensor:
        """The output at `slots` [rows, slots] of the texts, [rows, slots, width]."""
        asking, keys, values, _ = self._projected(states, tokens, positions)
        bias = positions.last[..., -keys.shape[1] :]
        attended = attend(picked(asking, slots), keys, values, bias, scale=self.scale)
        here = replace(tokens, time=slots.shape[1], prompts=None, count=0, length=0)
        reading = picked(tokens.split(states)[1], slots)
        return self._rest(attended.flatten(0, 1), reading.flatten(0, 1), here).unflatten(0, slots.shape)

    def _projected(
        self, states: Tensor, tokens: Tokens, positions: Positions
    ) -> tuple[Tensor, Tensor, Tensor, tuple[Tensor, Tensor, Tensor] | None]:
        """Queries of the texts, the keys and values that they see, and all three of the prompts."""
        projected = self.projections(self.before(states), tokens)
        prompt, text = (
            part.unflatten(2, (self.heads + 2 * self.shared, -1)) for part in tokens.split(projected)
        )
        query, key, value = self._parts(text, positions, tokens.length)
        own = None
        if tokens.owners is not None:
            own = self._parts(prompt, positions, 0)
            key, value = (
                torch.cat([of_rows(ahead, tokens.owners), behind], dim=1)
                for ahead, behind in zip(own[1:], (key, value), strict=True)
            )
        front = tokens.own.given(self.attention)
        if front is not None:
            key, value = (
                torch.cat([ahead.transpose(1, 2).to(behind.dtype), behind], dim=1)
                for ahead, behind in zip(front, (key, value), strict=True)
            )
        return query, key, value, own

    def _parts(self, projected: Tensor, positions: Positions, start: int) -> tuple[Tensor, Tensor, Tensor]:
        turned = positions.turned(projected[:, :, : self.heads + self.shared], start)
        query, key = turned.split([self.heads, self.shared], dim=2)
        return query, key, projected[:, :, self.heads + self.shared :]

    def _rest(self, attended: Tensor, states: Tensor, tokens: Tokens) -> Tensor:
        states = self.merge(attended, tokens, add=states)
        active = self.activation(self.widen(self.between(states), tokens))
        return self.narrow(active, tokens, add=states)


def picked(states: Tensor, slots: Tensor) -> Tensor:
    """[rows, time, ...] at `slots` [rows, slots], [rows, slots, ...]."""
    first = torch.arange(len(states), device=states.device)[:, None] * states.shape[1]
    return states.flatten(0, 1).index_select(0, (first + slots).flatten()).unflatten(0, slots.shape)


# Families ----------------------------------------------------------------------------------------------------------


def llama_layer(module: Any, name: str, window: int | None) -> DecoderLayer:
    """A layer of Llama, Mistral or Qwen2: root mean square, rotary positions, grouped queries, a gated feed-forward."""
    attention, forward = module.self_attn, module.mlp

    def product(parent: Any, inside: str, *names: str) -> Product:
        linears = [getattr(parent, part) for part in names]
        return Product(
            FrozenLinear(*linears),
            tuple(f"{name}.{inside}.{part}" for part in names),
            tuple(linear.out_features for linear in linears),
        )

    size = attention.head_dim
    silu = isinstance(forward.act_fn, nn.SiLU) or type(forward.act_fn).__name__ == "SiLUActivation"
    return DecoderLayer(
        attention=f"{name}.self_attn",
        before=lambda states: root_mean_square(states, module.input_layernorm),
        projections=product(attention, "self_attn", "q_proj", "k_proj", "v_proj"),
        merge=product(attention, "self_attn", "o_proj"),
        between=lambda states: root_mean_square(states, module.post_attention_layernorm),
        widen=product(forward, "mlp", "gate_proj", "up_proj"),
        activation=gated if silu else lambda wide: _gated_by(forward.act_fn, wide),
        narrow=product(forward, "mlp", "down_proj"),
        heads=attention.q_proj.out_features // size,
        shared=attention.k_proj.out_features // size,
        scale=attention.scaling,
        window=window,
    )


def _gated_by(activation: Callable[[Tensor], Tensor], wide: Tensor) -> Tensor:
    gate, up = wide.chunk(2, dim=-1)
    return activation(gate) * up


def gpt2_layer(module: Any, name: str, window: int | None) -> DecoderLayer:
    """A layer of GPT-2: layer norm, one map for queries, keys and values, a plain feed-forward."""
    attention, forward = module.attn, module.mlp

    def product(parent: Any, inside: str, part: str) -> Product:
        turned = Turned(getattr(parent, part))
        return Product(FrozenLinear(turned), (f"{name}.{inside}.{part}",), (turned.out_features,))  # type: ignore[arg-type]

    new = type(forward.act).__name__ == "NewGELUActivation"  # there written out in eight operations
    return DecoderLayer(
        attention=f"{name}.attn",
        before=module.ln_1,
        projections=product(attention, "attn", "c_attn"),
        merge=product(attention, "attn", "c_proj"),
        between=module.ln_2,
        widen=product(forward, "mlp", "c_fc"),
        activation=(lambda wide: F.gelu(wide, approximate="tanh")) if new else forward.act,
        narrow=product(forward, "mlp", "c_proj"),
        heads=attention.num_heads,
        shared=attention.num_heads,
        scale=attention.scaling,
    )


class Turned:
    """A Conv1D of transformers, whose weight is [in, out], as the linear layer that it is."""

    def __init__(self, module: Any):
        self.module = module
        self.out_features = int(module.nf)

    @property
    def weight(self) -> Tensor:
        """[out, in]."""
        turned: Tensor = self.module.weight.T
        return turned

    @property
    def bias(self) -> Tensor:
        """[out]."""
        bias: Tensor = self.module.bias
        return bias


LAYERS: dict[str, Callable[[Any, str, int | None], DecoderLayer]] = {
    "llama": llama_layer,
    "mistral": llama_layer,
    "qwen2": llama_layer,
    "gpt2": gpt2_layer,
}
"""`model_type` -> how one of its layers runs on frozen weights; others run by the modules of transformers."""
