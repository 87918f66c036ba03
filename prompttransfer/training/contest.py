"""Contests: several settings train for one place, and validation rows choose who has it.

A place is what one setting is chosen for: a task of `train --sweep`, a cell of a study. Losers can be stopped early by
successive halving (Jamieson and Talwalkar 2016): at each of RUNGS, a share of every contestant's own steps, the better half
of what is left of a place goes on. What counts is the best validation score so far, mean over seeds; equal ones are decided by
the lowest validation loss at that score, and a loss that was not finite comes last. Test rows are never looked at.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from prompttransfer.adaptations.adaptation import CurvePoint
from prompttransfer.training.grids import RUNGS, until
from prompttransfer.training.recipes import Recipe
from prompttransfer.training.train import Run


@dataclass(frozen=True)
class Measured:
    """What came of runs under one setting."""

    curves: tuple[tuple[CurvePoint, ...], ...]
    """A curve a seed."""
    steps: int
    """Steps that were taken, of the seed that took most."""
    finite: bool
    """Whether no loss was without end."""

    @property
    def scores(self) -> list[float]:
        """The best validation score of each seed."""
        return [max(point.score for point in curve) for curve in self.curves]

    @property
    def rank(self) -> tuple[bool, float, float]:
        """By what contestants are ranked, the best highest."""
        best = [max(map(_standing, curve)) for curve in self.curves]
        return self.finite, fmean(score for score, _ in best), fmean(loss for _, loss in best)


def _standing(point: CurvePoint) -> tuple[float, float]:
    loss = point.validation_loss
    return point.score, -math.inf if loss is None or math.isnan(loss) else -loss


@dataclass(frozen=True)
class Contestant:
    """One setting that competes for a place."""

    name: str
    recipe: Recipe
    runs: tuple[tuple[Run, int], ...]
    """The bank of each of its runs (one a seed), and the number of the job in it."""

    def measured(self, until: float = math.inf) -> Measured:
        """What came of it up to a step: so a killed contest that goes on judges as it did before."""
        curves = tuple(
            tuple(point for point in run.curves()[place] if point.step <= until) for run, place in self.runs
        )
        failures = [run.failed_at(place) for run, place in self.runs]
        finite = not any(step is not None and step <= until for step in failures)
        return Measured(curves, max(curve[-1].step for curve in curves), finite)

    def at(self, rung: float) -> Measured:
        """What came of it up to the first evaluation behind a share of its steps."""
        stretches = math.ceil(until(self.recipe.steps, rung) / self.recipe.evaluate_every)
        return self.measured(stretches * self.recipe.evaluate_every)

    def drop(self) -> None:
        """End its runs."""
        for run, place in self.runs:
            run.drop([place])


@dataclass(frozen=True)
class Bank:
    """A bank whose jobs are runs of contestants."""

    run: Run
    steps: int
    watch: Callable[[], AbstractContextManager[Any]] = nullcontext
    """Entered while it trains."""


def decide(
    banks: Sequence[Bank],
    places: Mapping[str, Sequence[Contestant]],
    *,
    halving: bool,
    tell: Callable[[str], None] = lambda line: None,
) -> dict[str, int]:
    """Train the banks; place -> number of the contestant that was best there. Those that halving stopped are out."""
    left = {place: list(range(len(found))) for place, found in places.items()}
    for rung in (*RUNGS, 1.0) if halving else (1.0,):
        for bank in banks:
            with bank.watch():
                bank.run.advance(until(bank.steps, rung))
        if rung < 1.0:
            for place, found in places.items():
                left[place] = _halved(place, found, left[place], rung, tell)
    return {
        place: max(left[place], key=lambda number: found[number].measured().rank)
        for place, found in places.items()
    }


def _halved(
    place: str, found: Sequence[Contestant], left: list[int], rung: float, tell: Callable[[str], None]
) -> list[int]:
    """The better half of those that are left, by what was measured up to the rung; the others are dropped."""
    if len(left) < 2:
        return left
    ranked = sorted(
        left, key=lambda number: found[number].at(rung).rank, reverse=True
    )  # equal ones stay in order
    kept = sorted(ranked[: math.ceil(len(left) / 2)])
    for number in left:
        if number not in kept:
            found[number].drop()
    names = "; ".join(found[number].name for number in kept)
    tell(f"{place}: behind {rung:.0%} of the steps {len(kept)} of {len(left)} settings go on: {names}")
    return kept
