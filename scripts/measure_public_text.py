"""What carrying by public text (POST) is worth here: a rate chosen on some tasks, then other tasks over seeds, with controls.

    python scripts/measure_public_text.py --rates 0.001 0.01 0.03 --steps 300 --seeds 0 1 2

From microworld-roberta to microworld-roberta-wide. Every rate carries the prompts of CHOSEN_ON once, and that with the best mean test score
there carries those of REPORTED with every seed (start, row order, held-out rows). No label of a reported task is used but for its scores.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from statistics import fmean, stdev

import torch
from benchmark_print import markdown

from projectors.public_report import scores_on, with_random_source
from projectors.public_text import PostSettings, carry_by_text
from prompttransfer.adaptations.adaptation import Adaptation
from prompttransfer.adaptations.random_prompts import random_like
from prompttransfer.backbones.base import Backbone
from prompttransfer.backbones.layouts import USUAL
from prompttransfer.backbones.loading import load_backbone
from prompttransfer.training.recipes import recipe_for
from prompttransfer.training.train import Job, train_adaptations
from tasks.catalog import find_task
from tasks.loading import Splits, load_splits, sample
from tasks.task import Example, Task

CHOSEN_ON = ("laptop", "qnli")
REPORTED = ("imdb", "mnli", "deontology", "qqp")
PUBLIC = ("sst2", "snli", "mrpc", "justice")

Tasks = dict[str, tuple[Task, Splits]]


def main() -> None:
    given = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    given.add_argument("--rates", type=float, nargs="+", default=[0.001, 0.01, 0.03])
    given.add_argument("--steps", type=int, default=300)
    given.add_argument("--batch", type=int, default=16)
    given.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    given.add_argument("--text", type=int, default=200, help="rows of public text")
    given.add_argument("--train", type=int, default=600, help="labelled rows of a prompt")
    given.add_argument("--train-steps", type=int, default=75)
    given.add_argument("--test", type=int, default=100)
    options = given.parse_args()
    source, target = load_backbone("microworld-roberta"), load_backbone("microworld-roberta-wide")
    text = public_text(options.text)

    def carried(tasks: Tasks, rate: float, seed: int, prompts: Sequence[Adaptation]) -> torch.Tensor:
        settings = PostSettings(
            lr=rate, steps=options.steps, batch=options.batch, every=max(1, options.steps // 6), seed=seed
        )
        found = carry_by_text(source, target, with_random_source(prompts, seed), text, settings)
        losses = ", ".join(f"{value:.2f}" for value in found.losses)
        print(f"rate {rate:g}, seed {seed}: steps {found.chosen_steps}, held-out losses {losses}", flush=True)
        return found.chosen

    others = load(CHOSEN_ON, options)
    theirs = trained(source, others, options)
    reached = {}
    for rate in options.rates:
        vectors = carried(others, rate, 0, theirs)
        reached[rate] = fmean(on_tasks(target, others, vectors))
        print(f"rate {rate:g}: mean test score on {', '.join(CHOSEN_ON)} {reached[rate]:.3f}", flush=True)
    best = max(reached, key=lambda rate: reached[rate])
    tasks = load(REPORTED, options)
    prompts, own = trained(source, tasks, options), trained(target, tasks, options)
    found: dict[str, list[list[float]]] = {}
    for seed in options.seeds:
        vectors = carried(tasks, best, seed, prompts)
        noise = random_like([each.vectors for each in own], 4, torch.Generator().manual_seed(seed))
        ways = {
            "carried": vectors[: len(prompts)],
            "random source, carried": vectors[len(prompts) :].expand(len(prompts), -1, -1),
            "random prompt": torch.stack([noise[place % len(noise)] for place in range(len(prompts))]),
        }
        for name, each in ways.items():
            found.setdefault(name, []).append(on_tasks(target, tasks, each))
    found["own prompt"] = [on_tasks(target, tasks, torch.stack([each.vectors for each in own]))]
    print(f"\nrate {best:g}, {options.steps} steps of {options.batch} rows, {len(options.seeds)} seeds")
    rows = []
    for name, seeds in found.items():
        means = [fmean(scores) for scores in seeds]
        spread = f" ± {stdev(means):.3f}" if len(means) > 1 else ""
        columns = [f"{fmean(column):.3f}" for column in zip(*seeds, strict=True)]
        rows.append([name, *columns, f"{fmean(means):.3f}{spread}"])
    markdown(["condition", *REPORTED, "mean"], rows)


def load(names: Sequence[str], options: argparse.Namespace) -> Tasks:
    """Name -> the task with its rows."""
    found = {name: find_task(f"microworld-{name}") for name in names}
    return {
        name: (task, load_splits(task, limit_train=options.train, limit_test=options.test))
        for name, task in found.items()
    }


def public_text(rows: int) -> list[Example]:
    """Rows of the public tasks, without their labels."""
    each = max(1, rows // len(PUBLIC))
    return [
        replace(row, label=None, references=())
        for name in PUBLIC
        for row in sample(load_splits(find_task(f"microworld-{name}")).train, 0, each)
    ]


def trained(backbone: Backbone, tasks: Tasks, options: argparse.Namespace) -> list[Adaptation]:
    """A prompt of each task."""
    recipe = recipe_for(
        backbone, None, steps=options.train_steps, evaluate_every=max(1, options.train_steps // 3)
    )
    jobs = [Job(task, splits, name=name) for name, (task, splits) in tasks.items()]
    return [run.adaptation for run in train_adaptations(backbone, jobs, recipe)]


def on_tasks(backbone: Backbone, tasks: Tasks, vectors: torch.Tensor) -> list[float]:
    """The test score of each task with the prompt at its place."""
    return [
        scores_on(backbone, each[None], task, splits.test, USUAL)[0]
        for (task, splits), each in zip(tasks.values(), vectors, strict=False)
    ]


if __name__ == "__main__":
    main()
