"""Find a learning rate for each method: every rate of a grid on every task and seed, all runs of a method in one bank.

    python scripts/search_rates.py --methods lora prefix houlsby --tasks microworld-imdb microworld-snli --seeds 0 1

Only validation rows are looked at. The rate that is best on average is what training/recipes.py holds for the size of
the backbone; a rate at the edge of the grid is said, since a better one may lie beyond it.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

from prompttransfer.adaptations.method import Method
from prompttransfer.backbones.base import Backbone
from prompttransfer.backbones.loading import load_backbone
from prompttransfer.training.recipes import Recipe, method_and_recipe
from prompttransfer.training.train import Job, train_adaptations
from tasks.catalog import find_task
from tasks.loading import load_splits
from tasks.task import Task

RATES = (3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1)
TASKS = ("microworld-imdb", "microworld-restaurant", "microworld-snli", "microworld-mnli", "microworld-qqp", "microworld-justice")  # fmt: skip


def search(
    backbone: Backbone,
    method: Method,
    recipe: Recipe,
    tasks: Sequence[Task],
    rates: Sequence[float],
    seeds: Sequence[int],
    limit: int | None,
    data: Path | None,
) -> dict[float, list[float]]:
    """Rate -> the best validation score of each task and seed."""
    runs = [(rate, task, seed) for rate in rates for task in tasks for seed in seeds]
    splits = {(task.name, seed): load_splits(task, seed=seed, limit_train=limit, data=data) for task in tasks for seed in seeds}  # fmt: skip
    jobs = [
        Job(task, splits[task.name, seed], seed, name=f"{task.name}-{rate:g}-s{seed}", lr=rate)
        for rate, task, seed in runs
    ]
    found: dict[float, list[float]] = {rate: [] for rate in rates}
    for (rate, _, _), run in zip(runs, train_adaptations(backbone, jobs, recipe, method=method), strict=True):
        found[rate].append(max(point.score for point in run.adaptation.curve))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--methods", nargs="+", default=["prompt", "lora"])
    parser.add_argument("--backbone", default="microworld-roberta")
    parser.add_argument("--tasks", nargs="+", default=list(TASKS))
    parser.add_argument("--rates", nargs="+", type=float, default=list(RATES))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--steps", type=int)
    parser.add_argument("--limit-train", type=int)
    parser.add_argument(
        "--data", type=Path, help="folder with rows, for tasks that are not of the embedded world"
    )
    options = parser.parse_args()
    backbone = load_backbone(options.backbone)
    tasks = [find_task(name) for name in options.tasks]
    print(
        f"{backbone.name}, {backbone.dtype}, {len(tasks)} tasks, seeds {options.seeds}: mean best validation score"
    )
    print("| method | " + " | ".join(f"{rate:g}" for rate in options.rates) + " | best | seconds |")
    print("|---" * (len(options.rates) + 3) + "|")
    for text in options.methods:
        method, recipe = method_and_recipe(backbone.family, backbone.width, text, steps=options.steps)
        started = time.monotonic()
        found = search(
            backbone, method, recipe, tasks, options.rates, options.seeds, options.limit_train, options.data
        )
        means = {rate: fmean(scores) for rate, scores in found.items()}
        best = max(means, key=means.__getitem__)
        edge = " (edge)" if best in (min(means), max(means)) else ""
        cells = " | ".join(f"{means[rate]:.3f}" for rate in options.rates)
        print(f"| {text} | {cells} | {best:g}{edge} | {time.monotonic() - started:.0f} |", flush=True)


if __name__ == "__main__":
    main()
