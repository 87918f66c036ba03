"""What `transfer --tune` and `--distil` train, and what it is called."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from prompttransfer.adaptations.adaptation import Adaptation
    from prompttransfer.backbones.base import Backbone
    from prompttransfer.backbones.layouts import Encoding
    from prompttransfer.training.train import Trained, TrainingOptions
    from prompttransfer.transfers.distilled import DistilledTransfer, Distilling
    from prompttransfer.transfers.tuning import TunedTransfer
    from prompttransfer.transfers.zero_shot import Target
    from tasks.task import Task


def check_tuning(
    prompts: Sequence[Adaptation], tasks: Sequence[Task], warm_up: int | None, steps: int | None
) -> None:
    """Raise UserError where runs from `prompts` on `tasks` cannot be, before anything is loaded."""
    from prompttransfer.adaptations.heads import check_head
    from prompttransfer.adaptations.running import common_method
    from prompttransfer.training.recipes import check_warm_up

    check_warm_up(warm_up, steps)
    method = common_method(prompts)
    for task in tasks:
        check_head(method, task)


def distilling_of(given: Mapping[str, Any]) -> Distilling | None:
    """What --distil and --distil-weight ask for. Raises UserError."""
    from prompttransfer.transfers.distilled import CONSTANT, Distilling
    from tasks.errors import UserError

    weight: str | None = given["distil_weight"]
    if not given["distil"] and weight is None:
        return None
    if not (given["tune"] and given["distil"]):
        raise UserError(
            "--distil has what --tune trains as its teachers, and --distil-weight is of it: give them together"
        )
    if weight is None or weight == "similarity":
        return Distilling()
    try:
        number = float(weight)
    except ValueError:
        number = -1.0
    if not 0 <= number < 1e30:
        raise UserError(
            f"--distil-weight {weight}: give 'similarity' or a number of 0 or more, such as {CONSTANT:g}"
        )
    return Distilling(number)


def check_names(
    prompts: Sequence[Adaptation], targets: Sequence[str], seeds: Sequence[int], *, distilled: bool = False
) -> None:
    """Raise UserError where two tuned ones would share a name, or a name cannot be a folder's."""
    from prompttransfer.files import safe_name
    from tasks.errors import UserError

    names = [prompt.name for prompt in prompts]
    wanted = tuned_names(names, targets, seeds) + (student_names(names, targets, seeds) if distilled else [])
    tuned = [safe_name(name, "name of a tuned prompt") for name in wanted]
    twice = next((name for name in tuned if tuned.count(name) > 1), None)
    if twice is not None:
        raise UserError(f"two tuned prompts would be called {twice!r}: rename a source prompt or a task")


def tuned_names(sources: Sequence[str], targets: Sequence[str], seeds: Sequence[int]) -> list[str]:
    """The names of the runs of --tune: for every target and seed the one from scratch, then one a source."""
    from prompttransfer.transfers.tuning import run_name

    return [
        f"{start}-s{seed}"
        for target in targets
        for seed in seeds
        for start in (f"{target}-scratch", *(run_name(source, target) for source in sources))
    ]


def student_names(sources: Sequence[str], targets: Sequence[str], seeds: Sequence[int]) -> list[str]:
    """The names of the runs of --distil, in their order."""
    from prompttransfer.transfers.distilled import student_name

    return [student_name(source, target, seed) for target in targets for seed in seeds for source in sources]


def predictions_of_tuned(
    model: Backbone, trained: Sequence[Trained], targets: Sequence[Target]
) -> list[dict[str, Any]]:
    """What every run says to the test rows of its target."""
    from prompttransfer.evaluation.predictions import predictions_of

    by_name = {target.task.name: target for target in targets}
    lines: list[dict[str, Any]] = []
    for own in (run.adaptation for run in trained):
        target = by_name[own.task]
        lines += predictions_of(model, [own], target.task, target.splits.test, own.encoding)
    return lines


def run_tuning(
    model: Backbone,
    prompts: Sequence[Adaptation],
    targets: Sequence[Target],
    seeds: Sequence[int],
    overrides: dict[str, Any],
    *,
    encoding: Encoding,
    distilling: Distilling | None,
    output: Path,
    quiet: bool,
) -> tuple[TunedTransfer, DistilledTransfer | None, TrainingOptions]:
    from prompttransfer.adaptations.running import common_method
    from prompttransfer.cli.common import console, say
    from prompttransfer.training.progress import TrainingProgress
    from prompttransfer.training.recipes import recipe_for
    from prompttransfer.training.train import TrainingOptions
    from prompttransfer.transfers.distilled import check_distilling, distil
    from prompttransfer.transfers.tuning import tune

    method = common_method(prompts)
    if distilling is not None:
        check_distilling(distilling, prompts, targets)
    recipe = recipe_for(model, method, **overrides)
    for remark in method.remarks(model, [target.task.name for target in targets]):
        say(remark, quiet=quiet)
    say(f"recipe: {recipe.told(method)}", quiet=quiet)
    names = tuned_names([p.name for p in prompts], [t.task.name for t in targets], seeds)
    say(f"tuning: {len(names)} runs in one bank", quiet=quiet)
    with TrainingProgress(console, names, recipe.steps) as progress:
        options = TrainingOptions(state_folder=output.parent, progress=None if quiet else progress)
        result = tune(
            model,
            prompts,
            targets,
            recipe,
            seeds=seeds,
            encoding=encoding,
            options=options,
        )
    if distilling is None:
        return result, None, options
    names = student_names([p.name for p in prompts], [t.task.name for t in targets], seeds)
    say(f"distilling: {len(names)} runs in one bank", quiet=quiet)
    with TrainingProgress(console, names, recipe.steps) as progress:
        options.progress = None if quiet else progress
        taught = distil(
            model,
            prompts,
            targets,
            recipe,
            result,
            distilling,
            seeds=seeds,
            encoding=encoding,
            options=options,
        )
    return result, taught, options
