"""`train --sweep`: every setting of a grid is trained, validation rows choose one for each task, and that one is kept.

What a sweep writes beside the adaptations: `sweep-TASK.csv`, a row a setting, and its curves as a figure. Each
adaptation keeps in its notes what was swept over and what was chosen.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prompttransfer.cli.common import console, number, say, table
from tasks.documents import shortened
from tasks.errors import UserError

if TYPE_CHECKING:
    import pandas as pd

    from prompttransfer.adaptations.adaptation import Adaptation
    from prompttransfer.backbones.base import Backbone
    from prompttransfer.backbones.layouts import Encoding
    from prompttransfer.training.grids import Candidate, Grid
    from prompttransfer.training.sweep import Part, Swept, Tried
    from prompttransfer.training.train import Job, Trained, TrainingOptions


TAKEN = "steps taken"
"""Column of the steps that a setting trained; `steps` may be an axis."""


@dataclass(frozen=True)
class Sweep:
    """A sweep as it was asked for."""

    grid: Grid
    halving: bool
    candidates: Sequence[Candidate]

    def note(self, candidate: Candidate) -> dict[str, Any]:
        """What an adaptation keeps of it."""
        return {
            "chosen": dict(candidate.values),
            "of": {name: list(values) for name, values in self.grid.items()},
            "stopping": "successive halving" if self.halving else "none",
        }

    def told(self) -> list[str]:
        """What will be trained, for people."""
        from prompttransfer.training.sweep import parts_of

        parts = parts_of(self.candidates)
        axes = "; ".join(f"{name} {' '.join(values)}" for name, values in self.grid.items())
        stopping = (
            "successive halving: the better half of a task's settings goes on behind a quarter and behind half of their steps"
            if self.halving
            else "none, every setting trains to its end"
        )
        banks = f"{len(parts)} bank{'s' * (len(parts) > 1)}"
        return [
            f"sweep: {len(self.candidates)} settings in {banks} ({axes}); chosen on validation rows alone",
            f"early stopping: {stopping}",
        ]


def sweep_of(
    model: Backbone, method: str, grid: Grid, overrides: Mapping[str, Any], *, halving: bool
) -> Sweep:
    """The sweep of a method's text over a grid on a backbone."""
    from prompttransfer.training.grids import candidates_of

    return Sweep(grid, halving, candidates_of(model.family, model.state_width, method, grid, overrides))


def swept_before(
    model: Backbone, jobs: Sequence[Job], sweep: Sweep, encoding: Encoding, output: Path | None
) -> dict[str, Adaptation]:
    """Name -> adaptation of those in `output` that the very same sweep has chosen. Raises UserError for others."""
    from prompttransfer.adaptations.artifacts import holds_one, load_adaptation
    from prompttransfer.cli.runs import check_made
    from prompttransfer.outputs import taken
    from prompttransfer.training.sweep import NOTE, parts_of
    from prompttransfer.training.train import origins_of

    found: dict[str, Adaptation] = {}
    if output is None:
        return found
    homes = {str(one): part for part in parts_of(sweep.candidates) for one in part.candidates}
    notes = {str(sweep.note(one)): one for one in sweep.candidates}
    for place, job in enumerate(jobs):
        folder = output / job.name
        if not holds_one(folder):
            continue
        there = load_adaptation(folder)
        chosen = notes.get(str(there.notes.get(NOTE)))
        if chosen is None:
            raise taken(folder, "a finished prompt that another sweep, or none, has made")
        part = homes[str(chosen)]
        at = [str(one) for one in part.candidates].index(str(chosen)) * len(jobs) + place
        bank = part.jobs(jobs)
        origin = origins_of(model, bank, part.recipe, encoding, part.method)[at]
        check_made(folder, there, model, bank[at], origin, encoding, part.method)
        found[job.name] = there
    return found


def run_sweep_of(
    model: Backbone,
    jobs: Sequence[Job],
    sweep: Sweep,
    encoding: Encoding,
    *,
    output: Path | None,
    logger: str,
    quiet: bool,
) -> tuple[Swept, list[TrainingOptions]]:
    """Run a sweep with progress and logs, and score what it has chosen on the test split of its task."""
    from prompttransfer.cli.runs import tested
    from prompttransfer.training.progress import TrainingProgress
    from prompttransfer.training.run_logs import open_logs
    from prompttransfer.training.sweep import run_sweep
    from prompttransfer.training.train import TrainingOptions

    bars: dict[str, TrainingProgress] = {}
    made: list[TrainingOptions] = []

    def options(part: Part) -> TrainingOptions:
        names = [f"{job.name}, lr {one.recipe.lr:g}" for one in part.candidates for job in jobs]
        bars[str(part)] = TrainingProgress(console, names, part.recipe.steps)

        def loggers(run: str) -> list[Any]:
            return [] if output is None else open_logs(logger, output, [job.name for job in jobs], run)

        progress = None if quiet else bars[str(part)]
        made.append(TrainingOptions(state_folder=output, progress=progress, loggers=loggers))
        return made[-1]

    def watch(part: Part) -> AbstractContextManager[Any]:
        if str(part):
            say(str(part), quiet=quiet)
        return bars[str(part)]

    found = run_sweep(
        model,
        sweep.candidates,
        jobs,
        encoding,
        halving=sweep.halving,
        options=options,
        watch=watch,
        tell=lambda line: say(line, quiet=quiet),
    )
    runs = [
        _noted(run, sweep.note(found.chosen[job.task_name]))
        for job, run in zip(jobs, found.trained, strict=True)
    ]
    return replace(found, trained=tuple(tested(model, jobs, runs, encoding))), made


