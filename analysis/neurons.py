"""Activated neurons: which feed-forward neurons a prompt stimulates, kept as bits, and how much two prompts share.

A state is 0 or 1 for every neuron of every layer. Su et al. 2022 (arXiv 2111.06719, section 6) measure the overlap
ON of two prompts as the cosine of their states, which for bits is |A and B| / sqrt(|A| |B|). Everything here comes
from one array, how many active neurons two prompts share in each layer [layers, n, n]: layers, windows of layers and
the whole model are sums of it. Reading the activations out of a model is not done here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tasks.errors import UserError, unknown

Bytes = NDArray[np.uint8]
Floats = NDArray[np.floating[Any]]


@dataclass(frozen=True)
class NeuronStates:
    """Activation states of prompts on one backbone: bits [prompts, layers, ceil(neurons / 8)], first neuron in the top bit."""

    bits: Bytes
    neurons: int
    names: tuple[str, ...]
    backbone: str
    rule: str = "positive"

    def __post_init__(self) -> None:
        if self.bits.dtype != np.uint8 or self.bits.ndim != 3:
            raise UserError(
                f"states must be uint8 [prompts, layers, bytes]; given {self.bits.dtype} {list(self.bits.shape)}"
            )
        if self.bits.shape[0] != len(self.names) or self.bits.shape[2] != -(-self.neurons // 8):
            raise UserError(
                f"states {list(self.bits.shape)} do not fit {len(self.names)} names and {self.neurons} neurons a layer"
            )
        if len(set(self.names)) != len(self.names):
            raise UserError("two states have the same name: give every prompt a name of its own")

    @property
    def layers(self) -> int:
        return self.bits.shape[1]

    def active(self, layer: int) -> NDArray[np.bool_]:
        """Which neurons of a layer are active, [prompts, neurons]."""
        return np.unpackbits(self.bits[:, layer], axis=-1, count=self.neurons).astype(bool)


def positive(activations: Floats) -> NDArray[np.bool_]:
    """The paper's rule: active iff greater than 0 (after GELU, or before or after ReLU: the sign is the same)."""
    return activations > 0


def top_share(activations: Floats, share: float = 0.1) -> NDArray[np.bool_]:
    """Active iff among the largest `share` of its layer, [..., neurons]: every prompt has equally many."""
    if not 0 < share < 1:
        raise UserError(f"the share of active neurons must lie between 0 and 1; given {share}")
    count = max(1, round(share * activations.shape[-1]))
    order = np.argsort(-activations, axis=-1, kind="stable")[
        ..., :count
    ]  # stable: ties go to the first neuron
    active = np.zeros(activations.shape, dtype=bool)
    np.put_along_axis(active, order, True, axis=-1)
    return active


RULES: dict[str, Callable[..., NDArray[np.bool_]]] = {"positive": positive, "top": top_share}


def pack(
    active: NDArray[np.bool_], names: Sequence[str], backbone: str, rule: str = "positive"
) -> NeuronStates:
    """States from truth values [prompts, layers, neurons]."""
    return NeuronStates(np.packbits(active, axis=-1), active.shape[-1], tuple(names), backbone, rule)


def merge(states: Sequence[NeuronStates]) -> NeuronStates:
    """States of several files as one; they must come from one backbone, by one rule."""
    if not states:
        raise UserError("no neuron states given")
    first = states[0]
    for other in states[1:]:
        for what, one, two in (
            ("backbone", first.backbone, other.backbone),
            ("rule", first.rule, other.rule),
            ("layers x neurons", (first.layers, first.neurons), (other.layers, other.neurons)),
        ):
            if one != two:
                raise UserError(
                    f"states of {', '.join(first.names[:3])} and {', '.join(other.names[:3])} cannot be compared: "
                    f"{what} {one!r} against {two!r}; capture them again on one backbone with one rule"
                )
    bits = np.concatenate([s.bits for s in states])
    return NeuronStates(
        bits, first.neurons, tuple(n for s in states for n in s.names), first.backbone, first.rule
    )


def shared_counts(states: NeuronStates) -> Floats:
    """How many active neurons each pair shares in each layer, [layers, n, n]; the diagonal counts a prompt's own.

    A product of 0/1 matrices in float32: whole numbers are exact up to 2^24, far above the width of a layer.
    """
    counts = np.empty((states.layers, len(states.names), len(states.names)), dtype=np.float32)
    for layer in range(states.layers):
        active = states.active(layer).astype(np.float32)
        counts[layer] = active @ active.T
    return counts


