"""The table of carried updates: what each way of carrying is worth on the target, beside every control.

A way that cannot join the two models has no score and says why. Beside each stands what a random adaptation of the same size
is worth behind the same maps, and beside each score the calibrated one (evaluation/calibration.py).
"""

from __future__ import annotations

import csv
import io
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from projectors.carrying import Bridge, bridge, carried_tensors, carry, sites_of
from projectors.report import RANDOM_SOURCES
from projectors.weights import Carrier
from prompttransfer.adaptations.adaptation import Adaptation
from prompttransfer.adaptations.random_prompts import random_draws
from prompttransfer.adaptations.running import bank_of, groups_of
from prompttransfer.backbones.base import Backbone
from prompttransfer.backbones.layouts import USUAL, Encoding
from prompttransfer.evaluation.calibration import Calibration, bare_calibrated, encode_inputs, evaluate_both
from prompttransfer.evaluation.encoding import encode_task
from prompttransfer.transfers.zero_shot import Target
from tasks.errors import UserError

OWN, NOTHING, MAJORITY = "own", "no adaptation", "majority"
RANDOM = "random"


@dataclass(frozen=True)
class CarriedScore:
    """The score of one condition on one task, of one seed and one random draw."""

    task: str
    condition: str
    seed: int | None
    draw: int
    metric: str
    value: float
    calibrated: float | None
    """Less the bias of the label words; None where text is written."""


@dataclass(frozen=True)
class CarriedTable:
    """All scores, and why a way of carrying has none."""

    cells: tuple[CarriedScore, ...]
    impossible: Mapping[str, str]
    conditions: tuple[str, ...]
    """In the order in which they are shown."""
    calibration: str

    def mean(self, condition: str, task: str | None = None, *, calibrated: bool = False) -> float | None:
        """The mean over seeds and draws of a task, and over tasks where none is named; None where nothing was scored."""
        found: dict[str, list[float]] = {}
        for cell in self.cells:
            value = cell.calibrated if calibrated else cell.value
            if cell.condition == condition and task in (None, cell.task) and value is not None:
                found.setdefault(cell.task, []).append(value)
        return statistics.fmean(map(statistics.fmean, found.values())) if found else None

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        rows = {
            name: {
                "mean": self.mean(name),
                "calibrated": self.mean(name, calibrated=True),
                "tasks": {task: self.mean(name, task) for task in self.tasks},
            }
            for name in self.conditions
        }
        return {"conditions": rows, "impossible": dict(self.impossible), "calibration": self.calibration}

    @property
    def tasks(self) -> list[str]:
        """Those that were scored."""
        return list(dict.fromkeys(cell.task for cell in self.cells))

    def to_csv(self) -> str:
        """One line a cell; a way that cannot be has a line without a score."""
        stream = io.StringIO()
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(["task", "condition", "seed", "draw", "metric", "value", "calibrated"])
        for cell in self.cells:
            less = "" if cell.calibrated is None else f"{cell.calibrated:.6f}"
            seed = "" if cell.seed is None else cell.seed
            writer.writerow(
                [cell.task, cell.condition, seed, cell.draw, cell.metric, f"{cell.value:.6f}", less]
            )
        writer.writerows([task, name, "", 0, "", "", ""] for name in self.impossible for task in self.tasks)
        return stream.getvalue()


Drawn = tuple[str, int, Adaptation]
"""Condition, draw, and the adaptation of the target."""


def compare_carriers(
    source: Backbone,
    target: Backbone,
    adaptations: Sequence[Adaptation],
    own: Sequence[Adaptation],
    targets: Sequence[Target],
    carriers: Sequence[Carrier],
    *,
    encoding: Encoding = USUAL,
    seed: int = 0,
    advance: Callable[[str], None] | None = None,
) -> CarriedTable:
    """Score the source's `adaptations` on the test rows of their tasks on the target, carried each way.

    `own` are what the target itself learned. `carriers` are of different methods; `copy` is among them whatever is given.
    Raises UserError where no way joins the two models.
    """
    wanted = {each.method: each for each in (Carrier("copy"), *carriers)}
    bridges, impossible = _bridges(source, target, sites_of(source, adaptations), list(wanted.values()))
    if not bridges:
        raise UserError(next(reversed(impossible.values())))
    generator = torch.Generator().manual_seed(seed)
    calibration = Calibration(seed=seed)
    cells: list[CarriedScore] = []
    for each in targets:
        if advance is not None:
            advance(each.task.name)
        mine = [one for one in adaptations if one.task == each.task.name]
        drawn: list[Drawn] = [(OWN, 0, one) for one in own if one.task == each.task.name]
        for name, over in bridges.items():
            drawn += [(name, 0, carry(over, one)) for one in mine]
            drawn += _random(over, mine, name, generator)
        cells += _scored(target, each, drawn, encoding, calibration)
    ways = [row for name in wanted for row in (name, f"{name}, {RANDOM}")]
    conditions = (OWN, *(row for row in ways if row.split(",")[0] in bridges or row in impossible))
    return CarriedTable(tuple(cells), impossible, (*conditions, NOTHING, MAJORITY), str(calibration))


def _bridges(
    source: Backbone, target: Backbone, sites: Sequence[str], carriers: Sequence[Carrier]
) -> tuple[dict[str, Bridge], dict[str, str]]:
    """The ways that join the two models, and why others do not."""
    found, impossible = {}, {}
    for carrier in carriers:
        try:
            found[carrier.method] = bridge(source, target, sites, carrier)
        except UserError as error:
            impossible[carrier.method] = str(error)
    return found, impossible


def _random(
    over: Bridge, adaptations: Sequence[Adaptation], name: str, generator: torch.Generator
) -> list[Drawn]:
    """Random adaptations at the norms of the given ones behind the same maps."""
    first = adaptations[0]
    draws = random_draws(len(adaptations), RANDOM_SOURCES)
    noise = first.method.random_like([each.tensors for each in adaptations], draws, generator)
    found = []
    for draw, tensors in enumerate(noise):
        method, made = carried_tensors(over, first.method, tensors)
        like = replace(carry(over, first), method=method, tensors=made)
        found.append((f"{name}, {RANDOM}", draw, like))
    return found


def _scored(
    backbone: Backbone, target: Target, drawn: Sequence[Drawn], encoding: Encoding, calibration: Calibration
) -> list[CarriedScore]:
    """All conditions on one task, those that can in one bank."""
    task = target.task
    cells: dict[int, CarriedScore] = {}
    beside: list[CarriedScore] = []
    for group in groups_of([each for *_, each in drawn]):
        encoded = encode_task(backbone, task, target.splits.test, encoding, reserved=group.reserved)
        inputs = encode_inputs(backbone, calibration, encoded, target.splits)
        raw, less = evaluate_both(backbone, bank_of(backbone, group.adaptations), encoded, inputs)
        for index, place in enumerate(group.places):
            name, draw, one = drawn[place]
            own = None if name.endswith(RANDOM) else one.seed
            calibrated = less[index].value if less else None
            cells[place] = CarriedScore(task.name, name, own, draw, task.metric, raw[index].value, calibrated)
        if not beside:
            alone, second = bare_calibrated(backbone, encoded, inputs)
            majority = CarriedScore(task.name, MAJORITY, None, 0, task.metric, raw[0].chance, None)
            beside = [majority]
            if alone is not None:  # a head is there with what was trained alone
                calibrated = second.value if second else None
                bare = CarriedScore(task.name, NOTHING, None, 0, task.metric, alone.value, calibrated)
                beside = [bare, majority]
    return [*(cells[place] for place in sorted(cells)), *beside]