def _noted(run: Trained, note: Mapping[str, Any]) -> Trained:
    from prompttransfer.training.sweep import NOTE

    notes = {**run.adaptation.notes, NOTE: dict(note)}
    return replace(run, adaptation=replace(run.adaptation, notes=notes))


def rows_of(found: Swept, task: str) -> list[dict[str, Any]]:
    """The settings of a task, a row each, as they are written and printed."""
    return [_row(one, found.chosen[task] is one.candidate) for one in found.tried if one.task == task]


def _row(one: Tried, chosen: bool) -> dict[str, Any]:
    scores = one.scores
    ended = "not finite" if not one.finite else "stopped early" if one.stopped else "steps"
    return {
        **one.candidate.values,
        "validation": one.mean,
        "lowest seed": min(scores),
        "highest seed": max(scores),
        "seeds": len(scores),
        TAKEN: one.steps,
        "ended": ended,
        "chosen": chosen,
    }


def curves_of(found: Swept, task: str) -> pd.DataFrame:
    """The curves of a task's settings for `analysis.figures.sweep_curves`: a panel a bank, a line a rate."""
    import pandas as pd

    from prompttransfer.training.grids import RATE

    tried = [one for one in found.tried if one.task == task]
    axes = list(tried[0].candidate.values)
    inside = (
        RATE if RATE in axes else max(axes, key=lambda name: len({t.candidate.values[name] for t in tried}))
    )
    rows = []
    for one in tried:
        values = dict(one.candidate.values)
        line = f"{inside} {values.pop(inside)}"
        panel = ", ".join(f"{name} {value}" for name, value in values.items()) or task
        fact = {"panel": panel, "line": line, "stopped": one.stopped}
        fact["chosen"] = found.chosen[task] is one.candidate
        for seed, curve in one.curves.items():
            rows += [{**fact, "seed": seed, "step": point.step, "score": point.score} for point in curve]
    return pd.DataFrame(rows)


def write_sweep(found: Swept, output: Path) -> list[Path]:
    """`sweep-TASK.csv` and its figure for each task of a sweep."""
    import pandas as pd

    from analysis.figures import sweep_curves
    from prompttransfer.cli.tables import write_figure
    from prompttransfer.files import write_text

    paths = []
    for task in found.chosen:
        path = output / f"sweep-{task}.csv"
        # Every number in the fewest digits that say it whole: a finished sweep is shown again from this file.
        text = pd.DataFrame(rows_of(found, task)).to_csv(index=False, lineterminator="\n")
        write_text(path, text)
        figure = sweep_curves(curves_of(found, task), title=f"sweep on {task}")
        paths += [path, *write_figure(figure, path.with_suffix(".png"))]
    return paths


def read_sweep(output: Path, tasks: Sequence[str]) -> dict[str, list[dict[str, Any]]]:
    """Task -> the rows of its `sweep-TASK.csv`, as `records_of` gave them; of tasks whose file is there."""
    import pandas as pd

    kinds = {"validation": float, "lowest seed": float, "highest seed": float, "seeds": int, TAKEN: int}
    found: dict[str, list[dict[str, Any]]] = {}
    for task in tasks:
        path = output / f"sweep-{task}.csv"
        if not path.exists():
            continue
        try:
            table = pd.read_csv(path, dtype=str, keep_default_na=False)
            if TAKEN not in table:  # of an earlier version
                table = table.rename(columns={"steps": TAKEN})
            rows = [{str(name): value for name, value in row.items()} for row in table.to_dict("records")]
            found[task] = [
                {
                    **row,
                    **{name: kind(row[name]) for name, kind in kinds.items()},
                    "chosen": row["chosen"] == "True",
                }
                for row in rows
            ]
        except (KeyError, ValueError) as error:
            raise UserError(
                f"{path} is damaged ({shortened(str(error))}): remove it, or train again with --overwrite"
            ) from None
    return found


def print_sweep(found: Mapping[str, Sequence[Mapping[str, Any]]], output: Path | None) -> None:
    """The settings of every task with their validation scores, the chosen one marked."""
    for task, rows in found.items():
        axes = list(rows[0])[: list(rows[0]).index("validation")]
        chosen = {name: str(row[name]) for row in rows if row["chosen"] for name in axes}
        several = rows[0]["seeds"] > 1
        columns = [*axes, "validation", *(["lowest", "highest"] if several else []), TAKEN, "ended", ""]
        shown = [
            [
                *(str(row[name]) for name in axes),
                number(row["validation"]),
                *([number(row["lowest seed"]), number(row["highest seed"])] if several else []),
                str(row[TAKEN]),
                row["ended"],
                "chosen" if row["chosen"] else "",
            ]
            for row in rows
        ]
        mean = f", mean of {rows[0]['seeds']} seeds" if several else ""
        table(f"settings tried on {task} (best validation score{mean})", columns, shown, left=len(axes))
        said = ", ".join(f"{name} {value}" for name, value in chosen.items())
        say(f"{task}: {said}{_edge(chosen, rows)}")
        if output is not None:
            say(f"written: {output / f'sweep-{task}.csv'}, and its curves as .png and .svg")


def _edge(chosen: Mapping[str, str], rows: Sequence[Mapping[str, Any]]) -> str:
    """A hint where a number was chosen that is the smallest or largest of three and more."""
    edges = []
    for name, value in chosen.items():
        values = dict.fromkeys(str(row[name]) for row in rows)
        try:
            ordered = sorted(values, key=float)
        except ValueError:
            continue
        if len(ordered) > 2 and value in (ordered[0], ordered[-1]):
            edges.append(f"{name} {value} is at the edge of the grid: a better one may lie beyond it")
    return f"; {'; '.join(edges)}" if edges else ""


def records_of(found: Swept) -> dict[str, list[dict[str, Any]]]:
    """Task -> its settings, for machines."""
    return {task: rows_of(found, task) for task in found.chosen}
