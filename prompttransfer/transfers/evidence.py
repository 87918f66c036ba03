"""What indicators say of the sources for one target, and what finding it out cost; those that a ranking can be asked for."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from analysis.low_rank import SIMILARITIES
from analysis.prediction import BASELINE
from analysis.similarity import PAPER_METRICS
from prompttransfer.adaptations.adaptation import Adaptation
from prompttransfer.adaptations.running import called
from prompttransfer.backbones.base import Backbone
from prompttransfer.backbones.layouts import Encoding
from prompttransfer.transfers.compared import Compared
from prompttransfer.transfers.indicators import (
    AT_START,
    ESTIMATES,
    FEW_SHOT,
    estimates,
    gradient_cosines,
    missing,
)
from prompttransfer.transfers.zero_shot import Target
from tasks.errors import UserError, unknown

FEW_SHOT_LOSS = "few-shot-loss"
KNOWN_WITHOUT_PROBE = (FEW_SHOT, FEW_SHOT_LOSS, BASELINE, *ESTIMATES, *AT_START)
PROBE_METRICS = (*PAPER_METRICS, "C_concat-minus-initial")
"""Of vectors."""
OF_PROBE = (*PROBE_METRICS, *SIMILARITIES, "ON")
RANKINGS = (*KNOWN_WITHOUT_PROBE, *OF_PROBE)
"""What sources can be ranked by."""


@dataclass(frozen=True)
class Evidence:
    """What one indicator says of every source (more is better), and what finding it out cost."""

    indicator: str
    values: Mapping[str, float]
    """Of the sources that have one."""
    cost: str
    seconds: float


def check_rankings(by: Sequence[str], sources: Sequence[Adaptation], probe_steps: int | None) -> None:
    """Raise UserError for an indicator that sources cannot be ranked by, before any is computed."""
    for name in by:
        if name not in RANKINGS:
            raise unknown("indicator to rank by", name, RANKINGS)
        if name in OF_PROBE and probe_steps == 0:
            raise UserError(
                f"--by {name} compares sources with a probe: give --probe-steps, or rank by another"
            )
        if all(missing(name, [source]) for source in sources):
            raise UserError(missing(name, sources))


def of_rows(
    by: Sequence[str],
    backbone: Backbone,
    sources: Sequence[Adaptation],
    target: Target,
    encoding: Encoding,
) -> list[Evidence]:
    """What those of `by` that need no more than the target's rows say of the sources; each kind of run is made once."""
    group = Compared(tuple(sources), backbone=lambda: backbone, rows=lambda _: [target], encoding=encoding)
    each = f"{len(sources)} {called(sources)} x {len(target.splits.train)} rows"
    costs = {**dict.fromkeys(ESTIMATES, f"{each} forward"), **dict.fromkeys(AT_START, f"{each} x 2 forward and backward")}  # fmt: skip
    found: list[Evidence] = []
    for name in dict.fromkeys(by):
        if name not in costs:
            continue
        started = time.monotonic()
        of = estimates if name in ESTIMATES else gradient_cosines
        values = dict(zip(group.names, of(name, group, target.task.name), strict=True))
        known = {source: value for source, value in values.items() if not math.isnan(value)}
        if not known:  # of a task without one label a row, or a head that would start fresh
            continue
        ran = any(costs.get(item.indicator) == costs[name] for item in found)
        found.append(
            Evidence(name, known, "the same run" if ran else costs[name], time.monotonic() - started)
        )
    return found
