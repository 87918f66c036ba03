"""`--distil` of `train`: which kept adaptation teaches which run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tasks.errors import UserError

if TYPE_CHECKING:
    from prompttransfer.adaptations.adaptation import Adaptation
    from prompttransfer.training.distillation import Distance, Teacher

MPT_WEIGHT = 0.9
"""Of the distance to a teacher where none is given: that of MPT (Wang et al. 2023)."""


def teachers_of(
    tasks: Sequence[str],
    seeds: Sequence[int],
    folders: Sequence[Path] | None,
    *,
    weight: float | None,
    distance: Distance,
) -> dict[tuple[str, int], Teacher]:
    """(task, seed) -> its teacher; none without folders. Raises UserError where one has none, or there is a choice."""
    from prompttransfer.cli.tables import read_prompts
    from prompttransfer.training.distillation import Teacher

    if folders is None:
        return {}
    found = read_prompts(folders)
    where = ", ".join(map(str, folders))
    weight = MPT_WEIGHT if weight is None else weight
    return {
        (task, seed): Teacher(_teacher_of(task, seed, found, where), weight, distance)
        for task in tasks
        for seed in seeds
    }


def _teacher_of(task: str, seed: int, found: Sequence[Adaptation], where: str) -> Adaptation:
    """The one of the task; of several the one of the seed."""
    fitting = [each for each in found if each.task == task]
    if not fitting:
        there = ", ".join(sorted({each.task for each in found}))
        raise UserError(
            f"--distil: no teacher of task {task!r} in {where}, which has {there}: train one, or leave the task out"
        )
    if len(fitting) > 1:
        fitting = [each for each in fitting if each.seed == seed] or fitting
    if len(fitting) > 1:
        names = ", ".join(repr(each.name) for each in fitting)
        raise UserError(
            f"--distil: several teachers of task {task!r} in {where} for seed {seed} ({names}): name one"
        )
    return fitting[0]
