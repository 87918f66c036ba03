"""Kind `shared`: the tasks of a library trained together by a method that shares something among them (MPT).

Each task may learn from the library's own prompt of it, too (`teachers`), by logits and states.
Its files: `prompt/`, the mean of what was learned for the tasks, a plain prompt. For MPT, P_k = P * (u_k v_k), that is
P * mean(u_k v_k), from where the paper starts a new task.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from prompttransfer.study.cell import Cell, Context, Json, Unit
from prompttransfer.study.kinds.loading import (
    PROMPT,
    check_rows,
    data_of,
    encoding_of,
    load_backbone_of,
    prompt_of,
    setting,
    task_of,
)
from prompttransfer.study.kinds.versions import VERSIONS
from prompttransfer.study.library_starts import LIBRARY, TEACHERS
from prompttransfer.study.methods import METHOD, with_length
from prompttransfer.study.plan.lookup import load_rows
from tasks.errors import UserError

if TYPE_CHECKING:
    from prompttransfer.training.distillation import Teacher


class Shared:
    """One library and seed a cell, its tasks in one bank."""

    version = VERSIONS["shared"]

    def run(self, unit: Unit, context: Context) -> Mapping[str, Mapping[str, Json]]:
        """Train the tasks of each cell together."""
        return {cell.id: train_together(cell, context) for cell in unit.cells}


def train_together(cell: Cell, context: Context) -> dict[str, Json]:
    """Train, and keep the mean; returns what it took."""
    from prompttransfer.adaptations.arithmetic import made_of
    from prompttransfer.adaptations.artifacts import save_adaptation
    from prompttransfer.adaptations.composition import Part, weighted_sum
    from prompttransfer.adaptations.methods import parse_method
    from prompttransfer.training.recipes import Recipe
    from prompttransfer.training.train import Job, TrainingOptions, train_adaptations

    settings = cell.settings
    backbone = load_backbone_of(setting(settings, "backbone"), context)
    recipe = Recipe(**setting(settings, "recipe"), source="the study's file")
    method = parse_method(with_length(str(settings[METHOD]), recipe.length))
    seed = setting(settings, "seed")
    jobs = []
    for given in setting(settings, "tasks"):
        task = task_of(given["task"], given["words"], context)
        splits, learned, _ = load_rows(task, data_of(context), setting(settings, "limit_train"), 1)
        check_rows(task, learned, given["rows"])
        jobs.append(
            Job(task, splits, seed, name=f"{task.name}-s{seed}", teacher=teacher_of(cell, task.name, context))
        )
    context.tell(f"{len(jobs)} tasks together, {recipe.told(method)}")
    folder = context.scratch(Unit((cell,)))
    options = TrainingOptions(state_folder=folder)
    runs = train_adaptations(backbone, jobs, recipe, encoding_of(cell), method=method, options=options)
    if failure := next((run.failure for run in runs if run.failure), None):
        raise UserError(failure)
    learned_ = [run.adaptation for run in runs]
    weights = [1 / len(learned_)] * len(learned_)
    parts = [Part(each.method, each.tensors, weight) for each, weight in zip(learned_, weights, strict=True)]
    mean = made_of(learned_, weights, weighted_sum(parts), how="average", name=f"shared-s{seed}")
    save_adaptation(mean, context.output(cell) / PROMPT)
    steps = sum(run.steps for run in runs)
    cost: dict[str, Any] = {"steps": steps, "rows": steps * recipe.batch}
    return cost


def teacher_of(cell: Cell, task: str, context: Context) -> Teacher | None:
    """The library's prompt of a task as its teacher; None where the tasks learn from right answers alone."""
    from prompttransfer.training.distillation import Distance, Teacher

    if TEACHERS not in cell.settings:
        return None
    given = setting(cell.settings, TEACHERS)
    return Teacher(prompt_of(cell, f"{LIBRARY}{task}", context), given["weight"], Distance(given["on"]))
