"""Kind `projector`: a map from the prompts of one backbone to those of another, fitted on one seed, with its controls.

Its files: `projector/`, the folder that `project fit` writes, with the cells of its report in `report.csv`.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prompttransfer.study.cell import Cell, Context, Json, Unit
from prompttransfer.study.kinds.loading import PROMPT, check_rows, data_of, load_backbone_of, setting, task_of
from prompttransfer.study.kinds.versions import VERSIONS
from prompttransfer.study.plan.lookup import load_rows

if TYPE_CHECKING:
    from projectors.gathering import Options

PROJECTOR = "projector"


class FittedProjector:
    """One cell a unit."""

    version = VERSIONS["projector"]

    def run(self, unit: Unit, context: Context) -> Mapping[str, Mapping[str, Json]]:
        """Fit the projector and judge it; a killed fit goes on from its state in scratch."""
        from projectors.artifacts import save_projector
        from projectors.experiment import run_experiment

        done: dict[str, dict[str, Json]] = {}
        for cell in unit.cells:
            source = load_backbone_of(setting(cell.settings, "source"), context)
            target = load_backbone_of(setting(cell.settings, "target"), context)
            tasks = {name: self.checked_task(cell, name, context) for name in setting(cell.settings, "tasks")}
            options = options_of(cell, context.scratch(unit) / cell.id, context)
            outcome = run_experiment(
                source,
                target,
                [tasks[name] for name in setting(cell.settings, "fitting")],
                [tasks[name] for name in setting(cell.settings, "unseen")],
                options,
                tell=context.tell,
            )
            save_projector(
                outcome.projector, context.output(cell) / PROJECTOR, extra={"report.csv": outcome.to_csv()}
            )
            done[cell.id] = {"steps": len(outcome.projector.curve)}
        return done

    def checked_task(self, cell: Cell, name: str, context: Context) -> Any:
        """A task whose rows are those that were planned with."""
        planned = setting(cell.settings, "tasks", name)
        task = task_of(name, planned["words"], context)
        limits = setting(cell.settings, "limit_train"), setting(cell.settings, "limit_test")
        _, learned, tested = load_rows(task, data_of(context), *limits)
        for found, wanted in zip((learned, tested), planned["rows"], strict=True):
            check_rows(task, found, wanted)
        return task


def options_of(cell: Cell, work: Path, context: Context) -> Options:
    """The options of `run_experiment`, with the prompts of the inputs in two folders."""
    from projectors.architectures import Architecture
    from projectors.fitting import FitSettings
    from projectors.gathering import Options
    from projectors.methods import FitPlan

    seed = setting(cell.settings, "seed")
    fit = FitSettings(**setting(cell.settings, "fit"), seed=seed)
    shape = Architecture(**setting(cell.settings, "architecture"))
    folders = {side: gather_prompts(cell, side, work, context) for side in ("source", "target")}
    return Options(
        work=work / "fit",
        method=setting(cell.settings, "method"),
        plan=FitPlan(shape, distance=fit, task=fit, start=setting(cell.settings, "start")),
        seeds=(seed,),
        source_prompts=folders["source"],
        target_prompts=folders["target"],
        data=data_of(context),
        max_length=setting(cell.settings, "max_length"),
        limit_train=setting(cell.settings, "limit_train"),
        limit_test=setting(cell.settings, "limit_test"),
    )


def gather_prompts(cell: Cell, side: str, work: Path, context: Context) -> Path:
    """A folder with copies of the prompts of one side."""
    folder = work / side
    shutil.rmtree(folder, ignore_errors=True)  # an attempt that was killed may have left half of it
    for index, role in enumerate(role for role in cell.inputs if role.startswith(f"{side} ")):
        shutil.copytree(context.input(cell, role) / PROMPT, folder / f"prompt-{index}")
    return folder
