"""Find a learning rate for each method: every rate of a grid on every task and seed, all runs of a method in one sweep.

    python scripts/search_rates.py --methods lora prefix houlsby --tasks microworld-imdb microworld-snli --seeds 0 1

Only validation rows are looked at. The rate that is best on average is what training/recipes.py holds for the size of
the backbone; a rate at the edge of the grid is said, since a better one may lie beyond it.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from statistics import fmean

from prompttransfer.backbones.loading import load_backbone
from prompttransfer.cli.common import resolve_tasks
from prompttransfer.training.grids import RATE, candidates_of
from prompttransfer.training.sweep import run_sweep
from prompttransfer.training.train import Job
from tasks.loading import load_splits

RATES = (3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1)
TASKS = ("microworld-imdb", "microworld-restaurant", "microworld-snli", "microworld-mnli", "microworld-qqp", "microworld-justice")  # fmt: skip


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
    parser.add_argument(
        "--label-words", nargs="+", metavar="LABEL=WORD", help="as negative=terrible positive=great"
    )
    options = parser.parse_args()
    backbone = load_backbone(options.backbone)
    tasks = resolve_tasks(options.tasks, options.label_words)
    print(
        f"{backbone.name}, {backbone.dtype}, {len(tasks)} tasks, seeds {options.seeds}: mean best validation score"
    )
    print("| method | " + " | ".join(f"{rate:g}" for rate in options.rates) + " | best | seconds |")
    print("|---" * (len(options.rates) + 3) + "|")
    jobs = [
        Job(task, load_splits(task, seed=seed, limit_train=options.limit_train, data=options.data), seed, name=f"{task.name}-s{seed}")
        for task in tasks
        for seed in options.seeds
    ]  # fmt: skip
    grid = {RATE: tuple(f"{rate:g}" for rate in options.rates)}
    for text in options.methods:
        rates = candidates_of(backbone.family, backbone.state_width, text, grid, {"steps": options.steps})
        started = time.monotonic()
        tried = run_sweep(backbone, rates, jobs, halving=False).tried
        means = {
            one.recipe.lr: fmean(found.mean for found in tried if found.candidate is one) for one in rates
        }
        best = max(means, key=means.__getitem__)
        edge = " (edge)" if best in (min(means), max(means)) else ""
        cells = " | ".join(f"{means[rate]:.3f}" for rate in options.rates)
        print(f"| {text} | {cells} | {best:g}{edge} | {time.monotonic() - started:.0f} |", flush=True)


if __name__ == "__main__":
    main()
