"""The report: a projector's scores on the target model, side by side with every control, by group of tasks.

Groups are the fitting tasks, unseen tasks of a fitted type, and unseen tasks of other types. Each condition is one or
several prompts a task; all of them pass over the same test rows together. Spread is over seeds: of the fit for what
a fit decides, of the prompts for what is there without one; for random prompts it is over draws.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from projectors.controls import Gains, Sensitivity, mean_prompt, probes, sensitivity, verdict
from projectors.fitting import Pair
from projectors.projector import Projector, project_vectors
from prompttransfer.adaptations.adaptation import Adaptation
from prompttransfer.adaptations.bank import VectorBank
from prompttransfer.adaptations.random_prompts import random_draws, random_like
from prompttransfer.backbones.base import Backbone
from prompttransfer.evaluation.encoding import EncodedTask
from prompttransfer.evaluation.evaluate import evaluate_bank
from tasks.metrics import chance

FITTED, SAME_TYPE, OTHER_TYPE = "fitted", "unseen, fitted type", "unseen, other type"
GROUPS = (FITTED, SAME_TYPE, OTHER_TYPE)

CONDITIONS = {
    "own prompt": "the target model's own prompt of the task",
    "projected": "the source model's prompt of the task through the projector",
    "projected, validated step": "anchors only: the search step picked on the target's validation data",
    "random source": "random source prompts at the norms of the task's own through the same projector",
    "mean constant": "one prompt for all: the mean of the fitting tasks' target prompts",
    "tuned constant": "one prompt for all, tuned on the fitting tasks with the budget of task-tuning",
    "same type in target": "the target model's prompts of other tasks of the same type",
    "random prompt": "random target prompts, each at the norms of one of the target's own",
    "no prompt": "the target model with no prompt",
    "majority": "the most common answer",
}
"""Row of the table -> what it is, in the order they are shown."""


@dataclass(frozen=True)
class ConditionScore:
    """The score of one condition on one task, of one seed and one random draw."""

    task: str
    group: str
    condition: str
    seed: int
    value: float
    draw: int = 0
    metric: str = ""
    """What the value is; values of different metrics are in no common mean."""


@dataclass(frozen=True)
class Bench:
    """What a report is measured on: test rows of each task on the target, and the trained prompts of both models."""

    backbone: Backbone
    tasks: Mapping[str, EncodedTask]
    fitting: tuple[str, ...]
    source: Mapping[str, Sequence[Adaptation]]
    target: Mapping[str, Sequence[Adaptation]]

    def group(self, task: str) -> str:
        """The group of a task; a label-free projector has no fitting task, so all are of other types."""
        if task in self.fitting:
            return FITTED
        types = {self.tasks[name].task.type for name in self.fitting if name in self.tasks}
        return SAME_TYPE if self.tasks[task].task.type in types else OTHER_TYPE


class Draw(NamedTuple):
    """The vectors [L_t, d_t] that came of a seed, and for random ones of a draw."""

    seed: int
    vectors: Tensor
    draw: int = 0


RANDOM_SOURCES = 3
"""Fewest random sources of a task; each of its source prompts is stood for as often as the others."""

Conditions = dict[str, Sequence[Draw]]
"""Condition -> the prompts it stands for."""


def measure(
    bench: Bench,
    projectors: Sequence[Projector],
    pairs: Sequence[Pair] = (),
    constants: Sequence[Tensor] = (),
    *,
    draws: int = RANDOM_SOURCES,
    picked: Mapping[str, Sequence[Draw]] | None = None,
    advance: Callable[[str], None] | None = None,
) -> list[ConditionScore]:
    """Score every condition on every task that has source prompts.

    `projectors` are the fits of the different seeds, `constants` tuned constants [L_t, d_t] of the same seeds,
    `draws` the fewest random sources of a task; `picked` has each task's prompts of the anchors' validated step.
    `advance` is told of each task before it is scored.
    """
    carried = carry(projectors, bench.source)
    noise = random_sources(projectors, bench.source, draws)
    shared = for_every_task(bench, pairs, constants)
    cells = []
    for name in bench.source:
        if advance is not None:
            advance(name)
        own = bench.target.get(name, ())
        conditions: Conditions = {
            "own prompt": [Draw(prompt.seed or 0, prompt.vectors) for prompt in own],
            "projected": carried[name],
            "random source": noise[name],
            "projected, validated step": (picked or {}).get(name, ()),
            "same type in target": relatives(bench, name),
            **shared,
        }
        cells += score_conditions(bench, name, conditions)
    return cells


def carry(
    projectors: Sequence[Projector], source: Mapping[str, Sequence[Adaptation]]
) -> dict[str, list[Draw]]:
    """Task -> its prompts through every projector, with the projector's seed; all prompts of a projector at once."""
    flat = [(name, prompt.vectors) for name, prompts in source.items() for prompt in prompts]
    carried: dict[str, list[Draw]] = {name: [] for name in source}
    for projector in projectors:
        made = project_vectors(projector, torch.stack([vectors for _, vectors in flat]))
        for (name, _), vectors in zip(flat, made, strict=True):
            carried[name].append(Draw(projector.seed, vectors))
    return carried


