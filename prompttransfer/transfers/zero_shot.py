"""Transfer: adaptations of source tasks used on target tasks, unchanged (zero-shot) or as initialisation.

Zero-shot runs the target's rows with the source's adaptation and reads the target's label words; nothing is
trained (Su et al. 2022, section 4). As initialisation (TPT_task, section 5) the source's vectors are where the
target's training starts, with the target's own run from scratch beside it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import stdev

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

NAN = float("nan")


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
    own norms (with the heads of the sources in turn, where a task is answered by one), whose spread is kept beside it:
    `draws` of them for each bank, or as many as `random_draws` says. `keep` is given the score of every source on every
    target, with its answers. Raises UserError for a source that does not run on this backbone, or sources of different
    layout.
    """
    used = common_encoding(backbone, sources, encoding, other_layout=other_layout)
    groups = _with_noise(backbone, sources, torch.Generator().manual_seed(seed), draws)
    chosen = calibration or Calibration(TRAIN_MEAN, seed=seed)
    columns = []
    for target in targets:
        if advance is not None:
            advance(target.task.name)
        columns.append(
            _on_target(
                backbone, sources, groups, target, used, chosen, twice=calibration is not None, keep=keep
            )
        )
    references = reference_rows(sources)
    names = [target.task.name for target in targets]
    unanswered = {name: one.refused for name, one in zip(names, columns, strict=True) if one.refused}
    cells: dict[str, dict[str, str]] = {}
    for name, one in zip(names, columns, strict=True):
        for source, reason in one.impossible.items():
            cells.setdefault(source, {})[name] = reason
    matrix = TransferMatrix(
        sources=(*(p.name for p in sources), *references),
        source_tasks=(*(p.task for p in sources), *references),
        targets=tuple(names),
        values=_values([one.raw for one in columns]),
        metrics=tuple(target.task.metric for target in targets),
        rows=tuple(len(target.splits.test) for target in targets),
        impossible=unanswered,
        impossible_cells=cells,
        methods=tuple(str(source.method) for source in sources),
        random_spread=tuple(one.spread for one in columns),
        random_draws=sum(noise for _, _, noise in groups),
        calibration=str(chosen),
    )
    if calibration is None:
        return matrix
    written = {
        target.task.name: NO_WORDS
        for target in targets
        if target.task.name not in unanswered and not target.task.has_words
    }
    second = replace(
        matrix,
        values=_values([one.calibrated for one in columns]),
        meaning="calibrated",
        random_spread=tuple(one.calibrated_spread for one in columns),
        impossible={**unanswered, **written},
    )
    return replace(matrix, calibrated=second)


@dataclass(frozen=True)
class _Column:
    """One target: the cells in the order of the matrix's rows, raw and calibrated, and the spread of the random ones."""

    raw: list[float]
    calibrated: list[float]
    spread: float = NAN
    calibrated_spread: float = NAN
    refused: str = ""
    """Why the backbone cannot answer the target at all."""
    impossible: dict[str, str] = field(default_factory=dict)
    """Source -> why it cannot answer the target."""


def _on_target(
    backbone: Backbone,
    sources: Sequence[Adaptation],
    groups: Sequence[tuple[Group, Bank, int]],
    target: Target,
    used: Encoding,
    calibration: Calibration,
    *,
    twice: bool,
    keep: Callable[[Adaptation, Target, Score], None] | None,
) -> _Column:
    """Every source and the random ones on one target; with `twice` the sources are calibrated as well."""
    try:
        backbone.check_task(target.task)
    except UserError as error:
        nothing = [NAN] * (len(sources) + len(reference_rows(sources)))
        return _Column(nothing, nothing, refused=str(error))
    scores: list[Score | None] = [None] * (len(sources) + sum(noise for _, _, noise in groups))
    calibrated = list(scores)
    reasons: dict[str, str] = {}
    bare: tuple[Score | None, Score | None] | None = None
    behind = len(sources)
    for group, bank, noise in groups:
        places = [*group.places, *range(behind, behind + noise)]
        behind += noise
        if reason := impossible(group.adaptations[0], target.task):
            reasons |= {each.name: reason for each in group.adaptations}
            continue
        encoded = encode_task(backbone, target.task, target.splits.test, used, reserved=group.reserved)
        inputs = encode_inputs(backbone, calibration, encoded, target.splits)
        bare = bare or bare_calibrated(backbone, encoded, inputs)
        raw, less = evaluate_both(backbone, bank, encoded, inputs if twice else None, keep=keep is not None)
        for index, place in enumerate(places):
            scores[place] = raw[index]
            calibrated[place] = less[index] if less else None
            if keep is not None and place < len(sources):
                keep(sources[place], target, raw[index])
    bare = bare or _bare(backbone, target, used, calibration)
    least = chance(target.task, target.splits.test)
    return _Column(
        _cells(scores, bare, least, len(sources)),
        _cells(calibrated, bare, least, len(sources)),
        _spread(scores, len(sources)),
        _spread(calibrated, len(sources)),
        impossible=reasons,
    )


def _values(columns: Sequence[Sequence[float]]) -> torch.Tensor:
    """[sources, targets] of a list a target."""
    return torch.tensor(columns, dtype=torch.float64).T.contiguous()


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


def _cells(
    scores: Sequence[Score | None], bare: tuple[Score | None, Score | None], least: float, sources: int
) -> list[float]:
    """The cells of one target in the order of the matrix's rows; NaN where nothing was scored."""
    raw, calibrated = (NAN if score is None else score.value for score in bare)
    noise = [score.value for score in scores[sources:] if score is not None]
    return [
        *(NAN if score is None else score.value for score in scores[:sources]),
        raw,
        calibrated,
        sum(noise) / len(noise) if noise else NAN,
        least,
    ]


def _spread(scores: Sequence[Score | None], sources: int) -> float:
    """The standard deviation of the random ones behind the sources; NaN where fewer than two were scored."""
    noise = [score.value for score in scores[sources:] if score is not None]
    return stdev(noise) if len(noise) > 1 else NAN
