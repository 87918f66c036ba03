"""The whole experiment: from two backbones and tasks to a fitted projector that has been judged by its controls.

Prompts are read, or trained where none are given; the projector is fitted once a seed; a constant prompt is tuned
with the same budget; everything is scored on the target's test rows. `run_experiment` is `project fit` in Python.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from projectors.anchors import AnchorSearch
from projectors.architectures import size
from projectors.controls import mean_prompt, tune_constant
from projectors.gathering import (
    Gathered,
    Options,
    Tell,
    answers_of,
    gather,
    material_of,
    needs_words,
    rows_of,
)
from projectors.lessons import check_answers, words_between
from projectors.methods import LABEL_FREE, FitPlan, Material, find_method
from projectors.projector import Projector, Side
from projectors.report import Bench, ConditionScore, Draw, Judgement, judge, measure
from prompttransfer.adaptations.bank import VectorBank
from prompttransfer.backbones.base import Backbone
from prompttransfer.backbones.layouts import Encoding
from prompttransfer.evaluation.encoding import EncodedTask, encode_task
from prompttransfer.evaluation.evaluate import evaluate_bank
from tasks.loading import Splits
from tasks.task import Example, Task

WATCHED_ROWS = 100
"""Validation rows that a candidate of the anchors' search is scored on."""


@dataclass(frozen=True)
class FitResult:
    """The fits of all seeds, what was measured, and what it says."""

    projectors: tuple[Projector, ...]
    cells: tuple[ConditionScore, ...]
    judgement: Judgement

    @property
    def projector(self) -> Projector:
        """The fit of the first seed, with the table of all seeds."""
        measured = self.judgement.sensitivity
        return replace(
            self.projectors[0],
            scores=self.judgement.scores(),
            sensitivity={
                "inputs": measured.inputs,
                "outputs": measured.outputs,
                "ratio": measured.ratio,
                "relative": measured.relative,
                "cosine": measured.cosine,
                **self.worth,
            },
            collapsed=self.judgement.collapsed,
            verdict=self.judgement.verdict,
        )

    @property
    def worth(self) -> dict[str, float]:
        """What the input is worth: projected minus random source with its interval, and the share that is kept."""
        gains = self.judgement.gains
        if gains is None:
            return {}
        low, high = gains.interval or (None, None)
        found = {
            "projected_minus_random": gains.over_random,
            "projected_minus_random_low": low,
            "projected_minus_random_high": high,
            "kept_by_random": gains.kept,
        }
        return {name: value for name, value in found.items() if value is not None}

    def to_csv(self) -> str:
        """One line a cell."""
        stream = io.StringIO()
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(["task", "group", "condition", "seed", "value", "draw"])
        writer.writerows([c.task, c.group, c.condition, c.seed, f"{c.value:.6f}", c.draw] for c in self.cells)
        return stream.getvalue()


def run_experiment(
    source: Backbone,
    target: Backbone,
    fitting: Sequence[Task],
    unseen: Sequence[Task],
    options: Options,
    *,
    tell: Tell = lambda line: None,
) -> FitResult:
    """Fit a projector from `source` to `target` on the `fitting` tasks and judge it on these and the `unseen` ones.

    Without `unseen` tasks every other task that has source prompts and fits the target is one. Raises UserError for
    a fitting task without prompts, a vocabulary without shared words, a fit that diverges.
    """
    names = [task.name for task in fitting]
    words = (
        words_between(source, target) if needs_words(options) else None
    )  # if there are none, say so at once
    if options.plan.task.distil:
        for task in fitting:
            check_answers(task)
    prompts = gather(source, target, fitting, unseen, options, tell)
    splits = {name: rows_of(task, options) for name, task in prompts.tasks.items()}
    answers = None
    if options.plan.task.distil:
        tell("reading what the source answers to the rows of the fitting tasks")
        answers = answers_of(source, names, prompts, splits, options)
    material = material_of(target, names, prompts, splits, options, words, answers)
    tell(f"{options.method}, {options.plan.architecture.name}, {material.shape}, {len(material.pairs)} pairs")
    projectors = fit_seeds(material, names, prompts, options, tell)
    tell("tuning a constant prompt with the budget of task-tuning")
    constants = [tuned_constant(material, seeded(options.plan, seed)) for seed in options.seeds]
    bench = bench_of(target, prompts, splits, names, options)
    picked = validated(bench, projectors, splits, options) if options.method == "anchors" else None
    cells = measure(
        bench,
        projectors,
        material.pairs,
        constants,
        picked=picked,
        advance=lambda name: tell(f"scoring {name}"),
    )
    for leftover in options.work.glob(".fit-*.safetensors"):
        leftover.unlink()
    return FitResult(
        tuple(projectors), tuple(cells), judge(cells, projectors[0], prompts.source, prompts.target)
    )