def random_sources(
    projectors: Sequence[Projector], source: Mapping[str, Sequence[Adaptation]], least: int = RANDOM_SOURCES
) -> dict[str, list[Draw]]:
    """Task -> random prompts at the norms of its source prompts, through every projector.

    Each task has draws of its own, so that its difference from the projected prompt is independent of other tasks'.
    """
    made: dict[str, list[Draw]] = {}
    for index, (name, prompts) in enumerate(source.items()):
        generator = torch.Generator().manual_seed(1000 + index)
        noise = random_like([p.vectors for p in prompts], random_draws(len(prompts), least), generator)
        made[name] = [
            Draw(projector.seed, vectors, draw)
            for projector in projectors
            for draw, vectors in enumerate(project_vectors(projector, noise))
        ]
    return made


def for_every_task(bench: Bench, pairs: Sequence[Pair], constants: Sequence[Tensor]) -> Conditions:
    """The conditions whose prompts are the same for every task: random and constant ones."""
    made: Conditions = {
        "mean constant": [Draw(0, mean_prompt(pairs))] if pairs else [],
        "tuned constant": [Draw(seed, vectors) for seed, vectors in enumerate(constants)],
    }
    targets = [prompt.vectors for prompts in bench.target.values() for prompt in prompts]
    if targets:
        drawn = random_like(targets, random_draws(len(targets)), torch.Generator().manual_seed(2000))
        made["random prompt"] = [Draw(0, vectors, draw) for draw, vectors in enumerate(drawn)]
    return made


def relatives(bench: Bench, name: str) -> list[Draw]:
    """The target's prompts of other tasks of the type of task `name`."""
    kind = bench.tasks[name].task.type
    others = [other for other in bench.target if other != name and other in bench.tasks]
    return [
        Draw(prompt.seed or 0, prompt.vectors)
        for other in others
        if bench.tasks[other].task.type == kind
        for prompt in bench.target[other]
    ]


def score_conditions(bench: Bench, name: str, conditions: Conditions) -> list[ConditionScore]:
    """Score all prompts of all conditions on one task, in one bank."""
    encoded, group = bench.tasks[name], bench.group(name)
    metric = encoded.task.metric
    drawn = [(condition, draw) for condition, draws in conditions.items() for draw in draws]
    scores = evaluate_bank(
        bench.backbone, VectorBank(torch.stack([draw.vectors for _, draw in drawn])), encoded
    )
    cells = [
        ConditionScore(name, group, condition, draw.seed, score.value, draw.draw, metric)
        for (condition, draw), score in zip(drawn, scores, strict=True)
    ]
    nothing = torch.zeros(1, 0, bench.backbone.width)
    alone = evaluate_bank(bench.backbone, VectorBank(nothing), encoded)[0].value
    cells.append(ConditionScore(name, group, "no prompt", 0, alone, metric=metric))
    cells.append(
        ConditionScore(name, group, "majority", 0, chance(encoded.task, encoded.examples), metric=metric)
    )
    return cells


@dataclass(frozen=True)
class Entry:
    """Mean of a condition over the tasks of a group and its spread (standard deviation) over seeds and draws."""

    mean: float
    spread: float
    seeds: int
    """How many seeds and draws the spread is over."""
    tasks: int


