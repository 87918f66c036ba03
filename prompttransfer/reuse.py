"""Transfer: prompts of source tasks used on target tasks, unchanged (zero-shot) or as initialisation.

Zero-shot puts the source's vectors in front of the target's input and reads the target's label words; nothing is
trained (Su et al. 2022, section 4). As initialisation (TPT_task, section 5) the source's vectors are where the
target's training starts, with the target's own run from scratch beside it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import stdev
from typing import Any

import torch

from prompttransfer.backbones.base import Backbone
from prompttransfer.calibration import (
    NO_WORDS,
    TRAIN_MEAN,
    Calibration,
    bare_calibrated,
    encode_inputs,
    evaluate_both,
)
from prompttransfer.evaluation import Score, encode_task, evaluate_bank
from prompttransfer.layouts import find_layout
from prompttransfer.matrix import REFERENCE_ROWS, TransferMatrix
from prompttransfer.prompt import Prompt, bank, check_runs_on
from prompttransfer.random_prompts import random_draws, random_like
from prompttransfer.recipes import Recipe
from prompttransfer.speedups import Range, speed_up
from prompttransfer.training import (
    CONVERGED,
    Job,
    Trained,
    TrainingOptions,
    convergence_step,
    first_step_at,
    train_prompts,
)
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
    max_length: int | None = None,
    aggregation: str | None = None,
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
    layout = common_layout(backbone, prompts, other_layout=other_layout)
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
            length=sources.shape[1],
            layout=find_layout(layout, backbone.family),
            max_length=max_length,
            aggregation=aggregation,
        )
        inputs = encode_inputs(
            backbone, chosen, encoded, target.splits, max_length=max_length, aggregation=aggregation
        )
        bare = bare_calibrated(backbone, encoded, inputs)
        scores, calibrated = evaluate_both(
            backbone, torch.cat([sources, noise]), encoded, inputs if calibration else None
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


def common_layout(backbone: Backbone, prompts: Sequence[Prompt], *, other_layout: bool = False) -> str:
    """The layout that all prompts share; UserError if they differ or one does not run on the backbone."""
    if not prompts:
        raise UserError("no prompt given: name at least one prompt folder")
    names = [prompt.name for prompt in prompts]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise UserError(f"two prompts are called {twice!r}: rename one folder's prompt, or give one of them")
    layout = prompts[0].layout
    for prompt in prompts:
        check_runs_on(
            prompt,
            backbone=backbone.name,
            revision=backbone.revision,
            width=backbone.width,
            family=backbone.family,
            layout=layout,
            other_layout=other_layout,
            other_backbone=backbone.takes_any,
        )
    return layout


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


LEARNED, DID_NOT_LEARN, NOTHING_TO_LEARN = "learned", "did not learn", "scratch learned nothing"
OUTCOMES = (LEARNED, DID_NOT_LEARN, NOTHING_TO_LEARN)
"""A run from a source has learned if its best validation score is at least 99 % of that of the run from scratch."""


@dataclass(frozen=True)
class TunedPair:
    """One source as initialisation for one target, and the target's run from scratch beside it."""

    source: str
    target: str
    seed: int
    step0: float
    """Validation score of the source's vectors before the first step."""
    tuned: float
    """Test score after training from the source."""
    scratch: float
    """Test score after training from the scratch initialiser."""
    chance: float
    """Test score of the majority answer."""
    tuned_steps: int
    """Steps to convergence (99 % of the run's best validation score) from the source."""
    scratch_steps: int
    reach_steps: int | None
    """Steps from the source to 99 % of the scratch run's best validation score; None if never."""
    evaluate_every: int
    tuned_best: float
    """Best validation score from the source."""
    scratch_best: float
    tuned_last: int
    """The last step at which the run from the source was evaluated."""

    @property
    def outcome(self) -> str:
        """What came of the pair: one of OUTCOMES; only runs that learned have a convergence speed-up."""
        if self.scratch_steps == 0:
            return NOTHING_TO_LEARN
        return LEARNED if self.tuned_best >= CONVERGED * self.scratch_best else DID_NOT_LEARN

    @property
    def convergence(self) -> Range | None:
        """What is known of the scratch steps over the tuned steps to convergence (Su et al. 2022, section 5).

        None unless the run learned: one that is flat has its best score at step 0, and has not sped anything up.
        """
        if self.outcome != LEARNED:
            return None
        return self._range(self.tuned_steps)

    @property
    def comparable(self) -> Range | None:
        """What is known of the scratch steps over the steps from the source to the same score; None as `outcome` says.

        A run that never gets there is a range as well: it would have needed more steps than it had.
        """
        return self._range(self.reach_steps)

    def _range(self, steps: int | None) -> Range | None:
        return speed_up(self.scratch_steps, steps, every=self.evaluate_every, last=self.tuned_last)

    @property
    def convergence_speedup(self) -> float | None:
        """Scratch steps over tuned steps to convergence, as they were looked at; one number within `convergence`.

        A tuned run that has converged at step 0 counts as one evaluation interval, so the value is then a lower bound.
        """
        if self.convergence is None:
            return None
        return self.scratch_steps / max(self.tuned_steps, self.evaluate_every)

    @property
    def comparable_speedup(self) -> float | None:
        """Scratch steps over the steps from the source to the same score; None if it was never reached."""
        if self.reach_steps is None or self.comparable is None:
            return None
        return self.scratch_steps / max(self.reach_steps, self.evaluate_every)

    def as_dict(self) -> dict[str, Any]:
        """For CSV and JSON; an end of a range that is infinite is None."""
        return {
            "source": self.source,
            "target": self.target,
            "seed": self.seed,
            "step0_validation": self.step0,
            "test_from_source": self.tuned,
            "test_from_scratch": self.scratch,
            "chance": self.chance,
            "steps_to_converge_from_source": self.tuned_steps,
            "steps_to_converge_from_scratch": self.scratch_steps,
            "steps_to_scratch_score": self.reach_steps,
            "best_validation_from_source": self.tuned_best,
            "best_validation_from_scratch": self.scratch_best,
            "last_step_from_source": self.tuned_last,
            "evaluate_every": self.evaluate_every,
            "outcome": self.outcome,
            **_ends("convergence", self.convergence),
            **_ends("comparable", self.comparable),
            "convergence_speedup": self.convergence_speedup,
            "comparable_speedup": self.comparable_speedup,
        }


