"""Gathering: the prompts, rows and words that a projector is fitted and judged on, read or trained.

Prompts come from folders; where none is given they are trained with the backbone's recipe and kept, so that a second
fit, or one that was killed, finds them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from torch import Tensor

from projectors.architectures import Shape
from projectors.closed_form import SharedWords
from projectors.lessons import check_covered, group_by_task, lesson, pairs_of, source_answers, untrained_of
from projectors.methods import LABEL_FREE, METHOD, FitPlan, Material, plan_for
from projectors.projector import Side, common_side, same_backbone, side_of_backbone, side_of_prompt
from prompttransfer.adaptations.adaptation import Adaptation, Origin
from prompttransfer.adaptations.artifacts import find_adaptations, holds_one, load_adaptation, save_adaptation
from prompttransfer.adaptations.running import other_words
from prompttransfer.backbones.base import Backbone
from prompttransfer.backbones.layouts import USUAL, Encoding
from prompttransfer.training.recipes import recipe_for
from prompttransfer.training.train import Job, TrainingOptions, origins_of, train_adaptations
from tasks.catalog import all_tasks, find_task
from tasks.errors import UserError
from tasks.loading import Splits, load_splits
from tasks.records import KEPT, own_task
from tasks.task import Task

Tell = Callable[[str], None]
"""Told of each stage in one line."""


@dataclass(frozen=True)
class Options:
    """What to fit, on what, and where the work in progress is kept."""

    work: Path
    """Folder for prompts that have to be trained and for the state of an unfinished fit."""
    method: str = METHOD
    plan: FitPlan = field(default_factory=plan_for)
    seeds: tuple[int, ...] = (0, 1, 2)
    layout: str = "prompt-first"
    target_length: int | None = None
    source_prompts: Path | None = None
    target_prompts: Path | None = None
    data: Path | None = None
    max_length: int | None = None
    limit_train: int | None = None
    limit_test: int | None = None
    shots: int | None = None
    """Training rows of each label, in place of a limit."""


@dataclass(frozen=True)
class Gathered:
    """The prompts of both sides by task, and the tasks that take part."""

    tasks: Mapping[str, Task]
    source: Mapping[str, Sequence[Adaptation]]
    target: Mapping[str, Sequence[Adaptation]]
    source_side: Side
    target_side: Side


def gather(
    source: Backbone,
    target: Backbone,
    fitting: Sequence[Task],
    unseen: Sequence[Task],
    options: Options,
    tell: Tell,
) -> Gathered:
    """Read the prompts of both sides, or train them, and keep the tasks that the target can do."""
    wanted = {task.name: task for task in (*fitting, *unseen)}
    twice = sorted({task.name for task in fitting} & {task.name for task in unseen})
    if twice:
        raise UserError(
            f"{', '.join(twice)}: fitted on and called unseen; take it out of --tasks or out of --unseen"
        )
    given = prompts_of(source, options.source_prompts, wanted, options, "source", None, tell)
    if not unseen:
        wanted |= other_tasks(given, wanted, target, tell)
    source_prompts = {name: given[name] for name in wanted if name in given}
    check_covered([task.name for task in fitting], source_prompts, "source")
    check_covered([task.name for task in unseen], source_prompts, "source", "unseen")
    first = next(iter(source_prompts.values()))[0]
    length = options.target_length or first.length
    found = prompts_of(target, options.target_prompts, wanted, options, "target", length, tell)
    target_prompts = {name: found[name] for name in wanted if name in found}
    check_covered([task.name for task in fitting], target_prompts, "target")
    everyone = [prompt for prompts in target_prompts.values() for prompt in prompts]
    for line in other_words(target, everyone, list(wanted.values())):
        tell(f"warning: {line}")
    return Gathered(
        wanted,
        source_prompts,
        target_prompts,
        common_side([prompt for prompts in source_prompts.values() for prompt in prompts], "source"),
        common_side(everyone, "target"),
    )


def other_tasks(
    given: Mapping[str, Sequence[Adaptation]], wanted: Mapping[str, Task], target: Backbone, tell: Tell
) -> dict[str, Task]:
    """The known tasks that have source prompts, are not wanted already, and that the target can do.

    A task that the catalogue has not is the one that its prompts keep.
    """
    others = {}
    for name, prompts in given.items():
        if name in wanted:
            continue
        try:
            kept = own_task(name, {f"prompt {p.name!r}": p.origin.data.get(KEPT) for p in prompts})
            task = kept if kept is not None and name not in all_tasks() else find_task(name)
            target.check_task(task)
        except UserError as error:
            tell(f"left out: {error}")
            continue
        others[name] = task
    return others


def prompts_of(
    backbone: Backbone,
    folder: Path | None,
    tasks: Mapping[str, Task],
    options: Options,
    side: str,
    length: int | None,
    tell: Tell,
) -> dict[str, list[Adaptation]]:
    """The prompts in `folder`, checked to be of `backbone`; without a folder those trained now, or before, in `work`."""
    if folder is not None:
        found = group_by_task([load_adaptation(path) for path in find_adaptations(folder)])
    else:
        found = group_by_task(trained(backbone, tasks, options, side, length, tell))
    for prompts in found.values():
        for prompt in prompts:
            stands = side_of_backbone(backbone, length=prompt.length, layout=prompt.layout)
            if not same_backbone(side_of_prompt(prompt), stands) or prompt.width != backbone.width:
                raise UserError(
                    f"{side} prompt {prompt.name!r} is of backbone {prompt.backbone!r} (revision {prompt.revision}), but "
                    f"the {side} backbone is {backbone.name!r} (revision {backbone.revision}): name that backbone, or "
                    f"give other --{side}-prompts"
                )
    return found


def trained(
    backbone: Backbone, tasks: Mapping[str, Task], options: Options, side: str, length: int | None, tell: Tell
) -> list[Adaptation]:
    """One prompt a task and seed, trained with the backbone's recipe; those that `work` holds already are read."""
    folder = options.work / side
    recipe = recipe_for(backbone, length=length)
    encoding = Encoding(options.layout if side == "target" else USUAL.layout, options.max_length)
    rows = {name: rows_of(task, options) for name, task in tasks.items()}
    every = [
        Job(task, rows[name], seed, name=f"{name}-s{seed}")
        for name, task in tasks.items()
        for seed in options.seeds
    ]
    origins = origins_of(backbone, every, recipe, encoding)
    jobs, kept = [], []
    for job, origin in zip(every, origins, strict=True):
        place = folder / job.name
        there = load_adaptation(place) if holds_one(place) else None
        if there is not None and is_of(there, origin, encoding):
            kept.append(there)
        else:
            jobs.append(job)
    if jobs:
        tell(f"training {len(jobs)} {side} prompts on {backbone.name}: {recipe}")
        state = TrainingOptions(state_folder=folder)
        runs = train_adaptations(
            backbone,
            jobs,
            recipe,
            encoding,
            options=state,
        )
        for run in runs:
            save_adaptation(run.adaptation, folder / run.adaptation.name)
            kept.append(run.adaptation)
        state.clear()
    return kept


