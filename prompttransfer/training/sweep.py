"""Sweeps: several settings of a method trained side by side, of which validation rows choose one for each task.

A grid gives each axis its values: a learning rate, another value of the recipe, or a setting of the method. Every
combination is a candidate. Candidates that differ in their rate alone are members of one bank; any other difference is
a bank of its own. Losers are stopped early by successive halving (Jamieson and Talwalkar 2016): at each of RUNGS, a
share of every candidate's own steps, the better half of what is left of a task goes on. The score is the best on the
validation split so far, mean over seeds; test rows are never looked at.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from itertools import product
from statistics import fmean
from typing import Any

from prompttransfer.adaptations.adaptation import CurvePoint
from prompttransfer.adaptations.method import Method, spelled
from prompttransfer.adaptations.methods import parse_method, settings_in
from prompttransfer.backbones.base import Backbone
from prompttransfer.backbones.layouts import USUAL, Encoding
from prompttransfer.training.recipes import Recipe, method_and_recipe
from prompttransfer.training.train import Job, Run, Trained, TrainingOptions, begin_run
from tasks.errors import UserError, unknown

RUNGS = (0.25, 0.5)
"""Shares of the steps behind which the better half of the candidates goes on."""
RATE, LENGTH = "lr", "length"
RECIPE_AXES: dict[str, type] = {
    RATE: float,
    "weight-decay": float,
    "steps": int,
    "batch": int,
    "warm-up": int,
    "optimizer": str,
    "schedule": str,
}
"""Axes that are values of the recipe, and what their values are; all others are settings of the method."""
NOTE = "sweep"
"""Where the notes of an adaptation say how its settings were chosen."""
MOST = 1000
"""Candidates of one sweep; more are a slip."""

Grid = Mapping[str, tuple[str, ...]]
"""Axis -> its values as they were written."""


def parse_grid(texts: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """The grid that `name=value,value` texts stand for; a value with a comma stands in double quotes. Raises UserError."""
    grid: dict[str, tuple[str, ...]] = {}
    for text in texts:
        name, sign, rest = text.partition("=")
        name = name.strip().replace("_", "-")
        values = [value.strip() for row in csv.reader([rest], skipinitialspace=True) for value in row]
        if not sign or not name or not values or "" in values:
            raise UserError(f"--sweep {text!r}: write NAME=VALUE,VALUE,... as in lr=1e-3,1e-2 or length=5,20")
        if name in grid:
            raise UserError(f"--sweep gives {name} twice: write all its values behind one {name}=")
        if len(set(values)) < len(values):
            twice = next(value for value in values if values.count(value) > 1)
            raise UserError(f"--sweep {text!r}: {twice} stands twice")
        grid[name] = tuple(values)
    count = math.prod(len(values) for values in grid.values())
    if count < 2:
        raise UserError(f"--sweep {' '.join(texts)} is one setting: give at least two, or drop --sweep")
    if count > MOST:
        raise UserError(f"--sweep gives {count:,} settings: give at most {MOST:,}")
    return grid


@dataclass(frozen=True)
class Candidate:
    """One combination of a grid, and what it trains."""

    values: Mapping[str, str]
    method: Method
    recipe: Recipe

    def __str__(self) -> str:
        return ", ".join(f"{name} {value}" for name, value in self.values.items())


def candidates_of(
    family: str, width: int, text: str, grid: Grid, given: Mapping[str, Any]
) -> list[Candidate]:
    """Every combination of a grid for a method (its text) on a backbone; `given` are the recipe's other values.

    Raises UserError for an axis that the method does not have, a value that it does not take, or an axis whose value is
    given beside the sweep.
    """
    check_axes(text, grid, given)
    found = []
    for values in product(*grid.values()):
        chosen = dict(zip(grid, values, strict=True))
        method, recipe = method_and_recipe(family, width, _with(text, chosen), **_overrides(chosen, given))
        found.append(Candidate(chosen, method, recipe))
    return found


def check_axes(text: str, grid: Grid, given: Mapping[str, Any]) -> None:
    """Raise UserError unless each axis is one that the method can be swept over, with values that it takes."""
    method = parse_method(text)
    own = {name.replace("_", "-") for name in method.settings()}
    said = {name.replace("_", "-") for name in settings_in(text)}
    for name in grid:
        if given.get(name.replace("-", "_")) is not None or name in said:
            raise UserError(f"{name} is given and swept over: leave out one of the two")
        if name in RECIPE_AXES:
            if not method.trains or (method.searches and name not in ("steps", "batch")):
                raise UserError(
                    f"--sweep {name}: method {method.name} has no {name}; sweep over {_few(own, method)}"
                )
        elif name not in own:
            axes = sorted(own | ({*RECIPE_AXES} if method.trains else set()))
            raise unknown(f"axis of a sweep of method {method.name}", name, axes)
    for values in product(*grid.values()):  # every combination is a method and a recipe that can be
        chosen = dict(zip(grid, values, strict=True))
        parse_method(_with(text, chosen), length=1)
        _overrides(chosen, {})


def _few(own: set[str], method: Method) -> str:
    names = [*sorted(own), *(["steps", "batch"] if method.searches else [])]
    return ", ".join(names) or "nothing, as it has no settings"


def _with(text: str, chosen: Mapping[str, str]) -> str:
    """The method's text with the settings that are swept over."""
    own = [f"{name}={spelled(value)}" for name, value in chosen.items() if name not in RECIPE_AXES]
    if not own:
        return text
    return text + (("," if ":" in text else ":") + ",".join(own))