def cosine_overlap(shared: Floats) -> Floats:
    """ON = |A and B| / sqrt(|A| |B|) from shared counts [n, n]; 0 where a prompt activates nothing."""
    own = np.sqrt(np.diagonal(shared).astype(np.float64))
    scale = own[:, None] * own[None, :]
    return np.divide(shared, scale, out=np.zeros_like(scale), where=scale > 0)


def jaccard_overlap(shared: Floats) -> Floats:
    """|A and B| / |A or B| from shared counts [n, n]; 0 where neither activates anything."""
    own = np.diagonal(shared).astype(np.float64)
    union = own[:, None] + own[None, :] - shared
    return np.divide(shared, union, out=np.zeros_like(union), where=union > 0)


OVERLAPS: dict[str, Callable[[Floats], Floats]] = {"ON": cosine_overlap, "jaccard": jaccard_overlap}


def windows(layers: int, size: int) -> dict[str, slice]:
    """Windows of `size` layers side by side, from the first: `0-2`, `3-5`, ... (the paper's are of 3)."""
    if not 1 <= size <= layers:
        raise UserError(f"a window of {size} layers does not fit a model of {layers}: choose 1 to {layers}")
    spans = [(start, min(start + size, layers)) for start in range(0, layers, size)]
    return {(f"{a}-{b - 1}" if b - a > 1 else f"{a}"): slice(a, b) for a, b in spans}


def overlap(states: NeuronStates, measure: str = "ON", layers: slice | None = None) -> pd.DataFrame:
    """Overlap of every two prompts over the given layers (default all), as one concatenated state, [n, n]."""
    return overlaps(states, {"all": layers or slice(None)}, measure)["all"]


def overlaps(states: NeuronStates, spans: dict[str, slice], measure: str = "ON") -> dict[str, pd.DataFrame]:
    """Overlap over several spans of layers (`windows(12, 3)`, `windows(12, 1)`), counting shared neurons once."""
    if measure not in OVERLAPS:
        raise unknown("overlap measure", measure, OVERLAPS)
    counts = shared_counts(states)
    tables: dict[str, pd.DataFrame] = {}
    for name, span in spans.items():
        shared = counts[span]
        if not len(shared):
            raise UserError(f"layers {name} lie outside the {states.layers} layers of {states.backbone}")
        values = OVERLAPS[measure](shared.sum(0))
        tables[name] = pd.DataFrame(values, index=list(states.names), columns=list(states.names))
    return tables


def active_share(states: NeuronStates) -> pd.DataFrame:
    """Share of active neurons, rows prompts, columns layers."""
    shares = np.stack([states.active(layer).mean(-1) for layer in range(states.layers)], axis=1)
    return pd.DataFrame(shares, index=list(states.names), columns=[str(i) for i in range(states.layers)])


def specificity(states: NeuronStates, name: str) -> Floats:
    """How specific every neuron is to a prompt, [layers, neurons]: active here and seldom for the other prompts.

    1 for a neuron that this prompt alone activates, 0 for one that all do; those that it does not activate lie below
    zero, at -1 less the share of others that do.
    """
    if name not in states.names:
        raise unknown("prompt", name, states.names)
    own = states.names.index(name)
    active = np.stack([states.active(layer) for layer in range(states.layers)], axis=1)
    others = np.delete(active, own, axis=0)
    elsewhere = others.mean(0) if len(others) else np.zeros(active.shape[1:])
    return np.where(active[own], 1 - elsewhere, -1 - elsewhere)


def highest(scores: Floats, share: float, seed: int = 0) -> NDArray[np.bool_]:
    """The `share` of all neurons with the highest `scores` [layers, neurons].

    Ties, of which bits make many, go by a seeded draw and not by place, or the first layers would be emptied first;
    the draw is the same for every share, so that a larger one always holds a smaller one.
    """
    if not 0 <= share <= 1:
        raise UserError(f"the share of neurons to switch off must lie between 0 and 1; given {share}")
    drawn = np.random.default_rng(seed).random(scores.size)
    chosen = np.zeros(scores.size, dtype=bool)
    chosen[np.lexsort((drawn, -scores.ravel()))[: round(share * scores.size)]] = True
    return chosen.reshape(scores.shape)
