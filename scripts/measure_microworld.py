"""Measure the embedded backbones against what they must reach: `python scripts/measure_microworld.py microworld-roberta`.

One idea: every figure comes from the project's own training, evaluation and transfer with the default recipe, on the
test split, as the mean of several seeds, with the rows that it must be read beside: the majority class, no prompt,
a random prompt at matched norm, and full fine-tuning of a copy of the backbone.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean

import torch

from prompttransfer.adaptations.bank import VectorBank
from prompttransfer.backbones.base import Backbone
from prompttransfer.backbones.interventions import Vectors
from prompttransfer.backbones.loading import load_backbone
from prompttransfer.evaluation.encoding import encode_task
from prompttransfer.evaluation.evaluate import evaluate_bank
from prompttransfer.training.recipes import recipe_for
from prompttransfer.training.train import Job, train_adaptations
from prompttransfer.transfers.matrix import NO_PROMPT, RANDOM_PROMPT
from prompttransfer.transfers.zero_shot import Target, zero_shot
from tasks.catalog import find_task
from tasks.loading import Splits, load_splits
from tasks.metrics import score
from tasks.microworld import WORLD_TASKS
from tasks.task import Task

WANTED = {
    "microworld-roberta": {"sentiment": 0.95, "nli": 0.85, "ethics": 0.85, "paraphrase": 0.80},
    "microworld-roberta-wide": {"sentiment": 0.95, "nli": 0.85, "ethics": 0.85, "paraphrase": 0.80},
    "microworld-t5": {"sentiment": 0.90, "nli": 0.80},
}
"""Backbone -> type -> least mean accuracy of its tuned prompts."""
BEFORE_PROMPT, BELOW_FULL = 0.15, 0.05
SAME_TYPE, DIFFERENT_TYPE, RANDOM = 0.90, 0.75, 0.70
EXACT_MATCH = 0.80
FULL_STEPS, FULL_LR, FULL_BATCH = 300, 5e-4, 32


@dataclass(frozen=True)
class Measured:
    """One task on one backbone: means over seeds, in the task's metric (exact match for questions)."""

    task: str
    type: str
    majority: float
    bare: float
    random: float
    tuned: float
    full: float | None
    spread: float
    """Largest minus smallest tuned score."""


def fine_tune(name: str, task: Task, splits: Splits, seed: int) -> float:
    """Test score after all weights of a float32 copy of the backbone were trained on the task, without a prompt."""
    backbone = load_backbone(name, precision="fp32", engine="plain")
    encoded = encode_task(backbone, task, splits.train, reserved=0)
    backbone.model.requires_grad_(True)
    optimiser = torch.optim.AdamW(backbone.model.parameters(), lr=FULL_LR, weight_decay=0.01)
    rng = random.Random(f"fine-tune|{task.name}|{seed}")
    none = torch.zeros(FULL_BATCH, 0, backbone.width)
    for _ in range(FULL_STEPS):
        batch = backbone.batch(rng.sample(encoded.rows, FULL_BATCH), layout=encoded.layout)
        backbone.loss(Vectors(none), batch).mean().backward()
        optimiser.step()
        optimiser.zero_grad()
    backbone.model.requires_grad_(False)
    test = encode_task(backbone, task, splits.test, reserved=0)
    return headline(task, evaluate_bank(backbone, VectorBank(none[:1]), test)[0].values)


def headline(task: Task, values: dict[str, float]) -> float:
    """The figure a target is set for: exact match for questions, else the task's metric."""
    return values["exact-match"] if task.type == "qa" else values[task.metric]


def first_sentence(task: Task, splits: Splits) -> float:
    """The score of copying the first sentence of the document."""
    copied = [row.first.split(" . ")[0] for row in splits.test]
    return score(task.metric, copied, splits.test)[task.metric]


def measure(
    backbone: Backbone, tasks: Sequence[Task], splits: Mapping[str, Splits], seeds: int, steps: int | None
) -> tuple[list[Measured], dict[str, float]]:
    """Every task's row, and the summary of the zero-shot matrix relative to the targets' own prompts."""
    recipe = recipe_for(backbone, steps=steps)
    print(f"{backbone.name}: {recipe}", flush=True)
    tuned: dict[str, list[float]] = {task.name: [] for task in tasks}
    noise: dict[str, list[float]] = {task.name: [] for task in tasks}
    bare: dict[str, float] = {}
    majority: dict[str, float] = {}
    summaries = []
    for seed in range(seeds):
        started = time.time()
        jobs = [Job(task, splits[task.name], seed=seed) for task in tasks]
        prompts = [trained.adaptation for trained in train_adaptations(backbone, jobs, recipe)]
        for task, prompt in zip(tasks, prompts, strict=True):
            test = encode_task(backbone, task, splits[task.name].test, reserved=recipe.length)
            own = evaluate_bank(backbone, VectorBank(prompt.vectors[None]), test)[0]
            tuned[task.name].append(headline(task, own.values))
            majority[task.name] = own.chance
        matrix = zero_shot(backbone, prompts, [Target(task, splits[task.name]) for task in tasks], seed=seed)
        summaries.append(matrix.relative().summary({task.name: task.type for task in tasks}))
        for column, task in enumerate(tasks):
            bare[task.name] = float(matrix.values[matrix.sources.index(NO_PROMPT), column])
            noise[task.name].append(float(matrix.values[matrix.sources.index(RANDOM_PROMPT), column]))
        print(f"  seed {seed}: {time.time() - started:.0f} s", flush=True)
    rows = [
        Measured(
            task.name,
            task.type,
            majority[task.name],
            bare[task.name],
            fmean(noise[task.name]),
            fmean(tuned[task.name]),
            None,
            max(tuned[task.name]) - min(tuned[task.name]),
        )
        for task in tasks
    ]
    return rows, {key: fmean(s[key] for s in summaries) for key in summaries[0]}