def fit_seeds(
    material: Material, names: Sequence[str], prompts: Gathered, options: Options, tell: Tell
) -> list[Projector]:
    """One projector a seed."""
    method = find_method(options.method)
    label_free = options.method in LABEL_FREE
    if not label_free:
        tell(str(size(options.plan.architecture, material.shape)))
    projectors = []
    for seed in options.seeds:
        plan = seeded(replace(options.plan, checkpoints=options.work, report=teller(tell)), seed)
        made = method(material, plan)
        projectors.append(
            Projector(
                made.module.eval(),
                prompts.source_side,
                prompts.target_side,
                options.method,
                made.architecture,
                made.settings,
                () if label_free else tuple(names),
                seed,
                made.curve,
            )
        )
    return projectors


def seeded(plan: FitPlan, seed: int) -> FitPlan:
    """The plan with this seed in both phases."""
    return replace(plan, distance=replace(plan.distance, seed=seed), task=replace(plan.task, seed=seed))


def teller(tell: Tell, every: int = 100) -> Callable[[str, int, float], None]:
    """Report the loss every `every` steps."""

    def report(phase: str, step: int, loss: float) -> None:
        if step % every == 0:
            tell(f"{phase}: step {step}, loss {loss:.4f}")

    return report


def tuned_constant(material: Material, plan: FitPlan) -> Tensor:
    """The constant control [L_t, d_t]: from the mean target prompt, tuned on the same lessons for as many steps."""
    size = float(torch.stack([pair.target for pair in material.pairs]).square().mean().sqrt())
    return tune_constant(material.shape, mean_prompt(material.pairs), size, material.lessons, plan.task)


def bench_of(
    target: Backbone,
    prompts: Gathered,
    splits: Mapping[str, Splits],
    fitting: Sequence[str],
    options: Options,
) -> Bench:
    """The test rows of every task, encoded for the target."""
    side = prompts.target_side
    encoded = {
        name: encoded_for(target, task, splits[name].test, side, options)
        for name, task in prompts.tasks.items()
    }
    return Bench(target, encoded, tuple(fitting), prompts.source, prompts.target)


def encoded_for(
    target: Backbone, task: Task, examples: Sequence[Example], side: Side, options: Options
) -> EncodedTask:
    """Rows of one task for prompts of `side`."""
    encoding = Encoding(side.layout, options.max_length)
    return encode_task(target, task, examples, encoding, reserved=side.length)


def validated(
    bench: Bench, projectors: Sequence[Projector], splits: Mapping[str, Splits], options: Options
) -> dict[str, list[Draw]]:
    """Task -> the prompts of the anchors' search at the step that does best on the target's validation rows.

    This sees labels of the target, unlike the last step, and is shown in a row of its own.
    """
    picked: dict[str, list[Draw]] = {name: [] for name in bench.source}
    for projector in projectors:
        assert isinstance(projector.module, AnchorSearch)
        for name, prompts in bench.source.items():
            rows = splits[name].validation[:WATCHED_ROWS]
            encoded = encoded_for(bench.backbone, bench.tasks[name].task, rows, projector.target, options)

            def watch(candidates: Tensor, encoded: EncodedTask = encoded) -> list[float]:
                return [
                    score.value for score in evaluate_bank(bench.backbone, VectorBank(candidates), encoded)
                ]

            found = projector.module.search(torch.stack([prompt.vectors for prompt in prompts]), watch)
            assert found.picked is not None
            picked[name] += [Draw(projector.seed, vectors) for vectors in found.picked]
    return picked