def _overrides(chosen: Mapping[str, str], given: Mapping[str, Any]) -> dict[str, Any]:
    """The recipe's values, those that are swept over among them."""
    values = dict(given)
    for name, text in chosen.items():
        if name in RECIPE_AXES:
            try:
                values[name.replace("-", "_")] = RECIPE_AXES[name](text)
            except ValueError:
                kind = {float: "a number", int: "a whole number"}[RECIPE_AXES[name]]
                raise UserError(f"--sweep {name}={text}: give {kind}") from None
    return values


@dataclass(frozen=True)
class Tried:
    """What came of a candidate on a task."""

    task: str
    candidate: Candidate
    curves: Mapping[int, tuple[CurvePoint, ...]]
    """Seed -> what was measured."""
    steps: int
    """Steps that were taken, of the seed that took most."""
    finite: bool
    """Whether no loss was without end."""

    @property
    def scores(self) -> list[float]:
        """The best validation score of each seed."""
        return [max(point.score for point in curve) for curve in self.curves.values()]

    @property
    def mean(self) -> float:
        """Over seeds."""
        return fmean(self.scores)

    @property
    def stopped(self) -> bool:
        """Whether it ended before its last step."""
        return self.steps < self.candidate.recipe.steps


@dataclass(frozen=True)
class Swept:
    """A finished sweep."""

    tried: tuple[Tried, ...]
    """Task by task, in the order of the grid."""
    chosen: Mapping[str, Candidate]
    """Task -> the candidate that was best on its validation rows."""
    trained: tuple[Trained, ...]
    """What the chosen candidates gave, one a job, in the order of the jobs."""


@dataclass(frozen=True)
class Part:
    """A bank of a sweep."""

    candidates: tuple[Candidate, ...]

    @property
    def method(self) -> Method:
        return self.candidates[0].method

    @property
    def recipe(self) -> Recipe:
        """Of all, but for their rates."""
        return self.candidates[0].recipe

    def jobs(self, jobs: Sequence[Job]) -> list[Job]:
        """Every job at the rate of each candidate, candidate by candidate."""
        rates = [one.recipe.lr for one in self.candidates]
        return [replace(job, lr=rate) for rate in rates for job in jobs]

    def __str__(self) -> str:
        if len(self.candidates) == 1:
            return str(self.candidates[0])
        shared = dict(self.candidates[0].values)
        shared.pop(RATE, None)
        return ", ".join(f"{name} {value}" for name, value in shared.items())


def parts_of(candidates: Sequence[Candidate]) -> list[Part]:
    """The banks that candidates train in: those that differ in their rate alone together.

    Of methods whose members share something each rate has a bank of its own, so that what is kept names no stranger.
    """
    groups: dict[object, list[Candidate]] = {}
    for one in candidates:
        rate = one.recipe.lr if one.method.shares else 0.0
        groups.setdefault((one.method, replace(one.recipe, lr=1.0), rate), []).append(one)
    return [Part(tuple(group)) for group in groups.values()]


