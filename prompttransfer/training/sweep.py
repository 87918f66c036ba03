"""Sweeps: several settings of a method trained side by side, of which validation rows choose one for each task.

A grid gives each axis its values: a learning rate, another value of the recipe, or a setting of the method. Every
combination is a candidate. Candidates that differ in their rate alone are members of one bank; any other difference is
a bank of its own. Who is chosen and who is stopped early: contest.py.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from statistics import fmean
from typing import Any

from prompttransfer.adaptations.adaptation import CurvePoint
from prompttransfer.adaptations.method import Method
from prompttransfer.backbones.base import Backbone
from prompttransfer.backbones.layouts import USUAL, Encoding
from prompttransfer.training.contest import Bank, Contestant, decide
from prompttransfer.training.grids import RATE, Candidate, banked
from prompttransfer.training.recipes import Recipe
from prompttransfer.training.train import Job, Run, Trained, TrainingOptions, begin_run

NOTE = "sweep"
"""Where the notes of an adaptation say how its settings were chosen."""


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
    """The banks that candidates train in."""
    return [Part(tuple(group)) for group in banked(candidates)]


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
        run, first = homes[id(candidates[best[job.task_name]])]
        trained += run.results([first + number])
    tried = [
        _tried(task, one, contestant, jobs)
        for task, found in places.items()
        for one, contestant in zip(candidates, found, strict=True)
    ]
    chosen = {task: candidates[number] for task, number in best.items()}
    return Swept(tuple(tried), chosen, tuple(trained))


def _tasks(jobs: Sequence[Job]) -> list[str]:
    return list(dict.fromkeys(job.task_name for job in jobs))


def _contestant(one: Candidate, run: Run, first: int, jobs: Sequence[Job], task: str) -> Contestant:
    """A candidate on a task; `first` is the place of its first job in its bank."""
    runs = tuple((run, first + number) for number, job in enumerate(jobs) if job.task_name == task)
    return Contestant(str(one), one.recipe, runs)


def _tried(task: str, one: Candidate, contestant: Contestant, jobs: Sequence[Job]) -> Tried:
    found = contestant.measured()
    seeds = [job.seed for job in jobs if job.task_name == task]
    return Tried(task, one, dict(zip(seeds, found.curves, strict=True)), found.steps, found.finite)
