"""Choosing a source by an indicator: for each target, what the first choice gives against the best there is.

The question of someone who has 40 trained prompts and a new task. Regret is what is lost, in the unit of the
transfer table; NDCG says how good the whole order is (and, at 1, the first choice as a share of the best). Sources
that tie are taken on average, so an indicator that cannot tell them apart (a same-type flag) gets the mean of them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from analysis.matrices import Aligned
from analysis.statistics import usable_sources


@dataclass(frozen=True)
class TargetChoice:
    """One target: the sources with the highest indicator, what they give on average, and the best."""

    target: str
    chosen: tuple[str, ...]
    chosen_score: float
    best: str
    best_score: float
    random_score: float
    ndcg_first: float | None
    ndcg: float | None

    @property
    def regret(self) -> float:
        """What the choice loses against the best source."""
        return self.best_score - self.chosen_score

    @property
    def random_regret(self) -> float:
        """What a source drawn at random loses."""
        return self.best_score - self.random_score


@dataclass(frozen=True)
class ChoiceSummary:
    """Means over targets, in the unit of the transfer table; NDCG over the targets that have one."""

    targets: int
    chosen_score: float
    best_score: float
    regret: float
    random_regret: float
    ndcg_first: float | None
    ndcg: float | None


def choose_sources(pair: Aligned) -> tuple[TargetChoice, ...]:
    """The indicator's choice for every target that has at least two sources; the target itself cannot be chosen."""
    choices = []
    for t, target in enumerate(pair.transfer.columns):
        rows = usable_sources(pair, t, include_self=False)
        if len(rows) < 2:
            continue
        gains, scores = pair.transfer.to_numpy()[rows, t], pair.indicator.to_numpy()[rows, t]
        top = scores == scores.max()
        choices.append(
            TargetChoice(
                target=target,
                chosen=tuple(pair.transfer.index[rows[top]]),
                chosen_score=float(gains[top].mean()),
                best=str(pair.transfer.index[rows[gains.argmax()]]),
                best_score=float(gains.max()),
                random_score=float(gains.mean()),
                ndcg_first=ndcg(gains, scores, first=1),
                ndcg=ndcg(gains, scores),
            )
        )
    return tuple(choices)


def ndcg(gains: NDArray[np.float64], scores: NDArray[np.float64], first: int | None = None) -> float | None:
    """Normalised discounted cumulative gain of the order by `scores` (Jarvelin and Kekalainen 2002), ties averaged.

    Gain is the transfer itself, discount 1 / log2(rank + 1), over the `first` ranks (default all). None if a gain
    is negative or no gain is above zero: there is nothing to share.
    """
    if gains.min() < 0 or gains.max() <= 0:
        return None
    discount = 1 / np.log2(np.arange(len(gains)) + 2)
    discount[first if first is not None else len(gains) :] = 0
    _, group = np.unique(-scores, return_inverse=True)  # group 0 holds the highest score
    average = np.bincount(group, weights=gains) / np.bincount(group)
    ordered = average[np.sort(group)]
    return float((ordered * discount).sum() / (np.sort(gains)[::-1] * discount).sum())


def summarise(choices: tuple[TargetChoice, ...]) -> ChoiceSummary | None:
    """Means over targets; None if no target has a choice."""
    if not choices:
        return None

    def mean(name: str) -> float:
        return float(np.mean([getattr(c, name) for c in choices]))

    def mean_known(name: str) -> float | None:
        known = [getattr(c, name) for c in choices if getattr(c, name) is not None]
        return float(np.mean(known)) if known else None

    return ChoiceSummary(
        targets=len(choices),
        chosen_score=mean("chosen_score"),
        best_score=mean("best_score"),
        regret=mean("regret"),
        random_regret=mean("random_regret"),
        ndcg_first=mean_known("ndcg_first"),
        ndcg=mean_known("ndcg"),
    )
