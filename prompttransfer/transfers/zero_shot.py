"""Transfer: adaptations of source tasks used on target tasks, unchanged (zero-shot) or as initialisation.

Zero-shot runs the target's rows with the source's adaptation and reads the target's label words; nothing is
trained (Su et al. 2022, section 4). As initialisation (TPT_task, section 5) the source's vectors are where the
target's training starts, with the target's own run from scratch beside it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import stdev
from typing import Any

import torch

from prompttransfer.adaptations.adaptation import Adaptation
from prompttransfer.adaptations.bank import Bank
from prompttransfer.adaptations.heads import with_heads
from prompttransfer.adaptations.random_prompts import random_draws
from prompttransfer.adaptations.running import Group, common_encoding, groups_of, heads_of, impossible
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
from prompttransfer.transfers.matrix import TransferMatrix, reference_rows
from tasks.errors import UserError
from tasks.loading import Splits
from tasks.metrics import chance
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
    sources: Sequence[Adaptation],
    targets: Sequence[Target],
    *,
    other_layout: bool = False,
    encoding: Encoding = USUAL,
    seed: int = 0,
    calibration: Calibration | None = None,
    draws: int | None = None,
    advance: Callable[[str], None] | None = None,
    keep: Callable[[Adaptation, Target, Score], None] | None = None,
) -> TransferMatrix:
    """Every source on the test split of every target, and the reference rows beneath.

    Sources of one method and shape run in one bank. With a `calibration` the matrix has a second one of calibrated
    scores (`.calibrated`), from the same passes; the row `no prompt, calibrated` is there in any case (by the mean over
    training rows where nothing else is asked for). The random row is the mean over random adaptations at the sources'
    own norms (with the heads of the sources in turn, where a task is answered by one), whose spread is kept beside it: `draws` of them for each bank, or as many as `random_draws` says. Raises UserError for a source that does not run on this backbone, or
    sources of different layout. `keep` is given the score of every source on every target, with its answers.
    """
    used = common_encoding(backbone, sources, encoding, other_layout=other_layout)
    groups = _with_noise(backbone, sources, torch.Generator().manual_seed(seed), draws)
    drawn = sum(noise for _, _, noise in groups)
    references = reference_rows(sources)
    columns: list[list[float]] = []
    spread: list[list[float]] = []
    second: list[list[float]] = []
    metrics, counts, unanswered, written = [], [], {}, {}
    cells: dict[str, dict[str, str]] = {}
    chosen = calibration or Calibration(TRAIN_MEAN, seed=seed)
    for target in targets:
        if advance is not None:
            advance(target.task.name)
        metrics.append(target.task.metric)
        counts.append(len(target.splits.test))
        try:
            backbone.check_task(target.task)
        except UserError as error:
            unanswered[target.task.name] = str(error)
            columns.append([float("nan")] * (len(sources) + len(references)))
            second.append(columns[-1])
            spread.append([float("nan")] * 2)
            continue
        scores: list[Any] = [None] * (len(sources) + drawn)
        calibrated: list[Any] = list(scores)
        bare: tuple[Score | None, Score | None] | None = None
        behind = len(sources)
        for group, bank, noise in groups:
            if reason := impossible(group.adaptations[0], target.task):
                for each in group.adaptations:
                    cells.setdefault(each.name, {})[target.task.name] = reason
                behind += noise
                continue
            encoded = encode_task(backbone, target.task, target.splits.test, used, reserved=group.reserved)
            inputs = encode_inputs(backbone, chosen, encoded, target.splits)
            bare = bare or bare_calibrated(backbone, encoded, inputs)
            raw, less = evaluate_both(
                backbone, bank, encoded, inputs if calibration else None, keep=keep is not None
            )
            places = [*group.places, *range(behind, behind + noise)]
            behind += noise
            for index, place in enumerate(places):
                scores[place] = raw[index]
                calibrated[place] = less[index] if less else None
                if keep is not None and place < len(sources):
                    keep(sources[place], target, raw[index])
        bare = bare or _bare(backbone, target, used, chosen)
        least = chance(target.task, target.splits.test)
        columns.append(_column(scores, bare, least, len(sources)))
        spread.append([_spread(found, len(sources)) for found in (scores, calibrated)])
        second.append(_column(calibrated, bare, least, len(sources)))
        if not target.task.has_words:
            written[target.task.name] = NO_WORDS
    matrix = TransferMatrix(
        sources=(*(p.name for p in sources), *references),
        source_tasks=(*(p.task for p in sources), *references),
        targets=tuple(target.task.name for target in targets),
        values=torch.tensor(columns, dtype=torch.float64).T.contiguous(),
        metrics=tuple(metrics),
        rows=tuple(counts),
        impossible=unanswered,
        impossible_cells=cells,
        methods=tuple(str(source.method) for source in sources),
        random_spread=tuple(each for each, _ in spread),
        random_draws=drawn,
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
            impossible={**unanswered, **written},
        ),
    )


def _with_noise(
    backbone: Backbone, sources: Sequence[Adaptation], generator: torch.Generator, draws: int | None
) -> list[tuple[Group, Bank, int]]:
    """The sources in banks, random ones at their own norms behind them, and how many those are."""
    found = []
    for group in groups_of(sources):
        method = group.adaptations[0].method
        tensors = [each.tensors for each in group.adaptations]
        noise = method.random_like(tensors, draws or random_draws(len(tensors)), generator)
        members = [method.restored(each) for each in (*tensors, *noise)]
        heads = heads_of(group.adaptations)
        heads += [heads[index % len(heads)] for index in range(len(noise))]  # a head is trained, not drawn
        with torch.no_grad():
            found.append((group, with_heads(method.bank(backbone, members), heads, backbone), len(noise)))
    return found


def _bare(
    backbone: Backbone, target: Target, encoding: Encoding, calibration: Calibration
) -> tuple[Score | None, Score | None]:
    """The backbone alone on a target that none of the sources can answer."""
    encoded = encode_task(backbone, target.task, target.splits.test, encoding, reserved=0)
    return bare_calibrated(backbone, encoded, encode_inputs(backbone, calibration, encoded, target.splits))


def _column(
    scores: Sequence[Score | None], bare: tuple[Score | None, Score | None], least: float, sources: int
) -> list[float]:
    """The cells of one target in the order of the matrix's rows; NaN where nothing was scored."""
    missing = float("nan")
    raw, calibrated = (missing if score is None else score.value for score in bare)
    noise = [score.value for score in scores[sources:] if score is not None]
    return [
        *(missing if score is None else score.value for score in scores[:sources]),
        raw,
        calibrated,
        sum(noise) / len(noise) if noise else missing,
        least,
    ]


def _spread(scores: Sequence[Score | None], sources: int) -> float:
    """The standard deviation of the random ones behind the sources; NaN where fewer than two were scored."""
    noise = [score.value for score in scores[sources:] if score is not None]
    return stdev(noise) if len(noise) > 1 else float("nan")