def _ends(name: str, found: Range | None) -> dict[str, float | None]:
    low, high = (found.low, found.high) if found else (None, None)
    return {f"{name}_low": low, f"{name}_high": None if high == math.inf else high}


@dataclass(frozen=True)
class TunedTransfer:
    """What `tune` returns: one pair a source and target, and the prompts that were trained."""

    pairs: tuple[TunedPair, ...]
    trained: tuple[Trained, ...]


def tune(
    backbone: Backbone,
    prompts: Sequence[Prompt],
    targets: Sequence[Target],
    recipe: Recipe,
    *,
    seeds: Sequence[int] = (0,),
    scratch_initialiser: str = "random",
    max_length: int | None = None,
    aggregation: str | None = None,
    options: TrainingOptions | None = None,
) -> TunedTransfer:
    """Train every target from every source's vectors and once from scratch, for every seed, all in one bank.

    The scratch run of a target and seed has the same rows, steps and recipe as the runs beside it.
    """
    layout = common_layout(backbone, prompts)
    groups = [(target, seed) for target in targets for seed in seeds]
    for target in targets:
        backbone.check_task(target.task)
    jobs = [
        job for target, seed in groups for job in _tuning_jobs(prompts, target, seed, scratch_initialiser)
    ]
    trained = train_prompts(
        backbone,
        jobs,
        recipe,
        layout=layout,
        max_length=max_length,
        aggregation=aggregation,
        options=options,
    )
    pairs, finished = [], []
    stride = len(prompts) + 1
    for index, (target, seed) in enumerate(groups):
        group = trained[index * stride : (index + 1) * stride]
        group = with_test_score(backbone, group, target, max_length=max_length, aggregation=aggregation)
        finished += group
        pairs += [
            tuned_pair(
                source.name,
                target.task.metric,
                seed,
                group[0].prompt,
                run.prompt,
                recipe.evaluate_every,
            )
            for source, run in zip(prompts, group[1:], strict=True)
        ]
    return TunedTransfer(tuple(pairs), tuple(finished))


def _tuning_jobs(prompts: Sequence[Prompt], target: Target, seed: int, scratch_initialiser: str) -> list[Job]:
    """The scratch run of a target first, then one run a source."""
    task = target.task
    scratch = Job(task, target.rows(seed), seed, scratch_initialiser, name=f"{task.name}-scratch-s{seed}")
    return [
        scratch,
        *(
            Job(
                task,
                target.rows(seed),
                seed,
                f"prompt:{source.name}",
                name=f"{source.name}-to-{task.name}-s{seed}",
                vectors=source.vectors,
            )
            for source in prompts
        ),
    ]


def with_test_score(
    backbone: Backbone,
    trained: Sequence[Trained],
    target: Target,
    *,
    max_length: int | None = None,
    aggregation: str | None = None,
) -> list[Trained]:
    """The same prompts of one task with their score on its test split written into them.

    Beside each score stand the number of rows, chance, the share of texts cut, and the backbone without a prompt.
    """
    layout = find_layout(trained[0].prompt.layout, backbone.family)
    encoded = encode_task(
        backbone,
        target.task,
        target.splits.test,
        length=trained[0].prompt.length,
        layout=layout,
        max_length=max_length,
        aggregation=aggregation,
    )
    scores = evaluate_bank(backbone, bank([run.prompt for run in trained]), encoded)
    bare = evaluate_bank(backbone, torch.zeros(1, 0, backbone.width), encoded)[0].value
    tested = []
    for run, score in zip(trained, scores, strict=True):
        beside = {"rows": score.rows, "chance": score.chance, "no_prompt": bare, "cut": score.cut}
        known = {**run.prompt.scores, "test": {**score.values, **beside}}
        tested.append(replace(run, prompt=replace(run.prompt, scores=known)))
    return tested


def tuned_pair(
    source: str, metric: str, seed: int, scratch: Prompt, tuned: Prompt, evaluate_every: int
) -> TunedPair:
    """A run from a source beside the run from scratch of the same task and seed; both have their test scores."""
    curve, other = scratch.curve, tuned.curve
    best = max(point.score for point in curve)
    return TunedPair(
        source=source,
        target=tuned.task,
        seed=seed,
        step0=other[0].score,
        tuned=tuned.scores["test"][metric],
        scratch=scratch.scores["test"][metric],
        chance=scratch.scores["test"]["chance"],
        tuned_steps=convergence_step(other),
        scratch_steps=convergence_step(curve),
        reach_steps=first_step_at(other, CONVERGED * best),
        evaluate_every=evaluate_every,
        tuned_best=max(point.score for point in other),
        scratch_best=best,
        tuned_last=other[-1].step,
    )
