"""The sites of interventions in the modules of transformers, as they run themselves.

Linear maps are watched by hooks. Weights of an adaptation's own stand in the modules while its rows run. Keys and values come in where transformers chooses what computes an attention: a function
of ours is registered there, which puts them in front of the module's own and calls what was chosen before.
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import wraps
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from prompttransfer.backbones.interventions import Head, Interventions, interventions
from prompttransfer.backbones.rows import Batch, only

NAME = "prompttransfer-prefixed"
"""Under which `_prefixed` is registered with transformers."""


@contextmanager
def at_modules(
    model: nn.Module, own: Interventions, part: str = "", *, rows: int | None = None
) -> Iterator[None]:
    """Let those modules of `model` whose names begin with `part` do what `own` says, in this block.

    Some modules (OPT) are given the tokens of all rows in one line; where `rows` says how many these are, `own` sees them
    row by row.
    """

    def by_row(states: Tensor) -> Tensor:
        line = rows is not None and states.ndim == 2 and len(states) != rows
        return states.unflatten(0, (rows, -1)) if line else states

    undo: list[Callable[[], Any]] = []
    try:
        if own.placed:  # already, but for where layers are computed again
            undo.append(_put(model, own.placed))
        for site in dict.fromkeys([*own.sites, *own.outputs]):
            if site.startswith(part):

                def changed(module: Any, inputs: tuple[Any, ...], output: Tensor, site: str = site) -> Tensor:
                    return own.changed(site, by_row(inputs[0]), by_row(output)).reshape(output.shape)

                undo.append(model.get_submodule(site).register_forward_hook(changed).remove)
        for site in own.inputs:
            if site.startswith(part):

                def before(module: Any, inputs: tuple[Any, ...], site: str = site) -> tuple[Tensor]:
                    return (own.before(site, by_row(inputs[0])).reshape(inputs[0].shape),)

                undo.append(model.get_submodule(site).register_forward_pre_hook(before).remove)
        distances: dict[str, Tensor] = {}
        for name in own.attentions:
            if name.startswith(part):
                undo.append(_give(model, name, own, distances))
        yield
    finally:
        for step in undo:
            step()


@contextmanager
def with_weights(model: nn.Module, weights: Mapping[str, Tensor]) -> Iterator[None]:
    """Let `model` run with other weights, by their full names, in this block; tied ones stay tied.

    Its own parameters are put aside, never written to.
    """
    take_back = _put(model, weights)
    try:
        yield
    finally:
        take_back()


def _put(model: nn.Module, weights: Mapping[str, Tensor]) -> Callable[[], None]:
    """Put weights in place of what stands there now; returns what takes that back."""
    places: dict[int, list[tuple[dict[str, Any], str]]] = {}
    for module in model.modules():
        for key, own in module._parameters.items():
            places.setdefault(id(own), []).append((module._parameters, key))
    aside = [
        (table, key, table[key], weight)
        for name, weight in weights.items()
        for table, key in places[id(_parameter(model, name))]
    ]

    def take_back() -> None:
        for table, key, own, _ in aside:
            table[key] = own

    for table, key, _, weight in aside:
        table[key] = weight
    return take_back


def _parameter(model: nn.Module, name: str) -> Tensor | None:
    """What stands as a parameter, which may be a weight that was put there."""
    parent, _, key = name.rpartition(".")
    return model.get_submodule(parent)._parameters[key]


def real(mask: Tensor) -> Tensor | None:
    """A padding mask for transformers; none on `meta`, where it would ask for values."""
    return None if mask.is_meta else mask


class _Placed(Interventions):
    """Nothing but weights, which stand in the model already, the head of their rows, and the states that answers were read
    from."""

    def __init__(self, placed: Mapping[str, Tensor], head: Head):
        self.placed, self._head = placed, head
        self.states: list[Tensor] = []

    def seen(self, state: Tensor) -> None:
        self.states.append(state)

    def head(self, state: Tensor) -> Tensor:
        return self._head(state)


Gives = TypeVar("Gives", Tensor, list[str])


def by_weights(run: Callable[..., Gives]) -> Callable[..., Gives]:
    """`run(backbone, own, batch)`, which gives something for each row, also for what brings weights of its own."""

    @wraps(run)
    def runs(backbone: Any, own: Interventions | Tensor, batch: Batch, **options: Any) -> Gives:
        own = interventions(own)
        if not own.weights:
            return run(backbone, own, batch, **options)
        found, states = [], list[Tensor]()
        for made, rows in own.weights:
            part = batch if len(rows) == batch.rows else only(batch, rows)
            bare = _Placed(made(), own.head_of(rows))
            with backbone.on("plain"), with_weights(backbone.model, bare.placed):
                found.append(run(backbone, bare, part, **options))
            states += bare.states
        back = torch.cat([rows for _, rows in own.weights]).argsort()
        if states:
            own.seen(torch.cat(states)[back])
        if len(found) == 1:
            return found[0]
        if isinstance(found[0], Tensor):
            return torch.cat(found)[back]
        texts = [text for part in found for text in part]
        return [texts[index] for index in back.tolist()]

    return runs


@dataclass(frozen=True)
class _Given:
    """What stands in front of an attention's keys and values, and how it ran without."""

    own: Interventions
    name: str
    config: Any
    distances: dict[str, Tensor]
    """Stack -> what T5 adds to scores for how far the keys in front are; its first attention says it for all of its stack,
    as that of transformers does, since a sharded one has its weights only while it runs."""


def _give(
    model: nn.Module, name: str, own: Interventions, distances: dict[str, Tensor]
) -> Callable[[], None]:
    """Let an attention run by `_prefixed`; returns what takes that back."""
    from transformers.modeling_utils import AttentionInterface

    AttentionInterface.register(NAME, _prefixed)
    attention: Any = model.get_submodule(name)
    given = _Given(own, name, attention.config, distances)
    attention.given, attention.config = given, copy.copy(given.config)
    attention.config._attn_implementation = NAME

    def take_back() -> None:
        attention.config = given.config
        del attention.given

    return take_back


def _prefixed(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    position_bias: Tensor | None = None,
    **settings: Any,
) -> Any:
    """What transformers computes, with keys and values in front; all [batch, heads, time, head width]."""
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    given = module.given
    keys, values = given.own.keys_values(given.name)
    extra, length, before = keys.shape[2], query.shape[2], key.shape[2] - query.shape[2]
    key, value = (torch.cat([front.to(part), part], dim=2) for front, part in ((keys, key), (values, value)))
    if attention_mask is not None:
        attention_mask = F.pad(attention_mask, (extra, 0), value=attention_mask.dtype is torch.bool)
    elif getattr(module, "is_causal", False) and length > 1:
        ones = torch.ones(length, key.shape[2], dtype=torch.bool, device=query.device)
        attention_mask = ones.tril(extra + before)[None, None]
    if position_bias is not None:
        stack = given.name.partition(".")[0]
        if module.has_relative_attention_bias:
            given.distances[stack] = module.compute_bias(
                length, extra, device=query.device, past_seen_tokens=extra + before
            )
        cross = given.name.endswith("EncDecAttention")
        front = position_bias.new_zeros(1, 1, 1, 1) if cross else given.distances[stack].to(position_bias)
        front = front.expand(*position_bias.shape[:3], extra)
        settings["position_bias"] = torch.cat([front, position_bias], dim=-1)
    eager = vars(sys.modules[type(module).__module__])["eager_attention_forward"]
    attend = ALL_ATTENTION_FUNCTIONS.get_interface(given.config._attn_implementation, eager)
    return attend(module, query, key, value, attention_mask, **settings)