def is_of(prompt: Adaptation, origin: Origin, encoding: Encoding) -> bool:
    """Whether a prompt was trained as is wanted now; with how many others at once does not count."""
    wanted = replace(origin, recipe={**origin.recipe, "bank": prompt.origin.recipe.get("bank")})
    there = (prompt.origin, prompt.encoding)
    said = [[json.dumps(asdict(value)) for value in pair] for pair in (there, (wanted, encoding))]
    return said[0] == said[1]


def needs_words(options: Options) -> bool:
    """Whether the fit begins or ends with the words that both vocabularies hold."""
    return options.method in LABEL_FREE or options.plan.start == "vocabulary"


def material_of(
    target: Backbone,
    fitting: Sequence[str],
    prompts: Gathered,
    splits: Mapping[str, Splits],
    options: Options,
    words: SharedWords | None,
    answers: Mapping[str, Tensor] | None = None,
) -> Material:
    """Everything a method may ask for.

    `words` are those of both vocabularies, where `needs_words`; `answers` those of `answers_of`, where the source's are learned
    from.
    """
    near, far = prompts.source_side, prompts.target_side
    said = answers or {}
    lessons = [
        lesson(
            target,
            prompts.tasks[name],
            splits[name].train,
            prompts.source[name],
            encoding=Encoding(far.layout, options.max_length),
            length=far.length,
            answers=said.get(name),
        )
        for name in fitting
    ]
    return Material(
        Shape(near.length, near.width, far.length, far.width),
        pairs_of(fitting, prompts.source, prompts.target),
        lessons,
        untrained_of(fitting, prompts.target),
        words,
        target.embedding_table()[list(target.ordinary_tokens)],
    )


def answers_of(
    source: Backbone,
    fitting: Sequence[str],
    prompts: Gathered,
    splits: Mapping[str, Splits],
    options: Options,
) -> dict[str, Tensor]:
    """Fitting task -> what the source says to its training rows under each of its prompts, [prompts, rows, classes]."""
    encoding = Encoding(prompts.source_side.layout, options.max_length)
    return {
        name: source_answers(source, prompts.tasks[name], splits[name].train, prompts.source[name], encoding)
        for name in fitting
    }


def rows_of(task: Task, options: Options) -> Splits:
    """The three splits of a task, limited as the options say."""
    return load_splits(
        task,
        data=options.data,
        limit_train=options.limit_train,
        limit_test=options.limit_test,
        shots=options.shots,
    )


def shape_of(source: Backbone, target: Backbone, options: Options) -> Shape:
    """The shape a projector would have, found without training or reading vectors."""
    near = recipe_for(source).length
    if options.source_prompts is not None:
        near = load_adaptation(find_adaptations(options.source_prompts)[0]).length
    far = options.target_length or near
    if options.target_prompts is not None:
        far = load_adaptation(find_adaptations(options.target_prompts)[0]).length
    return Shape(near, source.width, far, target.width)
