"""Kind `prompt`: soft prompts, or members of another method, trained together in one bank, from scratch or from an input.

Its files: `prompt/`, the folder that every command reads, and where several settings or starts were tried `tried.json`.
Test rows play no part in it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from prompttransfer.study.cell import Cell, CellsFailed, Context, Json, Unit
from prompttransfer.study.kinds.few_rows import starts_of, taught
from prompttransfer.study.kinds.loading import (
    PROMPT,
    encoding_of,
    load_backbone_of,
    mean_tokens,
    prompt_of,
    rows_to_learn,
    setting,
    task_of,
)
from prompttransfer.study.kinds.tried import (
    Try,
    by_reserved,
    candidates_of_cell,
    kept_of,
    taken,
    train_tries,
    tries_of,
    write_tried,
)
from prompttransfer.study.kinds.versions import VERSIONS
from prompttransfer.study.tuning import SOURCE

if TYPE_CHECKING:
    from prompttransfer.backbones.base import Backbone
    from prompttransfer.training.train import Job, Trained


class TrainedPrompt:
    """Cells that differ in task, seed or source, and share backbone, recipe, layout and length of texts."""

    version = VERSIONS["prompt"]

    def run(self, unit: Unit, context: Context) -> Mapping[str, Mapping[str, Json]]:
        """Train the bank; a prompt whose loss left the finite numbers fails alone."""
        from prompttransfer.adaptations.artifacts import save_adaptation

        backbone = load_backbone_of(setting(unit.cells[0].settings, "backbone"), context)
        tried = [runs_of(cell, backbone, context) for cell in unit.cells]
        best = train_tries(backbone, tried, encoding_of(unit.cells[0]), context, context.scratch(unit))
        kept = [kept_of(group, number) for group, number in zip(tried, best, strict=True)]
        for cell, run, group, number in zip(unit.cells, kept, tried, best, strict=True):
            save_adaptation(run.adaptation, context.output(cell) / PROMPT)
            write_tried(group, number, context.output(cell))
        return costs(tried, kept, backbone)


def runs_of(cell: Cell, backbone: Backbone, context: Context) -> list[Try]:
    """All that is tried for a cell."""
    job = taught(cell, job_of(cell, context), backbone, context)
    candidates = candidates_of_cell(cell, context)
    methods = dict.fromkeys(one.method for one in candidates)
    starts = {method: starts_of(cell, job, backbone, method, context) for method in methods}
    return tries_of(cell, job, candidates, starts)


def job_of(cell: Cell, context: Context) -> Job:
    """What `train_adaptations` is to do for a cell."""
    from prompttransfer.adaptations.starts import parse_start, start_from
    from prompttransfer.training.train import Job

    task = task_of(setting(cell.settings, "task"), setting(cell.settings, "words"), context)
    splits = rows_to_learn(task, cell, context)
    seed = setting(cell.settings, "seed")
    if SOURCE not in cell.inputs:
        start = parse_start(setting(cell.settings, "initialiser"))
        return Job(task, splits, seed, start, name=f"{task.name}-s{seed}")
    source = prompt_of(cell, SOURCE, context)
    name = f"{source.name}-to-{task.name}-s{seed}"
    return Job(task, splits, seed, start_from(source), name=name)


def costs(
    tried: Sequence[Sequence[Try]], runs: Sequence[Trained], backbone: Backbone
) -> dict[str, dict[str, Json]]:
    """Steps (of all that was tried), rows and tokens of each prompt; CellsFailed where one did not stay finite."""
    found: dict[str, dict[str, Json]] = {}
    failed: dict[str, str] = {}
    for group, run in zip(tried, runs, strict=True):
        cell, job = group[0].cell, group[0].job
        if run.failure is not None:
            failed[cell.id] = run.failure
            continue
        spent = {reserved: taken(tries) for reserved, tries in by_reserved(group).items()}
        tokens = sum(
            each["rows"] * mean_tokens(backbone, job.task, job.splits, cell, reserved)
            for reserved, each in spent.items()
        )
        found[cell.id] = {**taken(group), "tokens": round(tokens)}
    if failed:
        raise CellsFailed(failed, found)
    return found
