"""The row `in-context` of a matrix: a few labelled rows of each target in front of its own, and nothing is trained.

It is what one does who trains nothing (Brown et al. 2020). Which rows are drawn matters much, so the row is the mean over
several draws and their spread stands beside it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from statistics import mean, stdev

import torch

from prompttransfer.adaptations.methods.in_context import InContext
from prompttransfer.adaptations.starts import RANDOM
from prompttransfer.backbones.base import Backbone
from prompttransfer.backbones.layouts import USUAL, Encoding
from prompttransfer.evaluation.calibration import Calibration, encode_inputs, evaluate_both
from prompttransfer.evaluation.encoding import encode_task
from prompttransfer.transfers.matrix import IN_CONTEXT, MAJORITY, TransferMatrix
from prompttransfer.transfers.zero_shot import Target
from tasks.errors import UserError

NAN = float("nan")


@dataclass(frozen=True)
class Shown:
    """How many labelled rows are shown, and how often other ones are drawn."""

    rows: int
    draws: int = 5
    first: int = 0
    """Seed of the first draw; the others follow."""

    def __str__(self) -> str:
        return f"{self.rows} labelled training rows of the target in front of each row, {self.draws} draws"


def with_in_context(
    backbone: Backbone,
    matrix: TransferMatrix,
    targets: Sequence[Target],
    shown: Shown,
    encoding: Encoding = USUAL,
    *,
    calibration: Calibration | None = None,
    advance: Callable[[str], None] | None = None,
) -> TransferMatrix:
    """`matrix`, and its calibrated one where it has such, with the row `in-context` above the majority.

    Decoders read the rows behind their beginning of sequence. A target whose rows do not fit has no value there, and why.
    """
    if backbone.family == "causal-lm":
        encoding = replace(encoding, layout="after-bos")
    raw: list[list[float]] = []
    calibrated: list[list[float]] = []
    reasons: dict[str, str] = {}
    for target in targets:
        if advance is not None:
            advance(target.task.name)
        scores: list[tuple[float, float]] = []
        if target.task.name not in matrix.impossible:
            try:
                scores = _draws(backbone, target, shown, encoding, calibration)
            except UserError as error:
                reasons[target.task.name] = str(error)
        raw.append([first for first, _ in scores])
        calibrated.append([second for _, second in scores])
    found = _with_row(matrix, raw, shown, reasons)
    if matrix.calibrated is None:
        return found
    return replace(found, calibrated=_with_row(matrix.calibrated, calibrated, shown, reasons))


def _draws(
    backbone: Backbone, target: Target, shown: Shown, encoding: Encoding, calibration: Calibration | None
) -> list[tuple[float, float]]:
    """The score of each draw on a target, raw and calibrated."""
    method, found = InContext(shown.rows), []
    for seed in range(shown.first, shown.first + shown.draws):
        rows = target.splits.train
        member = method.started(backbone, target.task, RANDOM, seed=seed, rows=rows, encoding=encoding)
        bank = method.bank(backbone, [member])
        encoded = encode_task(backbone, target.task, target.splits.test, encoding, reserved=bank.reserved)
        inputs = None if calibration is None else encode_inputs(backbone, calibration, encoded, target.splits)
        raw, less = evaluate_both(backbone, bank, encoded, inputs)
        found.append((raw[0].value, less[0].value if less else NAN))
    return found


def _with_row(
    matrix: TransferMatrix, scores: Sequence[Sequence[float]], shown: Shown, reasons: dict[str, str]
) -> TransferMatrix:
    """The mean over the draws of each target as a row above the majority."""
    place = matrix.sources.index(MAJORITY)
    row = torch.tensor([[mean(own) if own else NAN for own in scores]], dtype=torch.float64)
    cells = {**matrix.impossible_cells, **({IN_CONTEXT: reasons} if reasons else {})}
    return replace(
        matrix,
        sources=(*matrix.sources[:place], IN_CONTEXT, *matrix.sources[place:]),
        source_tasks=(*matrix.source_tasks[:place], IN_CONTEXT, *matrix.source_tasks[place:]),
        values=torch.cat([matrix.values[:place], row, matrix.values[place:]]),
        impossible_cells=cells,
        in_context=str(shown),
        in_context_spread=tuple(stdev(own) if len(own) > 1 else NAN for own in scores),
    )
