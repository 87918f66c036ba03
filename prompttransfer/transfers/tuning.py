"""Transfer as initialisation (TPT_task, Su et al. 2022, section 5): a source's vectors are where the target's training starts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from prompttransfer.adaptations.adaptation import Adaptation
from prompttransfer.adaptations.running import bank_of, common_encoding, common_method, groups_of
from prompttransfer.adaptations.starts import start_from
from prompttransfer.backbones.base import Backbone
from prompttransfer.backbones.layouts import USUAL, Encoding
from prompttransfer.evaluation.encoding import encode_task
from prompttransfer.evaluation.evaluate import Score, bare_score, evaluate_bank
from prompttransfer.training.curves import CONVERGED, convergence_step, first_step_at
from prompttransfer.training.recipes import Recipe
from prompttransfer.training.train import Job, Trained, TrainingOptions, train_adaptations
from prompttransfer.transfers.tuned_pairs import TunedPair
from prompttransfer.transfers.zero_shot import Target
from tasks.loading import Splits
from tasks.task import Task


@dataclass(frozen=True)
class TunedTransfer:
    """What `tune` returns: one pair a source and target, and the prompts that were trained."""

    pairs: tuple[TunedPair, ...]
    trained: tuple[Trained, ...]


def tune(
    backbone: Backbone,
    prompts: Sequence[Adaptation],
    targets: Sequence[Target],
    recipe: Recipe,
    *,
    seeds: Sequence[int] = (0,),
    encoding: Encoding = USUAL,
    options: TrainingOptions | None = None,
) -> TunedTransfer:
    """Train every target from every source and once from scratch, for every seed, all in one bank.

    The scratch run of a target and seed has the same rows, steps and recipe as the runs beside it.
    """
    encoding = common_encoding(backbone, prompts, encoding)
    groups = [(target, seed) for target in targets for seed in seeds]
    for target in targets:
        backbone.check_task(target.task)
    jobs = [job for target, seed in groups for job in _tuning_jobs(prompts, target, seed)]
    trained = train_adaptations(
        backbone,
        jobs,
        recipe,
        encoding,
        method=common_method(prompts),
        options=options,
    )
    pairs, finished = [], []
    stride = len(prompts) + 1
    for index, (target, seed) in enumerate(groups):
        group = trained[index * stride : (index + 1) * stride]
        group = with_test_score(backbone, group, target, encoding)
        finished += group
        pairs += [
            tuned_pair(
                source.name,
                target.task.metric,
                seed,
                group[0].adaptation,
                run.adaptation,
                recipe.evaluate_every,
            )
            for source, run in zip(prompts, group[1:], strict=True)
        ]
    return TunedTransfer(tuple(pairs), tuple(finished))


def _tuning_jobs(prompts: Sequence[Adaptation], target: Target, seed: int) -> list[Job]:
    """The scratch run of a target first, then one run a source."""
    task = target.task
    scratch = Job(task, target.rows(seed), seed, name=f"{task.name}-scratch-s{seed}")
    return [
        scratch,
        *(
            Job(
                task,
                target.rows(seed),
                seed,
                start_from(source),
                name=f"{run_name(source.name, task.name)}-s{seed}",
            )
            for source in prompts
        ),
    ]


def run_name(source: str, target: str) -> str:
    """The name of a run from a source, which is a folder's: what tells two sources of one name apart has no @ there."""
    return f"{source.replace('@', '+')}-to-{target}"


def with_test_score(
    backbone: Backbone,
    trained: Sequence[Trained],
    target: Target,
    encoding: Encoding,
) -> list[Trained]:
    """The same prompts of one task with their score on its test split written into them.

    Beside each score stand the number of rows, chance, the share of texts cut, and the backbone without a prompt.
    """
    bare: Score | None = None
    tested = list(trained)
    for group in groups_of([run.adaptation for run in trained]):
        encoded = encode_task(backbone, target.task, target.splits.test, encoding, reserved=group.reserved)
        scores = evaluate_bank(backbone, bank_of(backbone, group.adaptations), encoded)
        bare = bare or bare_score(backbone, encoded)
        for place, score in zip(group.places, scores, strict=True):
            run = trained[place]
            beside = {
                "rows": score.rows,
                "chance": score.chance,
                "no_prompt": bare.value if bare else None,
                "cut": score.cut,
            }
            known = {**run.adaptation.scores, "test": {**score.values, **beside}}
            tested[place] = replace(run, adaptation=replace(run.adaptation, scores=known))
    return tested


def with_mixture_scores(
    backbone: Backbone, run: Trained, parts: Sequence[tuple[Task, Splits]], encoding: Encoding
) -> Trained:
    """A prompt that was trained on several tasks, with the mean of its test scores and the score on each."""
    found = []
    for task, splits in parts:
        (own,) = with_test_score(backbone, [run], Target(task, splits), encoding)
        found.append(own.adaptation.scores["test"])
    metrics = {task.metric for task, _ in parts}
    values = {task.name: scores[task.metric] for (task, _), scores in zip(parts, found, strict=True)}
    test = {
        metrics.pop() if len(metrics) == 1 else "mean": sum(values.values()) / len(values),
        "rows": sum(scores["rows"] for scores in found),
        **{key: _mean([scores[key] for scores in found]) for key in ("chance", "no_prompt", "cut")},
        "tasks": values,
    }
    return replace(run, adaptation=replace(run.adaptation, scores={**run.adaptation.scores, "test": test}))


def _mean(values: Sequence[float | None]) -> float | None:
    """Of values that are there; None where one is not."""
    there = [value for value in values if value is not None]
    return sum(there) / len(there) if len(there) == len(values) else None


def tuned_pair(
    source: str, metric: str, seed: int, scratch: Adaptation, tuned: Adaptation, evaluate_every: int
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
