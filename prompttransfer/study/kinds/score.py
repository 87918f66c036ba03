"""Kind `score`: prompts on the test rows of one target, all of a unit in one pass, with the reference rows beside.

Its files: `score.json`, one value, or for the references (no prompt, random prompts, majority) one each, with the
spread of the random prompts; with calibrated label words beside them where the study asks for that.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from prompttransfer.files import write_json
from prompttransfer.study.cell import Cell, Context, Json, Unit
from prompttransfer.study.contents import SCORE
from prompttransfer.study.kinds.loading import (
    check_rows,
    data_of,
    encoding_of,
    load_backbone_of,
    prompt_of,
    rows_to_test,
    setting,
    task_of,
)
from prompttransfer.study.kinds.versions import VERSIONS
from prompttransfer.study.plan.lookup import load_rows

if TYPE_CHECKING:
    from prompttransfer.adaptations.adaptation import Adaptation
    from prompttransfer.backbones.base import Backbone
    from prompttransfer.evaluation.calibration import Calibration
    from prompttransfer.transfers.matrix import TransferMatrix
    from prompttransfer.transfers.zero_shot import Target
    from tasks.loading import Splits
    from tasks.task import Task

REFERENCES = "references"
CALIBRATE, UNLABELLED, DRAWS, SHOWN = "calibrate", "unlabelled", "draws", "in_context"


class Scored:
    """Cells of one target; at most one of them holds the references."""

    version = VERSIONS["score"]

    def run(self, unit: Unit, context: Context) -> Mapping[str, Mapping[str, Json]]:
        """Score every prompt of the unit at once."""
        from prompttransfer.transfers.zero_shot import Target

        first = unit.cells[0]
        backbone = load_backbone_of(setting(first.settings, "backbone"), context)
        task = task_of(setting(first.settings, "task"), setting(first.settings, "words"), context)
        target = Target(task, splits_of(task, unit.cells, context))
        prompts: dict[str, Adaptation] = {}
        for cell in unit.cells:
            for role, name in cell.inputs.items():
                if name not in prompts:
                    prompts[name] = prompt_of(cell, role, context)
        reference = next((cell for cell in unit.cells if REFERENCES in cell.settings), None)
        context.tell(f"{len(prompts)} prompts on {len(target.splits.test)} rows of {task.name}")
        if reference is not None:
            values = with_references(backbone, prompts, target, reference)
        else:
            values = alone(backbone, prompts, target, first)
        rows = len(target.splits.test)
        for cell in unit.cells:
            key = REFERENCES if cell is reference else cell.inputs["prompt"]
            record = {"task": task.name, "metric": task.metric, "rows": rows, **values[key]}
            if cell is not reference:
                prompt = prompts[key]
                record |= {"prompt": prompt.name, "prompt_task": prompt.task, "seed": prompt.seed}
            write_json(context.output(cell) / SCORE, record)
        return {cell.id: {"rows": rows * (len(prompts) if cell is reference else 1)} for cell in unit.cells}


def splits_of(task: Task, cells: Sequence[Cell], context: Context) -> Splits:
    """The test rows of the cells, with the training rows that calibrate them, where one of them needs any."""
    splits = rows_to_test(task, cells[0], context)
    wanting = next((cell.settings for cell in cells if UNLABELLED in cell.settings), None)
    if wanting is None:
        return splits
    learned, found, _ = load_rows(task, data_of(context), setting(wanting, UNLABELLED, "limit_train"), 1)
    check_rows(task, found, setting(wanting, UNLABELLED, "learned"))
    return replace(splits, train=learned.train)


def calibration_of(cell: Cell) -> Calibration | None:
    """How the label words of a cell are calibrated for the second matrix; None where there is none."""
    from prompttransfer.evaluation.calibration import Calibration

    return Calibration(setting(cell.settings, CALIBRATE)) if CALIBRATE in cell.settings else None


def with_references(
    backbone: Backbone, prompts: Mapping[str, Adaptation], target: Target, reference: Cell
) -> dict[str, dict[str, Json]]:
    """Cell id of a prompt (or `references`) -> values, by `zero_shot`."""
    from prompttransfer.transfers.in_context import Shown, with_in_context
    from prompttransfer.transfers.matrix import MAJORITY, REFERENCE_ROWS
    from prompttransfer.transfers.zero_shot import zero_shot

    encoding, calibration = encoding_of(reference), calibration_of(reference)
    seed: int = setting(reference.settings, REFERENCES)
    matrix = zero_shot(
        backbone,
        list(prompts.values()),
        [target],
        encoding=encoding,
        seed=seed,
        calibration=calibration,
        draws=reference.settings.get(DRAWS),  # type: ignore[arg-type]
    )
    if SHOWN in reference.settings:
        shown = Shown(setting(reference.settings, SHOWN), draws=1, first=seed)
        matrix = with_in_context(backbone, matrix, [target], shown, encoding, calibration=calibration)
    column, calibrated = (_known(prompts, one) for one in (matrix, matrix.calibrated))
    found: dict[str, dict[str, Json]] = {
        name: {
            "value": column[name],
            "chance": column[MAJORITY],
            **({"calibrated": calibrated[name]} if name in calibrated else {}),
        }
        for name in prompts
    }
    found[REFERENCES] = {
        "references": {row: column[row] for row in REFERENCE_ROWS if row in column},
        "random_draws": matrix.random_draws,
        "random_spread": _known_number(matrix.random_spread[0]),
    }
    if calibrated and matrix.calibrated is not None:
        found[REFERENCES] |= {
            "calibrated references": {row: calibrated[row] for row in REFERENCE_ROWS if row in calibrated},
            "calibrated random_spread": _known_number(matrix.calibrated.random_spread[0]),
            "calibration": matrix.calibration,
        }
    return found


def _known(prompts: Mapping[str, Adaptation], matrix: TransferMatrix | None) -> dict[str, float]:
    """Cell id of a prompt, or reference row -> value in the one column of a matrix, where there is one."""
    if matrix is None:
        return {}
    rows = [*prompts, *matrix.sources[len(prompts) :]]
    return {row: v for row, v in zip(rows, matrix.values[:, 0].tolist(), strict=True) if v == v}


def _known_number(value: float) -> float | None:
    """The value, or None where a task has no such score."""
    return None if math.isnan(value) else value


def alone(
    backbone: Backbone, prompts: Mapping[str, Adaptation], target: Target, cell: Cell
) -> dict[str, dict[str, Json]]:
    """The same without references, and so without a calibration: zero-shot cells always run beside theirs."""
    from prompttransfer.adaptations.running import common_encoding
    from prompttransfer.evaluation.grouped import evaluate_all

    kept = list(prompts.values())
    encoding = common_encoding(backbone, kept, encoding_of(cell))
    scores = evaluate_all(backbone, kept, target.task, target.splits.test, encoding)
    return {
        name: {"value": score.value, "chance": score.chance}
        for name, score in zip(prompts, scores, strict=True)
    }
