"""Sweeps: several settings of a method trained side by side, of which validation rows choose one for each task.

A grid gives each axis its values: a learning rate, another value of the recipe, or a setting of the method. Every
combination is a candidate. Candidates that differ in their rate alone are members of one bank; any other difference is
a bank of its own. Who is chosen and who is stopped early: contest.py.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from statistics import fmean
from typing import Any

from prompttransfer.adaptations.adaptation import CurvePoint
from prompttransfer.adaptations.method import Method, spelled
from prompttransfer.adaptations.methods import parse_method, settings_in
from prompttransfer.backbones.base import Backbone
from prompttransfer.backbones.layouts import USUAL, Encoding
from prompttransfer.training.contest import Bank, Contestant, decide
from prompttransfer.training.recipes import Recipe, method_and_recipe
from prompttransfer.training.train import Job, Run, Trained, TrainingOptions, begin_run
from tasks.errors import UserError, unknown

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
    banks = [
        Bank(run, part.recipe.steps, partial(watch, part)) for part, run in zip(parts, runs, strict=True)
    ]
    homes = {
        id(one): (run, number * len(jobs))
        for part, run in zip(parts, runs, strict=True)
        for number, one in enumerate(part.candidates)
    }
    places = {
        task: [_contestant(one, *homes[id(one)], jobs, task) for one in candidates] for task in _tasks(jobs)
    }
    best = decide(banks, places, halving=halving, tell=tell)
    trained = []
    for number, job in enumerate(jobs):
        run, first = homes[id(candidates[best[job.task.name]])]
        trained += run.results([first + number])
    tried = [
        _tried(task, one, contestant, jobs)
        for task, found in places.items()
        for one, contestant in zip(candidates, found, strict=True)
    ]
    chosen = {task: candidates[number] for task, number in best.items()}
    return Swept(tuple(tried), chosen, tuple(trained))


def _tasks(jobs: Sequence[Job]) -> list[str]:
    return list(dict.fromkeys(job.task.name for job in jobs))


def _contestant(one: Candidate, run: Run, first: int, jobs: Sequence[Job], task: str) -> Contestant:
    """A candidate on a task; `first` is the place of its first job in its bank."""
    runs = tuple((run, first + number) for number, job in enumerate(jobs) if job.task.name == task)
    return Contestant(str(one), one.recipe, runs)


def _tried(task: str, one: Candidate, contestant: Contestant, jobs: Sequence[Job]) -> Tried:
    found = contestant.measured()
    seeds = [job.seed for job in jobs if job.task.name == task]
    return Tried(task, one, dict(zip(seeds, found.curves, strict=True)), found.steps, found.finite)
