"""Neuron maps: for each layer, which of its most telling neurons each prompt activates.

A row is a prompt (prompts of one type together), a column a neuron, black where active. Of thousands of neurons only
those are shown that differ most between prompts, ordered by the type that uses them: if neurons mean anything, types
show as blocks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from numpy.typing import NDArray

from analysis.figures.style import MUTED, Figure, figure_style, shorten, type_colours, type_runs
from analysis.matrices import order_by_type
from analysis.neurons import NeuronStates, overlaps, windows
from tasks.errors import UserError

_MOST_RUNS = 40


def neuron_map(
    states: NeuronStates,
    types: Mapping[str, str] | None = None,
    *,
    layers: Sequence[int] | None = None,
    neurons: int = 120,
    title: str = "",
) -> Figure:
    """The figure; `types` maps prompt names to types, `layers` defaults to four spread over the depth."""
    types = types or {}
    chosen = list(layers) if layers is not None else _spread(states.layers, 4)
    outside = [layer for layer in chosen if not 0 <= layer < states.layers]
    if outside or not chosen:
        raise UserError(f"layers {outside} lie outside 0 to {states.layers - 1}: choose others with --layers")
    order = order_by_type(states.names, types)
    rows = [states.names.index(name) for name in order]
    kinds = np.array([types.get(name, "") for name in order])
    colours, runs = type_colours(list(types.values())), type_runs(order, types)
    if len(runs) > _MOST_RUNS:  # their names would cover each other
        runs = []
    with figure_style():
        size = 0.145 if len(rows) <= 40 else 5.8 / len(rows)
        figure = Figure(
            figsize=(1.4 + 1.75 * len(chosen), 0.9 + max(0.8, size * len(rows))), layout="constrained"
        )
        panels = figure.subplots(1, len(chosen), squeeze=False, sharey=True)[0]
        for axes, layer in zip(panels, chosen, strict=True):
            _panel(axes, telling_neurons(states.active(layer)[rows], kinds, neurons), runs, colours)
            axes.set_title(f"layer {layer}", fontsize=8)
        if len(rows) <= 40:
            panels[0].set_yticks(range(len(rows)), [shorten(n) for n in order], fontsize=6.5)
        else:
            panels[0].set_ylabel(f"{len(rows):,} prompts, names left out", fontsize=7, color=MUTED)
            panels[0].set_yticks([(a + b - 1) / 2 for _, a, b in runs], [k for k, _, _ in runs], fontsize=7)
        panels[0].tick_params(axis="y", pad=7)
        shown = min(neurons, states.neurons)
        figure.supxlabel(f"the {shown} of {states.neurons} neurons that differ most", fontsize=8, color=MUTED)
        if title:
            figure.suptitle(title, fontsize=9, fontweight="bold", x=0.01, ha="left")
    return figure


def _panel(
    axes: Axes,
    active: NDArray[np.float64],
    runs: Sequence[tuple[str, int, int]],
    colours: Mapping[str, str],
) -> None:
    """One layer, with a bar of the type's colour beside its prompts."""
    axes.imshow(active, cmap="Greys", aspect="auto", interpolation="nearest", vmin=0, vmax=1)
    axes.set_xticks([])
    axes.tick_params(length=0)
    left = axes.get_yaxis_transform()
    for kind, first, last in runs:
        axes.axhline(last - 0.5, color="white", linewidth=1.4)
        axes.plot(
            [-0.035] * 2, [first - 0.4, last - 0.6], transform=left, color=colours[kind], linewidth=2.4,
            clip_on=False, solid_capstyle="butt",
        )  # fmt: skip


def _spread(layers: int, count: int) -> list[int]:
    return sorted({round(i) for i in np.linspace(0, layers - 1, min(count, layers))})


def telling_neurons(active: NDArray[np.bool_], kinds: NDArray[np.str_], count: int) -> NDArray[np.float64]:
    """The columns of `active` [prompts, neurons] with the largest variance between types, grouped by the type that uses them."""
    share = np.stack([active[kinds == kind].mean(0) for kind in dict.fromkeys(kinds)])
    spread = share.var(0) if len(share) > 1 else active.mean(0) * (1 - active.mean(0))
    best = np.argsort(-spread, kind="stable")[:count]
    users = share[:, best]
    order = np.lexsort((-users.max(0), users.argmax(0)))
    return active[:, best[order]].astype(float)


def overlap_by_layer(states: NeuronStates, types: Mapping[str, str], *, measure: str = "ON") -> pd.DataFrame:
    """Mean overlap of pairs of one type and of two types in every layer, with the middle half of the pairs."""
    kinds = np.array([types.get(name, "") for name in states.names])
    upper = np.triu(np.ones((len(kinds), len(kinds)), dtype=bool), k=1)
    same = (kinds[:, None] == kinds[None, :]) & (kinds != "")[:, None]
    rows = []
    for layer, table in overlaps(states, windows(states.layers, 1), measure).items():
        for pair, mask in (("same type", upper & same), ("different type", upper & ~same)):
            values = table.to_numpy()[mask]
            if len(values):
                low, high = np.quantile(values, [0.25, 0.75])
                rows.append(
                    {"layer": int(layer), "pair": pair, "mean": values.mean(), "low": low, "high": high}
                )
    return pd.DataFrame(rows)
