"""Switching neurons off by steps: does a prompt live by the neurons that it activates?

One idea: neurons are put in an order, a larger share from its top is switched off at each step, and the prompt is
scored. Orders are a dict: `specific` (active for this prompt, seldom for others) and `largest` (the largest
activations, as in v2.0 of the authors' code, Su et al. 2022, arXiv 2111.06719). Beside each stand random neurons and
random active ones, as many in every layer, so that only the choice within a layer differs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean

import numpy as np
from numpy.typing import NDArray

from analysis.neurons import NeuronStates, highest, specificity
from prompttransfer.adaptations.adaptation import Adaptation
from prompttransfer.adaptations.running import bank_of
from prompttransfer.backbones.base import Backbone
from prompttransfer.evaluation.encoding import EncodedTask
from prompttransfer.evaluation.evaluate import evaluate_bank
from prompttransfer.neurons.capture import switched_off
from tasks.errors import UserError, unknown

Bits = NDArray[np.bool_]
Scores = NDArray[np.floating]

RANDOM, RANDOM_ACTIVE = "random", "random active"
SHARES = (0.0, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3)
DRAWS = 5


@dataclass(frozen=True)
class Masked:
    """The score of a prompt with a share of all neurons switched off."""

    share: float
    kind: str
    """The order (`specific`, `largest`), `random`, or `random active` (drawn among those that the prompt activates)."""
    draw: int
    neurons: int
    """How many were switched off."""
    score: float


def _specific(states: NeuronStates, values: Scores, own: int) -> Scores:
    if len(states.names) < 2:
        raise UserError(
            "which neurons are specific to a prompt shows only against others: name more with --others"
        )
    return specificity(states, states.names[own])


def _largest(states: NeuronStates, values: Scores, own: int) -> Scores:
    return values[own]


ORDERS: dict[str, Callable[[NeuronStates, Scores, int], Scores]] = {
    "specific": _specific,
    "largest": _largest,
}
"""Name -> (states of all prompts, their activations [prompts, layers, neurons], place of the prompt) to a score for
every neuron, [layers, neurons]; the highest are switched off first."""


def masking_curve(
    backbone: Backbone,
    prompt: Adaptation,
    encoded: EncodedTask,
    states: NeuronStates,
    values: Scores,
    *,
    order: str = "specific",
    shares: Sequence[float] = SHARES,
    draws: int = DRAWS,
    seed: int = 0,
    advance: Callable[[], None] | None = None,
) -> list[Masked]:
    """Scores of `prompt` on `encoded` while neurons are switched off, a larger share of them each step.

    `states` and `values` [prompts, layers, neurons] are of the prompt and of those that it must differ from. `draws`
    draws of random neurons and of random active ones stand beside, with as many in every layer.
    """
    if order not in ORDERS:
        raise unknown("order of neurons", order, ORDERS)
    own = states.names.index(prompt.name)
    scores = ORDERS[order](states, values, own)
    active = np.stack([states.active(layer)[own] for layer in range(states.layers)])
    drawn = [
        (kind, draw, _random_order(active, kind, seed + draw))
        for kind in (RANDOM, RANDOM_ACTIVE)
        for draw in range(draws)
    ]
    found: list[Masked] = []
    for share in sorted(dict.fromkeys(shares)):
        chosen = highest(scores, share, seed)
        counts = chosen.sum(axis=1)
        trials = [(order, 0, chosen), *((kind, draw, _first(ranks, counts)) for kind, draw, ranks in drawn)]
        score: float | None = None
        for kind, draw, neurons in trials:
            if score is None or counts.any():  # with nothing switched off one evaluation stands for all
                score = score_without(backbone, prompt, encoded, neurons)
            found.append(Masked(share, kind, draw, int(counts.sum()), score))
            if advance is not None:
                advance()
    return found


def mean_scores(curve: Sequence[Masked]) -> dict[str, float]:
    """Kind of neurons -> mean score over the steps that switch something off: the lower, the faster the fall."""
    found: dict[str, list[float]] = {}
    for point in curve:
        if point.neurons:
            found.setdefault(point.kind, []).append(point.score)
    return {kind: fmean(scores) for kind, scores in found.items()}


def score_without(backbone: Backbone, prompt: Adaptation, encoded: EncodedTask, neurons: Bits) -> float:
    """The score of a prompt on a task with `neurons` [layers, neurons] switched off."""
    with switched_off(backbone, neurons):
        return evaluate_bank(backbone, bank_of(backbone, [prompt]), encoded)[0].value


def _random_order(active: Bits, kind: str, seed: int) -> NDArray[np.intp]:
    """A random order of the neurons of each layer, [layers, neurons]; for `random active` active ones come first."""
    values = np.random.default_rng(seed).random(active.shape)
    return np.argsort(values - (active if kind == RANDOM_ACTIVE else 0), axis=1)


def _first(order: NDArray[np.intp], counts: NDArray[np.intp]) -> Bits:
    """The first `counts` [layers] neurons of each layer's order."""
    ranks = np.argsort(order, axis=1)
    chosen: Bits = ranks < counts[:, None]
    return chosen
