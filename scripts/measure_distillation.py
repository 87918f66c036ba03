"""What distillation is worth here: `python scripts/measure_distillation.py panda` or `... mpt`.

panda   sources of some types on targets of others with few labelled rows: from scratch, from the source (TPT_task), and from
        scratch with the second as teacher, by several weights of the teacher; every pair and seed, then means.
mpt     prompts of their own, a shared prompt with a part for each task, and the same with the first as teachers, at equal steps;
        then tasks that none of them saw, with few rows, from the mean of the parts and from scratch.

All of it on the embedded world; a table and its numbers as CSV (`--output`).
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pandas as pd

from prompttransfer.adaptations.adaptation import Adaptation
from prompttransfer.adaptations.method import Method
from prompttransfer.adaptations.methods import parse_method
from prompttransfer.adaptations.starts import RANDOM, Start, mixture_of
from prompttransfer.backbones.base import Backbone
from prompttransfer.backbones.loading import load_backbone
from prompttransfer.training.distillation import Distance, Teacher
from prompttransfer.training.recipes import recipe_for
from prompttransfer.training.train import Job, Trained, train_adaptations
from prompttransfer.transfers.distilled import Distilling, distil
from prompttransfer.transfers.tuning import tune, with_test_score
from prompttransfer.transfers.zero_shot import Target
from tasks.catalog import find_task
from tasks.loading import load_seeded

SOURCES = {"panda": ("imdb", "mnli", "deontology", "qqp"), "mpt": ("sst2", "mnli", "deontology", "qqp")}
TARGETS = {"panda": ("restaurant", "snli", "justice", "mrpc"), "mpt": ("restaurant", "snli")}
WEIGHTS: tuple[float | None, ...] = (None, 0.01, 0.1, 1.0)
"""Of PANDA's teachers; None for a tenth of the similarity."""


def targets_of(names: Sequence[str], seeds: Sequence[int], rows: int | None, test: int) -> list[Target]:
    """Tasks of the embedded world with their rows of each seed."""
    found = []
    for name in names:
        task = find_task(f"microworld-{name}")
        own = load_seeded(task, list(seeds), limit_train=rows, limit_test=test)
        found.append(Target(task, own[seeds[0]], own))
    return found


