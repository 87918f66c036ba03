"""Kind `prompt`: soft prompts, or members of another method, trained together in one bank, from scratch or from an input.

Its files: `prompt/`, the folder that every command reads. Test rows play no part in it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from prompttransfer.study.cell import Cell, CellsFailed, Context, Json, Unit
from prompttransfer.study.kinds.few_rows import best_of, name_of, shared_out, tries_of
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
from prompttransfer.study.kinds.versions import VERSIONS
from prompttransfer.study.methods import METHOD, with_length
from prompttransfer.study.methods import PROMPT as PROMPT_TUNING

if TYPE_CHECKING:
    from prompttransfer.adaptations.method import Method
    from prompttransfer.backbones.base import Backbone
    from prompttransfer.training.train import Job, Trained

SOURCE = "source"


class TrainedPrompt:
    """Cells that differ in task, seed or source, and share backbone, recipe, layout and length of texts."""

    version = VERSIONS["prompt"]

    def run(self, unit: Unit, context: Context) -> Mapping[str, Mapping[str, Json]]:
        """Train the bank; a prompt whose loss left the finite numbers fails alone."""
        from prompttransfer.adaptations.artifacts import save_adaptation
        from prompttransfer.training.recipes import Recipe
        from prompttransfer.training.train import TrainingOptions, train_adaptations
        from prompttransfer.transfers.retrieval import with_retrieved

        first = unit.cells[0].settings
        backbone = load_backbone_of(setting(first, "backbone"), context)
        recipe = Recipe(**setting(first, "recipe"), source="the study's file")
        method = method_of(unit.cells[0])
        encoding = encoding_of(unit.cells[0])
        tried = [tries_of(cell, job_of(cell, context), backbone, method, context) for cell in unit.cells]
        asked = [job for jobs in tried for job in jobs]
        jobs = with_retrieved(backbone, asked, recipe, encoding, method, tell=context.tell)
        called = f"of {method}" if METHOD in first else "prompts"
        context.tell(f"{len(jobs)} {called} in one bank, {recipe.told(method)}")
        runs = train_adaptations(
            backbone,
            jobs,
            recipe,
            encoding,
            method=method,
            options=TrainingOptions(state_folder=context.scratch(unit)),
        )
        groups = shared_out(list(zip(jobs, runs, strict=True)), [len(jobs) for jobs in tried])
        kept = [
            best_of(group, name_of(cell, group[0][0])) for cell, group in zip(unit.cells, groups, strict=True)
        ]
        for cell, run in zip(unit.cells, kept, strict=True):
            save_adaptation(run.adaptation, context.output(cell) / PROMPT)
        steps = [sum(run.steps for _, run in group) for group in groups]
        return costs(unit.cells, [group[0][0] for group in groups], kept, steps, backbone)


def method_of(cell: Cell) -> Method:
    """The method that a cell names, with the length of its recipe."""
    from prompttransfer.adaptations.methods import parse_method

    length = setting(cell.settings, "recipe").get("length", 0)
    return parse_method(with_length(str(cell.settings.get(METHOD, PROMPT_TUNING)), length))


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
    cells: Sequence[Cell],
    jobs: Sequence[Job],
    runs: Sequence[Trained],
    steps: Sequence[int],
    backbone: Backbone,
) -> dict[str, dict[str, Json]]:
    """Steps (of all that was tried), rows and tokens of each prompt; CellsFailed where one did not stay finite."""
    found: dict[str, dict[str, Json]] = {}
    failed: dict[str, str] = {}
    for cell, job, run, taken in zip(cells, jobs, runs, steps, strict=True):
        rows = taken * setting(cell.settings, "recipe", "batch")
        tokens = mean_tokens(backbone, job.task, job.splits, cell, method_of(cell).reserved)
        if run.failure is not None:
            failed[cell.id] = run.failure
        else:
            found[cell.id] = {"steps": taken, "rows": rows, "tokens": round(rows * tokens)}
    if failed:
        raise CellsFailed(failed, found)
    return found