Table = dict[str, dict[str, Entry]]
"""Group -> condition -> entry, groups and conditions in their order; a group of several metrics is one a metric."""


def summarise(cells: Sequence[ConditionScore]) -> Table:
    """Average prompts of a seed and draw within a task, then tasks; spread is over seeds and draws (0 with one).

    Where the tasks of a group have several metrics, each has a part of its own (`fitted, token-f1`).
    """
    table: Table = {}
    for group in GROUPS:
        metrics = list(dict.fromkeys(c.metric for c in cells if c.group == group))
        for metric in metrics:
            part = [c for c in cells if c.group == group and c.metric == metric]
            rows = {
                condition: summary
                for condition in CONDITIONS
                if (summary := summary_of([c for c in part if c.condition == condition]))
            }
            if rows:
                table[f"{group}, {metric}" if len(metrics) > 1 else group] = rows
    return table


def summary_of(cells: Sequence[ConditionScore]) -> Entry | None:
    """The entry of the cells of one group and condition; None where there is none."""
    if not cells:
        return None
    tasks = sorted({cell.task for cell in cells})
    seeds = sorted({(cell.seed, cell.draw) for cell in cells})
    by_seed = []
    for seed in seeds:
        values = [[c.value for c in cells if c.task == task and (c.seed, c.draw) == seed] for task in tasks]
        by_seed.append(statistics.fmean(statistics.fmean(v) for v in values if v))
    return Entry(
        statistics.fmean(by_seed),
        statistics.stdev(by_seed) if len(seeds) > 1 else 0.0,
        len(seeds),
        len(tasks),
    )


@dataclass(frozen=True)
class Judgement:
    """The table with what it says of the projector."""

    table: Table
    sensitivity: Sensitivity
    gains: Gains | None
    collapsed: bool
    verdict: str

    def scores(self) -> dict[str, Any]:
        """The table for JSON."""
        return {
            group: {
                name: {"mean": e.mean, "spread": e.spread, "seeds": e.seeds, "tasks": e.tasks}
                for name, e in rows.items()
            }
            for group, rows in self.table.items()
        }


def judge(
    cells: Sequence[ConditionScore],
    projector: Projector,
    source: Mapping[str, Sequence[Adaptation]],
    target: Mapping[str, Sequence[Adaptation]],
) -> Judgement:
    """Summarise the cells and decide whether the projector is collapsed.

    Scores are read where the projector should do best: on the fitting tasks, or on all tasks for a label-free method;
    of tasks with several metrics, on those of the metric that most of them have.
    `target` has the target model's own prompts, which the outputs are held against.
    """
    table = summarise(cells)
    inputs = probes({name: torch.stack([p.vectors for p in prompts]) for name, prompts in source.items()})
    own = [prompts[0].vectors for name, prompts in target.items() if name in source and prompts]
    measured = sensitivity(projector.module, inputs, torch.stack(own) if own else None)
    fitted = [cell for cell in cells if cell.group == FITTED] or list(cells)
    gains = gains_of(_of_one_metric(fitted))
    collapsed, said = verdict(measured, gains, len(projector.tasks))
    return Judgement(table, measured, gains, collapsed, said)


def _of_one_metric(cells: Sequence[ConditionScore]) -> list[ConditionScore]:
    """The cells of the metric that most tasks have."""
    tasks: dict[str, set[str]] = {}
    for cell in cells:
        tasks.setdefault(cell.metric, set()).add(cell.task)
    most = max(tasks, key=lambda metric: len(tasks[metric]), default="")
    return [cell for cell in cells if cell.metric == most]


def gains_of(cells: Sequence[ConditionScore]) -> Gains | None:
    """What the projected prompts, random sources and no prompt score, task by task; None where one was not measured."""
    scores: dict[str, dict[str, list[float]]] = {}
    for cell in cells:
        scores.setdefault(cell.task, {}).setdefault(cell.condition, []).append(cell.value)
    wanted = ("projected", "random source", "no prompt")
    rows = [
        [statistics.fmean(found[condition]) for condition in wanted]
        for found in scores.values()
        if all(condition in found for condition in wanted)
    ]
    return Gains(*(tuple(column) for column in zip(*rows, strict=True))) if rows else None
