"""LoraHub (Huang et al. 2023, arXiv 2307.13269): the weights of several adaptations found on a few rows without a gradient.

What is made small is the mean loss on the rows plus l1 times the mean of |w|, over weights from -bound to bound (theirs: 0.05
and 1.5). Their search is nevergrad's; here it is scipy's differential evolution, whose whole population is scored in one bank
over the same rows, and which begins with no adaptation, each one alone and their mean among its candidates. They sum the
factors of LoRAs, so that one of weight w counts w^2 times; here products are summed, so that it counts w times. Prompts are
searched alike.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import differential_evolution

from prompttransfer.adaptations.adaptation import Adaptation
from prompttransfer.adaptations.arithmetic import parts_of
from prompttransfer.adaptations.mixtures import mixture_bank
from prompttransfer.adaptations.running import common_encoding
from prompttransfer.backbones.base import Backbone
from prompttransfer.backbones.layouts import USUAL, Encoding
from prompttransfer.evaluation.encoding import encode_task
from prompttransfer.evaluation.evaluate import Score, evaluate_bank
from tasks.errors import UserError
from tasks.task import Example, Task


@dataclass(frozen=True)
class Search:
    """How weights are searched for."""

    rounds: int = 15
    candidates: int = 24
    """Weightings in each round; those that are always among the first (none, each alone, the mean) may be more."""
    l1: float = 0.05
    bound: float = 1.5
    seed: int = 0

    def __post_init__(self) -> None:
        if self.rounds < 1 or self.candidates < 5:
            raise UserError(
                f"a search of {self.rounds} rounds with {self.candidates} candidates: give at least 1 round and 5 candidates"
            )
        if not (self.l1 >= 0 and 0 < self.bound < 1e3):
            raise UserError(f"l1 {self.l1}, bound {self.bound}: l1 is 0 or more, the bound above 0")


@dataclass(frozen=True)
class FoundWeights:
    """The weights, and what was seen on the rows."""

    weights: tuple[float, ...]
    objective: float
    alone: tuple[float, ...]
    """What each adaptation by itself has of the same objective."""
    nothing: float
    mean: float
    """The same of no adaptation, and of all at equal weights that sum to 1."""
    evaluated: int
    """Weightings that were scored."""
    rows: int


def find_weights(
    backbone: Backbone,
    adaptations: Sequence[Adaptation],
    task: Task,
    examples: Sequence[Example],
    search: Search | None = None,
    *,
    encoding: Encoding = USUAL,
    advance: Callable[[int, float], None] | None = None,
) -> FoundWeights:
    """Weights of `adaptations` for `task`, by a few labelled rows of it.

    Where text is written, 1 - the task's metric stands for the loss. The same seed gives the same weights. `advance` is told
    each round and the best objective so far. Raises UserError for adaptations that cannot be composed.
    """
    search = search or Search()
    if not examples:
        raise UserError(f"no labelled row of {task.name} to search by: give some with --rows")
    used = common_encoding(backbone, adaptations, encoding)
    parts = parts_of(adaptations, [1.0] * len(adaptations))
    reserved = adaptations[0].length if adaptations[0].has_vectors else 0
    encoded = encode_task(backbone, task, examples, used, reserved=reserved)
    scored = 0
    rounds = 0

    def objective(columns: NDArray[np.float64]) -> NDArray[np.float64]:
        nonlocal scored
        weights = torch.from_numpy(np.ascontiguousarray(np.atleast_2d(columns.T)))
        scored += len(weights)
        bank = mixture_bank(backbone, parts, weights)
        losses = np.array([_loss(score) for score in evaluate_bank(backbone, bank, encoded)])
        return losses + search.l1 * weights.abs().mean(dim=1).numpy()

    def tell(intermediate_result: object) -> None:
        nonlocal rounds
        rounds += 1
        if advance is not None:
            advance(rounds, float(intermediate_result.fun))  # type: ignore[attr-defined]

    first = _first(len(parts), search)
    known = objective(first[: len(parts) + 2].T)
    found = differential_evolution(
        objective,
        bounds=[(-search.bound, search.bound)] * len(parts),
        init=first,
        maxiter=search.rounds,
        rng=np.random.default_rng(search.seed),
        vectorized=True,
        updating="deferred",
        polish=False,
        tol=0,
        callback=tell,
    )
    return FoundWeights(
        weights=tuple(map(float, found.x)),
        objective=float(found.fun),
        alone=tuple(map(float, known[2:])),
        nothing=float(known[0]),
        mean=float(known[1]),
        evaluated=scored,
        rows=len(encoded.rows),
    )


def _first(count: int, search: Search) -> NDArray[np.float64]:
    """The first candidates [n, count]: none, the mean, each alone, and uniform ones."""
    known = np.concatenate([np.zeros((1, count)), np.full((1, count), 1 / count), np.eye(count)])
    known = np.clip(known, -search.bound, search.bound)
    more = max(search.candidates - len(known), 5)
    drawn = np.random.default_rng(search.seed).uniform(-search.bound, search.bound, (more, count))
    return np.concatenate([known, drawn])


def _loss(score: Score) -> float:
    return 1 - score.value if score.loss is None else score.loss