def run_sweep(
    backbone: Backbone,
    candidates: Sequence[Candidate],
    jobs: Sequence[Job],
    encoding: Encoding = USUAL,
    *,
    halving: bool = True,
    options: Callable[[Part], TrainingOptions] = lambda part: TrainingOptions(),
    watch: Callable[[Part], AbstractContextManager[Any]] = lambda part: nullcontext(),
    tell: Callable[[str], None] = lambda line: None,
) -> Swept:
    """Train every candidate on every job, and keep for each task what the best of them gave.

    `jobs` are of any tasks and seeds; all seeds of a task get the same candidate. `watch` is entered while a bank
    trains. Deterministic as `train_adaptations` is, and a killed sweep goes on with the same state folders.
    """
    parts = parts_of(candidates)
    runs = [
        begin_run(backbone, part.jobs(jobs), part.recipe, encoding, method=part.method, options=options(part))
        for part in parts
    ]
    field = _Field(candidates, parts, runs, jobs)
    for rung in (*RUNGS, 1.0) if halving else (1.0,):
        for part, run in zip(parts, runs, strict=True):
            with watch(part):
                run.advance(max(1, math.ceil(rung * part.recipe.steps)))
        if rung < 1.0:
            for task in field.tasks:
                line = field.halve(task, rung)
                if line:
                    tell(line)
    return field.swept()


class _Field:
    """The candidates of a sweep in their runs, and which of them are left for each task."""

    def __init__(
        self,
        candidates: Sequence[Candidate],
        parts: Sequence[Part],
        runs: Sequence[Run],
        jobs: Sequence[Job],
    ):
        self.candidates, self.runs, self.jobs = candidates, runs, jobs
        self.tasks = list(dict.fromkeys(job.task.name for job in jobs))
        self.left = {task: list(range(len(candidates))) for task in self.tasks}
        places = {
            id(one): (run, number * len(jobs))
            for part, run in zip(parts, runs, strict=True)
            for number, one in enumerate(part.candidates)
        }
        self.places = [places[id(one)] for one in candidates]
        """Of each candidate its run, and the place of its first job there."""

    def of_task(self, task: str) -> list[int]:
        """The places of a task's jobs among all."""
        return [place for place, job in enumerate(self.jobs) if job.task.name == task]

    def tried(self, task: str, number: int, until: int | None = None) -> Tried:
        """What came of a candidate on a task, up to a step: so a killed sweep that goes on judges as it did before."""
        one, (run, first) = self.candidates[number], self.places[number]
        last, curves = math.inf if until is None else until, run.curves()
        places = {self.jobs[place].seed: first + place for place in self.of_task(task)}
        seeds = {
            seed: tuple(point for point in curves[place] if point.step <= last)
            for seed, place in places.items()
        }
        failures = [run.failed_at(place) for place in places.values()]
        finite = not any(step is not None and step <= last for step in failures)
        return Tried(task, one, seeds, max(curve[-1].step for curve in seeds.values()), finite)

    def halve(self, task: str, rung: float) -> str:
        """Drop the worse half of what is left of a task, by what was measured up to the rung; a line on who is left."""
        left = self.left[task]
        if len(left) < 2:
            return ""

        def standing(number: int) -> tuple[bool, float, float]:
            recipe = self.candidates[number].recipe
            stretches = math.ceil(max(1, math.ceil(rung * recipe.steps)) / recipe.evaluate_every)
            return _standing(self.tried(task, number, stretches * recipe.evaluate_every))

        ranked = sorted(left, key=standing, reverse=True)  # equal ones stay in the order of the grid
        kept, losers = ranked[: math.ceil(len(left) / 2)], ranked[math.ceil(len(left) / 2) :]
        for number in losers:
            run, first = self.places[number]
            run.drop(first + place for place in self.of_task(task))
        self.left[task] = sorted(kept)
        names = "; ".join(str(self.candidates[number]) for number in self.left[task])
        return f"{task}: behind {rung:.0%} of the steps {len(kept)} of {len(left)} settings go on: {names}"

    def swept(self) -> Swept:
        """The best of what is left, each task's."""
        best = {task: self._best(task) for task in self.tasks}
        trained = []
        for place, job in enumerate(self.jobs):
            run, first = self.places[best[job.task.name]]
            trained += run.results([first + place])
        every = [self.tried(task, number) for task in self.tasks for number in range(len(self.candidates))]
        chosen = {task: self.candidates[number] for task, number in best.items()}
        return Swept(tuple(every), chosen, tuple(trained))

    def _best(self, task: str) -> int:
        return max(self.left[task], key=lambda number: _standing(self.tried(task, number)))


def _standing(tried: Tried) -> tuple[bool, float, float]:
    """By what candidates are ranked: a loss without end comes last, then the score, then the loss at the best score."""
    losses = []
    for curve in tried.curves.values():
        loss = max(curve, key=lambda point: point.score).validation_loss
        losses.append(math.inf if loss is None or loss != loss else loss)
    return tried.finite, tried.mean, -fmean(losses)