def with_full(
    name: str, rows: Sequence[Measured], splits: Mapping[str, Splits], seeds: int
) -> list[Measured]:
    """The rows with the mean score of full fine-tuning, which takes longer than all the rest."""
    done = []
    for row in rows:
        task, own = find_task(row.task), splits[row.task]
        done.append(replace(row, full=fmean(fine_tune(name, task, own, seed) for seed in range(seeds))))
    return done


def report(
    name: str, rows: Sequence[Measured], splits: Mapping[str, Splits], summary: dict[str, float]
) -> None:
    """Print the table, then each target beside what was reached."""
    print(f"\n{'task':28s} majority  no prompt  random  tuned (spread)  full")
    for row in rows:
        full = "   -" if row.full is None else f"{row.full:.3f}"
        print(
            f"{row.task:28s} {row.majority:8.3f} {row.bare:10.3f} {row.random:7.3f} {row.tuned:6.3f} ({row.spread:.3f})"
            f"    {full}"
        )
    print("\ntarget                                    wanted   reached")
    for type_, least in WANTED[name].items():
        if of_type := [row.tuned for row in rows if row.type == type_]:
            _line(f"{type_}, tuned", least, fmean(of_type))
    labelled = [row for row in rows if row.type not in ("qa", "summarisation")]
    _line("tuned minus no prompt", BEFORE_PROMPT, fmean(row.tuned - row.bare for row in labelled))
    if labelled[0].full is not None:
        _line(
            "full minus tuned",
            BELOW_FULL,
            fmean((row.full or 0.0) - row.tuned for row in labelled),
            most=True,
        )
    for row in rows:
        if row.task == "microworld-squad":
            _line("questions with context, exact match", EXACT_MATCH, row.tuned)
        if row.type == "summarisation":
            copied = first_sentence(find_task(row.task), splits[row.task])
            _line(f"{row.task} above copying", copied, row.tuned)
    _line("same type, relative", SAME_TYPE, summary["same type"])
    _line("different type, relative", DIFFERENT_TYPE, summary["different type"], most=True)
    _line("random prompt, relative", RANDOM, summary[RANDOM_PROMPT], most=True)


def _line(what: str, wanted: float, reached: float, most: bool = False) -> None:
    if math.isnan(reached):  # no two tasks of that relation
        return
    good = reached <= wanted if most else reached >= wanted
    print(
        f"{what:40s} {'<=' if most else '>='} {wanted:.3f}   {reached:.3f}   {'reached' if good else 'MISSED'}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("backbone", choices=WANTED)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int)
    parser.add_argument("--tasks", nargs="*", help="names without `microworld-`; all by default")
    parser.add_argument("--limit-train", type=int, help="rows to train on; all if not given")
    parser.add_argument("--limit-test", type=int, help="test rows; all if not given")
    parser.add_argument(
        "--full-seeds", type=int, default=3, help="seeds of full fine-tuning; 0 leaves it out"
    )
    parser.add_argument("--json", type=Path, help="also write the figures there")
    given = parser.parse_args()
    backbone = load_backbone(given.backbone)
    names = [f"microworld-{name}" for name in given.tasks] if given.tasks else list(WORLD_TASKS)
    tasks = [find_task(name) for name in names]
    tasks = [task for task in tasks if backbone.generates or not task.generates]
    splits = {
        task.name: load_splits(task, limit_train=given.limit_train, limit_test=given.limit_test)
        for task in tasks
    }
    rows, summary = measure(backbone, tasks, splits, given.seeds, given.steps)
    report(given.backbone, rows, splits, summary)
    if given.full_seeds:
        rows = with_full(given.backbone, rows, splits, given.full_seeds)
        report(given.backbone, rows, splits, summary)
    if given.json:
        record = {"backbone": given.backbone, "rows": [vars(row) for row in rows], "zero-shot": summary}
        given.json.write_text(json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    main()
