"""Choose a projector by measurement: `python scripts/measure_projectors.py --target microworld-roberta-wide`.

One idea: every recipe is fitted on the same prompts of the same fitting tasks, once a seed, and scored on tasks that it
has not seen, beside the controls that a constant would pass. Prompts are trained once into `--prompts` (a folder a
backbone and revision) and read again by the next run; those of either side that exist already are read from
`--source-prompts` and `--target-prompts`. Wanted on unseen tasks of a fitted type: the best recipe that
uses labels at least .90 of the target's own prompt and .15 above a random source through it; the best that uses none
.10 above no prompt. With a T5 of the embedded world as target, remember that its word embeddings began as those of
microworld-roberta: maps of shared words have it easier there than between strangers.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from projectors.anchors import AnchorSettings
from projectors.architectures import Architecture
from projectors.controls import probes, sensitivity
from projectors.experiment import bench_of, seeded, tuned_constant
from projectors.fitting import FitSettings
from projectors.gathering import Gathered, Options, answers_of, material_of, prompts_of, rows_of
from projectors.lessons import check_covered, group_by_task, words_between
from projectors.methods import LABEL_FREE, METHODS, FitPlan, Material, plan_for
from projectors.projector import Projector, common_side
from projectors.report import (
    CONDITIONS,
    GROUPS,
    Bench,
    ConditionScore,
    Draw,
    Entry,
    carry,
    for_every_task,
    random_sources,
    relatives,
    score_conditions,
    summarise,
)
from prompttransfer.adaptations.adaptation import Adaptation
from prompttransfer.adaptations.artifacts import holds_one, load_adaptation, save_adaptation
from prompttransfer.backbones.base import Backbone
from prompttransfer.backbones.layouts import Encoding
from prompttransfer.backbones.loading import load_backbone
from prompttransfer.cli.common import resolve_tasks
from prompttransfer.files import write_json
from prompttransfer.training.recipes import recipe_for
from prompttransfer.training.train import Job, train_adaptations
from tasks.task import Task


@dataclass(frozen=True)
class Way:
    """One way to fit: a method with its plan."""

    method: str
    plan: FitPlan = field(default_factory=FitPlan)


def learned(
    method: str,
    architecture: str = "linear",
    *,
    start: str | None = None,
    bias: bool = False,
    hidden: int = 768,
    rank: int = 64,
    standardise: bool | None = None,
    **settings: Any,
) -> Way:
    """A fitted way; `settings` are those of `FitSettings`, the same for both phases."""
    standard = (architecture != "linear" or start == "random") if standardise is None else standardise
    shaped = Architecture(architecture, hidden, rank, standardise=standard, bias=bias)
    return Way(method, plan_for(shaped, FitSettings(**settings), start=start))


WAYS: dict[str, Way] = {
    "vocabulary": Way("vocabulary"),
    "vocabulary-mlp": Way("vocabulary-mlp"),
    "combination": Way("combination"),
    "combination 1 word": Way("combination", FitPlan(per_token=1)),
    "combination 4 words": Way("combination", FitPlan(per_token=4)),
    "combination 16 words": Way("combination", FitPlan(per_token=16)),
    "procrustes": Way("procrustes"),
    "anchors": Way("anchors", FitPlan(anchors=AnchorSettings(steps=1000))),
    "distance mlp": learned("distance", "mlp"),
    "distance mlp null .3": learned("distance", "mlp", null=0.3),
    "distance mlp noise .5": learned("distance", "mlp", noise=0.5),
    "distance mlp contrast 1": learned("distance", "mlp", contrast=1.0),
    "distance low-rank null .3": learned("distance", "low-rank", null=0.3),
    "distance linear": learned("distance", noise=0.5),
    "task mlp": learned("task", "mlp"),
    "task mlp null .3": learned("task", "mlp", null=0.3),
    "distance+task mlp": learned("distance+task", "mlp"),
    "distance+task mlp null .3 noise .3": learned("distance+task", "mlp", null=0.3, noise=0.3),
    "distance+task low-rank null .3": learned("distance+task", "low-rank", null=0.3),
    "task linear random": learned("task", start="random", noise=0.5),
    "task linear": learned("task"),
    "task linear noise .5": learned("task", noise=0.5),
    "task linear noise .5 distil 1": learned("task", noise=0.5, distil=1.0),
    "task linear noise .5 distil 10": learned("task", noise=0.5, distil=10.0),
    "task linear noise 1": learned("task", noise=1.0),
    "task linear noise .5 lr 3e-3": learned("task", noise=0.5, lr=3e-3),
    "task linear noise .5 null .2": learned("task", noise=0.5, null=0.2),
    "task linear noise .5 mix 1": learned("task", noise=0.5, mix=1.0),
    "task linear noise .5 600 steps": learned("task", noise=0.5, steps=600),
    "task linear bias noise .5": learned("task", noise=0.5, bias=True),
    "task token-mlp noise .5": learned("task", "token-mlp", start="vocabulary", standardise=False, noise=0.5),
    "distance+task linear noise .5": learned("distance+task", noise=0.5),
}
"""What is compared, by the names that the table shows."""

WORLD = "microworld-"
FITTING = ("imdb", "rotten-tomatoes", "tweet", "mnli", "qnli", "deontology", "qqp")
UNSEEN = ("sst2", "snli", "justice", "mrpc")


def main() -> None:
    given = arguments()
    began = time.monotonic()
    source, target = load_backbone(given.source), load_backbone(given.target)
    tasks = resolve_tasks([*given.fitting, *given.unseen], given.label_words)
    fitting, unseen = tasks[: len(given.fitting)], tasks[len(given.fitting) :]
    options = Options(
        work=given.prompts,
        seeds=tuple(given.seeds),
        source_prompts=given.source_prompts,
        target_prompts=given.target_prompts,
        data=given.data,
        max_length=given.max_length,
        limit_train=given.limit_train,
        limit_test=given.limit_test,
    )
    far = replace(options, seeds=tuple(given.target_seeds or given.seeds))
    prompts = both_sides(source, target, tasks, (options, far), given.prompt_steps)
    splits = {name: rows_of(task, options) for name, task in prompts.tasks.items()}
    names = [task.name for task in fitting]
    learns = any(WAYS[way].plan.task.distil for way in given.ways or WAYS)
    answers = answers_of(source, names, prompts, splits, options) if learns else None
    material = material_of(target, names, prompts, splits, options, words_between(source, target), answers)
    bench = bench_of(target, prompts, splits, names, options)
    if given.unseen_only:
        bench = replace(bench, source={task.name: prompts.source[task.name] for task in unseen})
    print(f"{source.name} -> {target.name}, {material.shape}, {len(material.pairs)} pairs, "
          f"{len(material.shared.words if material.shared else ())} shared words")  # fmt: skip
    controls = [] if given.no_controls else control_cells(bench, material, options, given.fit_steps)
    record: dict[str, Any] = {"source": source.name, "target": target.name, "revisions": [source.revision, target.revision]}  # fmt: skip
    record |= {"fitting": names, "unseen": [task.name for task in unseen], "seeds": given.seeds, "ways": {}}
    record |= {"controls": entries(summarise(controls)), "limit_test": given.limit_test}
    show_controls(controls)
    for name in given.ways or WAYS:
        record["ways"][name] = measured = measure_way(
            name, bench, material, prompts, options, given.fit_steps
        )
        show_way(name, measured)
        if given.output:
            write_json(given.output, record | {"minutes": (time.monotonic() - began) / 60})


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--source", default="microworld-roberta")
    parser.add_argument("--target", default="microworld-roberta-wide")
    parser.add_argument("--fitting", nargs="+", default=[WORLD + name for name in FITTING])
    parser.add_argument("--unseen", nargs="+", default=[WORLD + name for name in UNSEEN])
    parser.add_argument("--ways", nargs="+", choices=WAYS, metavar="WAY", help="some of: " + "; ".join(WAYS))
    parser.add_argument("--prompts", type=Path, default=Path("runs/projector-prompts"))
    parser.add_argument(
        "--prompt-steps", type=int, help="training steps of a prompt; the recipe's if not given"
    )
    parser.add_argument(
        "--fit-steps", type=int, help="steps of each phase of a fit; those of the way if not given"
    )
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument(
        "--target-seeds", nargs="+", type=int, help="of the target's prompts; --seeds if not given"
    )
    for side in ("source", "target"):
        parser.add_argument(
            f"--{side}-prompts", type=Path, help="folder of prompt folders; trained if not given"
        )
    parser.add_argument("--data", type=Path)
    parser.add_argument(
        "--label-words", nargs="+", metavar="LABEL=WORD", help="as negative=terrible positive=great"
    )
    parser.add_argument("--max-length", type=int)
    parser.add_argument("--limit-train", type=int)
    parser.add_argument("--limit-test", type=int)
    parser.add_argument("--unseen-only", action="store_true", help="score no fitting task, which is quicker")
    parser.add_argument("--no-controls", action="store_true", help="for a first look at many ways")
    parser.add_argument("--output", type=Path, help="JSON file for the numbers")
    return parser.parse_args()


def both_sides(
    source: Backbone,
    target: Backbone,
    tasks: Sequence[Task],
    options: tuple[Options, Options],
    steps: int | None,
) -> Gathered:
    """The prompts of both backbones, read or trained; `options` of the source and of the target."""
    wanted = {task.name: task for task in tasks}
    first = prompts_on("source", source, wanted, options[0], steps)
    length = next(iter(first.values()))[0].length
    second = prompts_on("target", target, wanted, options[1], steps, length)
    return Gathered(
        wanted,
        first,
        second,
        common_side([prompt for prompts in first.values() for prompt in prompts], "source"),
        common_side([prompt for prompts in second.values() for prompt in prompts], "target"),
    )


def prompts_on(
    side: str,
    backbone: Backbone,
    tasks: Mapping[str, Task],
    options: Options,
    steps: int | None,
    length: int | None = None,
) -> dict[str, list[Adaptation]]:
    """Task -> its prompts on one side, read from the folder that was given for it or trained where they are missing."""
    folder = options.source_prompts if side == "source" else options.target_prompts
    if folder is None:
        return group_by_task(trained_once(backbone, list(tasks.values()), options, steps, length))
    found = prompts_of(backbone, folder, tasks, options, side, length, print)
    check_covered(list(tasks), found, side)
    return {name: found[name] for name in tasks}


def trained_once(
    backbone: Backbone, tasks: Sequence[Task], options: Options, steps: int | None, length: int | None = None
) -> list[Adaptation]:
    """One prompt a task and seed, read from the folder of this backbone and revision or trained into it."""
    weights = (backbone.revision or "unknown").removeprefix("sha256:")[:8]
    folder = options.work / f"{Path(backbone.name).name}-{weights}"
    wanted = {f"{task.name}-s{seed}": (task, seed) for task in tasks for seed in options.seeds}
    missing = [name for name in wanted if not holds_one(folder / name)]
    if missing:
        recipe = recipe_for(backbone, steps=steps, length=length)
        recipe = replace(recipe, evaluate_every=max(1, recipe.steps // 3))
        print(f"training {len(missing)} prompts on {backbone.name}: {recipe}", flush=True)
        splits = {task.name: rows_of(task, options) for task in tasks}
        jobs = [Job(wanted[n][0], splits[wanted[n][0].name], wanted[n][1], name=n) for n in missing]
        for run in train_adaptations(backbone, jobs, recipe, Encoding(max_length=options.max_length)):
            save_adaptation(run.adaptation, folder / run.adaptation.name)
    return [load_adaptation(folder / name) for name in wanted]


def control_cells(
    bench: Bench, material: Material, options: Options, steps: int | None
) -> list[ConditionScore]:
    """The conditions that no recipe changes: own prompts, constants, random prompts, no prompt."""
    plan = for_steps(plan_for(), steps)
    constants = [tuned_constant(material, seeded(plan, seed)) for seed in options.seeds]
    shared = for_every_task(bench, material.pairs, constants)
    cells = []
    for name in bench.source:
        own = [Draw(prompt.seed or 0, prompt.vectors) for prompt in bench.target[name]]
        conditions = {"own prompt": own, "same type in target": relatives(bench, name), **shared}
        cells += score_conditions(bench, name, {key: value for key, value in conditions.items() if value})
    return cells


def for_steps(plan: FitPlan, steps: int | None) -> FitPlan:
    """The plan with so many steps in each phase, its own where None is given."""
    if steps is None:
        return plan
    return replace(
        plan,
        distance=replace(plan.distance, steps=steps),
        task=replace(plan.task, steps=steps),
        anchors=replace(plan.anchors, steps=steps),
    )


def measure_way(
    name: str,
    bench: Bench,
    material: Material,
    prompts: Gathered,
    options: Options,
    steps: int | None,
) -> dict[str, Any]:
    """Fit one way with every seed and score what it makes of real and of random sources."""
    way, began = WAYS[name], time.monotonic()
    free = way.method in LABEL_FREE
    fits = [METHODS[way.method](material, seeded(for_steps(way.plan, steps), seed)) for seed in options.seeds]
    seconds = (time.monotonic() - began) / len(fits)
    projectors = [
        Projector(fit.module.eval(), prompts.source_side, prompts.target_side, way.method, fit.architecture, fit.settings,
                  bench.fitting, seed, fit.curve)
        for seed, fit in zip(options.seeds, fits, strict=True)
    ]  # fmt: skip
    carried = carry(projectors, bench.source)
    noise = random_sources(projectors, bench.source)
    cells = [
        cell
        for task in bench.source
        for cell in score_conditions(bench, task, {"projected": carried[task], "random source": noise[task]})
    ]
    inputs = probes({task: torch.stack([p.vectors for p in ps]) for task, ps in prompts.source.items()})
    each = {
        task: {c: summarise([x for x in cells if x.task == task])[bench.group(task)][c].mean for c in ("projected", "random source")}
        for task in bench.source
    }  # fmt: skip
    return {
        "method": way.method,
        "label_free": free,
        "groups": entries(summarise(cells)),
        "tasks": each,
        "sensitivity": [asdict(sensitivity(p.module, inputs)) for p in projectors],
        "loss": [fit.curve[-1] for fit in fits if fit.curve],
        "seconds": seconds,
    }


def entries(table: Mapping[str, Mapping[str, Entry]]) -> dict[str, Any]:
    """A table for JSON."""
    return {group: {name: asdict(entry) for name, entry in rows.items()} for group, rows in table.items()}


def show_controls(cells: Sequence[ConditionScore]) -> None:
    """The controls once, above the ways."""
    for group, rows in summarise(cells).items():
        print(f"\ncontrols, tasks {group}")
        for name in CONDITIONS:
            if name in rows:
                print(f"  {name:22s} {rows[name].mean:.3f} +- {rows[name].spread:.3f}")
    print("\nmean over tasks and seeds +- spread over seeds; random: a random source through the same projector", flush=True)  # fmt: skip


def show_way(name: str, measured: Mapping[str, Any]) -> None:
    """One line a way: projected and random source in each group, sensitivity, seconds a fit."""
    parts = []
    for group in GROUPS:
        if rows := measured["groups"].get(group):
            real, random = rows["projected"], rows["random source"]
            parts.append(f"{group}: {real['mean']:.3f} +- {real['spread']:.3f} random {random['mean']:.3f}")
    each = " ".join(
        f"{task.removeprefix(WORLD)} {v['projected']:.2f}/{v['random source']:.2f}"
        for task, v in measured["tasks"].items()
    )
    relative = min(s["outputs"] / s["inputs"] for s in measured["sensitivity"])
    print(f"{name:36s} {' | '.join(parts)} | ratio {relative:.2f}, {measured['seconds']:.0f} s\n    {each}", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