def trained(
    backbone: Backbone,
    targets: Sequence[Target],
    seeds: Sequence[int],
    steps: int,
    *,
    method: Method | None = None,
    starts: Mapping[int, Start] | None = None,
    teachers: Mapping[str, Teacher] | None = None,
) -> list[Trained]:
    """One adaptation a task and seed, all in one bank, with its test score."""
    recipe = recipe_for(backbone, method, steps=steps, evaluate_every=max(5, steps // 10))
    jobs = [
        Job(
            target.task,
            target.rows(seed),
            seed,
            (starts or {}).get(seed, RANDOM),
            f"{target.task.name}-s{seed}",
            teacher=(teachers or {}).get(f"{target.task.name}-s{seed}"),
        )
        for target in targets
        for seed in seeds
    ]
    runs = train_adaptations(
        backbone, jobs, recipe, method=method or parse_method("prompt", length=recipe.length)
    )
    tested: list[Trained] = []
    for number, target in enumerate(targets):
        own = runs[number * len(seeds) : (number + 1) * len(seeds)]
        tested += with_test_score(backbone, own, target, own[0].adaptation.encoding)
    return tested


def panda(backbone: Backbone, args: argparse.Namespace) -> pd.DataFrame:
    """Every pair of different types, seed and weight."""
    first = targets_of(args.sources, [0], None, args.test)
    sources = [run.adaptation for run in trained(backbone, first, [0], args.source_steps)]
    types = {f"{target.task.name}-s0": target.task.type for target in first}
    aims = targets_of(args.targets, args.seeds, args.rows, args.test)
    recipe = recipe_for(backbone, steps=args.steps, evaluate_every=max(1, args.steps // 10))
    tuned = tune(backbone, sources, aims, recipe, seeds=args.seeds)
    found = []
    for weight in WEIGHTS:
        pairs = distil(backbone, sources, aims, recipe, tuned, Distilling(weight), seeds=args.seeds).pairs
        found += [
            {"by": "similarity" if weight is None else f"{weight:g}", **pair.as_dict()} for pair in pairs
        ]
    kinds = {target.task.name: target.task.type for target in aims}
    table = pd.DataFrame(found)
    table["same_type"] = table["source"].map(types) == table["target"].map(kinds)
    keys = ["same_type", "by"]
    means = table.groupby(keys)[["similarity", "weight", "scratch", "transferred", "distilled"]].mean()
    gains = table.assign(
        over_transferred=table["distilled"] - table["transferred"],
        over_scratch=table["distilled"] - table["scratch"],
    )
    # A seed is one draw of rows and starts: the spread is of means over pairs.
    by_seed = gains.groupby([*keys, "seed"])[["over_transferred", "over_scratch"]].mean()
    spread = by_seed.groupby(level=keys).std().add_suffix("_sd")
    print(means.join(by_seed.groupby(level=keys).mean()).join(spread).round(4).to_string())
    return table


def mpt(backbone: Backbone, args: argparse.Namespace) -> pd.DataFrame:
    """Every way, task and seed."""
    group = targets_of(args.sources, args.seeds, None, args.test)
    plain = trained(backbone, group, args.seeds, args.steps)
    own = {run.adaptation.name: run.adaptation for run in plain}
    teachers = {name: Teacher(each, 0.9, Distance("both")) for name, each in own.items()}
    shared = parse_method("mpt", length=plain[0].adaptation.length)
    ways = {
        "prompts of their own": plain,
        "mpt": trained(backbone, group, args.seeds, args.steps, method=shared),
        "mpt, teachers": trained(backbone, group, args.seeds, args.steps, method=shared, teachers=teachers),
    }
    found = [_row(way, run) for way, runs in ways.items() for run in runs]
    few = targets_of(args.targets, args.seeds, args.rows, args.test)
    for way, runs in {"scratch": None, **ways}.items():
        starts = None if runs is None else {seed: _mean_of(runs, seed) for seed in args.seeds}
        after = trained(backbone, few, args.seeds, args.target_steps, starts=starts)
        found += [_row(f"then from {way}", run) for run in after]
    table = pd.DataFrame(found)
    wide = table.pivot_table(index="way", columns="task", values="test", sort=False)
    wide["mean"] = table.groupby("way")["test"].mean()
    seeds = table.groupby(["way", "seed"])["test"].mean().groupby(level="way")
    wide["sd of seeds"] = seeds.std()
    print(wide.round(4).to_string())
    return table


def _mean_of(runs: Sequence[Trained], seed: int) -> Start:
    """The equal mixture of the adaptations of one seed, which of MPT's is P * mean(u v)."""
    own: list[Adaptation] = [
        replace(run.adaptation, encoder={}) for run in runs if run.adaptation.seed == seed
    ]
    return mixture_of(own, [1 / len(own)] * len(own))


def _row(way: str, run: Trained) -> dict[str, object]:
    own = run.adaptation
    metric = next(iter(own.scores["validation"]))
    return {
        "way": way,
        "task": own.task,
        "seed": own.seed,
        "steps": run.steps,
        "test": own.scores["test"][metric],
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=["panda", "mpt"])
    parser.add_argument("--backbone", default="microworld-roberta")
    parser.add_argument("--precision", default="fp32")
    parser.add_argument("--sources", nargs="+", help="tasks with all their rows, without microworld-")
    parser.add_argument("--targets", nargs="+", help="tasks with few labelled rows")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--rows", type=int, default=64, help="labelled training rows of a target")
    parser.add_argument("--test", type=int, default=200, help="test rows")
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--source-steps", type=int, default=150)
    parser.add_argument("--target-steps", type=int, default=30)
    parser.add_argument("--output", type=Path)
    args = parser.parse_args()
    args.sources, args.targets = args.sources or SOURCES[args.what], args.targets or TARGETS[args.what]
    backbone = load_backbone(args.backbone, precision=args.precision)
    table = {"panda": panda, "mpt": mpt}[args.what](backbone, args)
    if args.output is not None:
        table.to_csv(args.output, index=False)


if __name__ == "__main__":
    main()
