"""Does bf16 cost quality? The same prompts trained in bf16 and in float32 on the embedded world, several seeds a task.

    python scripts/measure_precision.py --output runs/precision

Prints, a task and over all tasks, the mean test accuracy of both and their difference over seeds with its standard
error; writes precision.csv and a figure with the learning curves of both laid over each other (precision.png).
Where the processor has no bf16, its matrix products are computed in float32 and rounded once, as bf16 units do, which
is several times faster than torch's own bf16 products there; everything else runs in bf16 as it is.
"""

from __future__ import annotations

import argparse
import csv
import math
import statistics
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map

from prompttransfer.adaptations.adaptation import CurvePoint
from prompttransfer.backbones.layouts import USUAL
from prompttransfer.backbones.loading import choose_dtype, load_backbone
from prompttransfer.distributed.processes import choose_device
from prompttransfer.training.recipes import recipe_for
from prompttransfer.training.train import Job, train_adaptations
from prompttransfer.transfers.tuning import with_test_score
from prompttransfer.transfers.zero_shot import Target
from tasks.catalog import find_task
from tasks.loading import load_splits

TASKS = ("sst2", "imdb", "mnli", "snli", "deontology", "qqp")
PRECISIONS = ("fp32", "bf16")


@dataclass(frozen=True)
class Run:
    """One prompt's test score and learning curve."""

    task: str
    seed: int
    precision: str
    test: float
    curve: tuple[CurvePoint, ...]


class RoundedProducts(TorchDispatchMode):
    """Computes products of bf16 matrices in float32 and rounds them once: bf16 units sum in float32 as well."""

    products = (torch.ops.aten.mm, torch.ops.aten.addmm, torch.ops.aten.bmm, torch.ops.aten.baddbmm)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func.overloadpacket not in self.products or args[0].dtype is not torch.bfloat16:
            return func(*args, **kwargs)
        out = kwargs.pop("out", None)
        made = func.overloadpacket(*tree_map(_widened, args), **kwargs)
        return made.bfloat16() if out is None else out.copy_(made)


def _widened(value: Any) -> Any:
    return value.float() if isinstance(value, torch.Tensor) else value


def products(precision: str) -> AbstractContextManager[Any]:
    """How products are computed in `precision` on this machine."""
    native = choose_dtype("auto", choose_device("auto")) is torch.bfloat16
    return nullcontext() if native or precision == "fp32" else RoundedProducts()


def train(precision: str, options: argparse.Namespace) -> list[Run]:
    """All tasks and seeds in one bank."""
    backbone = load_backbone(options.backbone, precision=precision)
    recipe = recipe_for(backbone, steps=options.steps)
    targets = [
        Target(task, load_splits(task, limit_train=options.train_rows, limit_test=options.test_rows))
        for name in options.tasks
        for task in [find_task(f"microworld-{name}")]
    ]
    jobs = [
        Job(target.task, target.splits, seed, name=f"{target.task.name}-s{seed}")
        for target in targets
        for seed in range(options.seeds)
    ]
    runs = []
    with products(precision):
        trained = train_adaptations(backbone, jobs, recipe)
        for index, target in enumerate(targets):
            own = trained[index * options.seeds : (index + 1) * options.seeds]
            for seed, run in enumerate(with_test_score(backbone, own, target, USUAL)):
                score = run.adaptation.scores["test"][target.task.metric]
                runs.append(Run(target.task.name, seed, precision, score, run.adaptation.curve))
    return runs


def compare(runs: Sequence[Run], tasks: Sequence[str]) -> list[tuple[str, float, float, float, float]]:
    """A line a task and one for all: name, float32, bf16, mean difference, its standard error over runs."""
    scores = {
        precision: {(run.task, run.seed): run.test for run in runs if run.precision == precision}
        for precision in PRECISIONS
    }

    def line(name: str, members: set[str]) -> tuple[str, float, float, float, float]:
        keys = sorted({(run.task, run.seed) for run in runs if run.task in members})
        full = [scores["fp32"][key] for key in keys]
        half = [scores["bf16"][key] for key in keys]
        differences = [b - a for a, b in zip(full, half, strict=True)]
        error = (
            statistics.stdev(differences) / math.sqrt(len(differences)) if len(differences) > 1 else math.nan
        )
        return name, statistics.mean(full), statistics.mean(half), statistics.mean(differences), error

    names = [f"microworld-{task}" for task in tasks]
    return [*(line(name, {name}) for name in names), line("all", set(names))]


def draw(runs: Sequence[Run], tasks: Sequence[str], path: Path) -> None:
    """Validation loss by step, float32 drawn through, bf16 dashed, a panel a task."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    columns = min(3, len(tasks))
    figure, panels = pyplot.subplots(
        math.ceil(len(tasks) / columns),
        columns,
        figsize=(4 * columns, 3 * math.ceil(len(tasks) / columns)),
        squeeze=False,
    )
    styles = {"fp32": ("#4477aa", "-"), "bf16": ("#ee6677", "--")}
    for task, panel in zip(tasks, panels.flat, strict=False):
        for run in (run for run in runs if run.task == f"microworld-{task}"):
            colour, style = styles[run.precision]
            points = [(p.step, p.validation_loss) for p in run.curve if p.validation_loss is not None]
            label = run.precision if run.seed == 0 else None
            panel.plot(*zip(*points, strict=True), color=colour, linestyle=style, linewidth=1, label=label)
        panel.set_title(task)
        panel.set_xlabel("step")
        panel.set_ylabel("validation loss (nats)")
    panels[0, 0].legend()
    figure.tight_layout()
    figure.savefig(path, dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--backbone", default="microworld-roberta")
    parser.add_argument("--tasks", nargs="+", default=list(TASKS), help="names without microworld-")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=None)
    parser.add_argument("--train-rows", type=int, help="all if not given")
    parser.add_argument("--test-rows", type=int, default=1000)
    parser.add_argument("--output", type=Path, default=Path("runs/precision"))
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    runs = [run for precision in PRECISIONS for run in train(precision, options)]
    lines = compare(runs, options.tasks)
    print(f"{'task':26} fp32    bf16    difference (standard error over {options.seeds} seeds)")
    for name, full, half, difference, error in lines:
        print(f"{name:26} {full:.4f}  {half:.4f}  {difference:+.4f} ({error:.4f})")
    with (options.output / "precision.csv").open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(["task", "seed", "precision", "test"])
        writer.writerows((run.task, run.seed, run.precision, f"{run.test:.6f}") for run in runs)
    draw(runs, options.tasks, options.output / "precision.png")
    print(f"written to {options.output}")


if __name__ == "__main__":
    main()
