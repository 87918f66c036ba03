"""Transfer: prompts of source tasks used on target tasks, unchanged (zero-shot) or as initialisation.

Zero-shot puts the source's vectors in front of the target's input and reads the target's label words; nothing is
trained (Su et al. 2022, section 4). As initialisation (TPT_task, section 5) the source's vectors are where the
target's training starts, with the target's own run from scratch beside it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import stdev

import torch

from prompttransfer.adaptations.adaptation import Prompt, bank
from prompttransfer.adaptations.bank import VectorBank, common_encoding
from prompttransfer.adaptations.random_prompts import random_draws, random_like
from prompttransfer.backbones.base import Backbone
from prompttransfer.backbones.layouts import USUAL, Encoding
from prompttransfer.evaluation.calibration import (
    NO_WORDS,
    TRAIN_MEAN,
    Calibration,
    bare_calibrated,
    encode_inputs,
    evaluate_both,
)
from prompttransfer.evaluation.encoding import encode_task
from prompttransfer.evaluation.evaluate import Score
from prompttransfer.transfers.matrix import REFERENCE_ROWS, TransferMatrix
from tasks.errors import UserError
from tasks.loading import Splits
from tasks.task import Task


@dataclass(frozen=True)
class Target:
    """A task to transfer to, with its rows."""

    task: Task
    splits: Splits
    seeded: Mapping[int, Splits] = field(default_factory=dict)
    """Seed -> the splits of runs of that seed, with the same test rows; `splits` for those that are not here."""

    def rows(self, seed: int) -> Splits:
        """The splits of a run of this seed."""
        return self.seeded.get(seed, self.splits)


def zero_shot(
    backbone: Backbone,
    prompts: Sequence[Prompt],
    targets: Sequence[Target],
    *,
    other_layout: bool = False,
    encoding: Encoding = USUAL,
    seed: int = 0,
    calibration: Calibration | None = None,
    advance: Callable[[str], None] | None = None,
) -> TransferMatrix:
    """Every prompt on the test split of every target, and the reference rows beneath.

    With a `calibration` the matrix has a second one of calibrated scores (`.calibrated`), from the same passes; the row
    `no prompt, calibrated` is there in any case (by the mean over training rows where nothing else is asked for). The
    random row is the mean over random prompts at the sources' own norms, whose spread is kept beside it. Raises
    UserError for a prompt that does not run on this backbone, or prompts of different length or layout.
    """
    used = common_encoding(backbone, prompts, encoding, other_layout=other_layout)
    sources = bank(prompts)
    noise = random_like(sources, random_draws(len(prompts)), torch.Generator().manual_seed(seed))
    columns: list[list[float]] = []
    spread: list[list[float]] = []
    second: list[list[float]] = []
    metrics, counts, impossible, written = [], [], {}, {}
    chosen = calibration or Calibration(TRAIN_MEAN, seed=seed)
    for target in targets:
        if advance is not None:
            advance(target.task.name)
        metrics.append(target.task.metric)
        counts.append(len(target.splits.test))
        try:
            backbone.check_task(target.task)
        except UserError as error:
            impossible[target.task.name] = str(error)
            columns.append([float("nan")] * (len(prompts) + len(REFERENCE_ROWS)))
            second.append(columns[-1])
            spread.append([float("nan")] * 2)
            continue
        encoded = encode_task(
            backbone,
            target.task,
            target.splits.test,
            used,
            reserved=sources.shape[1],
        )
        inputs = encode_inputs(backbone, chosen, encoded, target.splits)
        bare = bare_calibrated(backbone, encoded, inputs)
        scores, calibrated = evaluate_both(
            backbone, VectorBank(torch.cat([sources, noise])), encoded, inputs if calibration else None
        )
        columns.append(_column(scores, bare, len(prompts)))
        spread.append([_spread(found, len(prompts)) for found in (scores, calibrated)])
        second.append(_column(calibrated, bare, len(prompts)))
        if inputs is None:
            written[target.task.name] = NO_WORDS
    matrix = TransferMatrix(
        sources=(*(p.name for p in prompts), *REFERENCE_ROWS),
        source_tasks=(*(p.task for p in prompts), *REFERENCE_ROWS),
        targets=tuple(target.task.name for target in targets),
        values=torch.tensor(columns, dtype=torch.float64).T.contiguous(),
        metrics=tuple(metrics),
        rows=tuple(counts),
        impossible=impossible,
        random_spread=tuple(each for each, _ in spread),
        random_draws=len(noise),
        calibration=str(chosen),
    )
    if calibration is None:
        return matrix
    return replace(
        matrix,
        calibrated=replace(
            matrix,
            values=torch.tensor(second, dtype=torch.float64).T.contiguous(),
            meaning="calibrated",
            random_spread=tuple(each for _, each in spread),
            impossible={**impossible, **written},
        ),
    )


def _column(scores: Sequence[Score] | None, bare: tuple[Score, Score | None], prompts: int) -> list[float]:
    """The cells of one target in the order of the matrix's rows; NaN where nothing was scored."""
    raw, calibrated = bare
    missing = float("nan")
    noise = [score.value for score in scores[prompts:]] if scores else [missing]
    return [
        *([score.value for score in scores[:prompts]] if scores else [missing] * prompts),
        raw.value,
        calibrated.value if calibrated else missing,
        sum(noise) / len(noise),
        raw.chance,
    ]


def _spread(scores: Sequence[Score] | None, prompts: int) -> float:
    """The standard deviation of the random prompts behind the others; NaN where nothing was scored."""
    return stdev(score.value for score in scores[prompts:]) if scores else float("nan")
