"""The runs that are tried for a cell, and the one that is kept: the best by validation rows (training/contest.py).

A cell of one setting and one start has one run. What was tried lies beside what is kept, in `tried.json`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prompttransfer.files import write_json
from prompttransfer.study.cell import Cell, Context
from prompttransfer.study.contents import TRIED
from prompttransfer.study.kinds.loading import prompt_of, setting
from prompttransfer.study.methods import METHOD, TUNE, with_length
from prompttransfer.study.methods import PROMPT as PROMPT_TUNING
from prompttransfer.study.tuning import SOURCE, brought_to, grid_of, halves

if TYPE_CHECKING:
    from prompttransfer.adaptations.method import Method
    from prompttransfer.adaptations.starts import Start
    from prompttransfer.backbones.base import Backbone
    from prompttransfer.backbones.layouts import Encoding
    from prompttransfer.training.contest import Contestant
    from prompttransfer.training.grids import Candidate
    from prompttransfer.training.recipes import Recipe
    from prompttransfer.training.train import Job, Trained


def method_of(cell: Cell) -> Method:
    """The method that a cell names, with the length of its recipe."""
    from prompttransfer.adaptations.methods import parse_method

    length = setting(cell.settings, "recipe").get("length", 0)
    return parse_method(with_length(str(cell.settings.get(METHOD, PROMPT_TUNING)), length))


def recipe_of(cell: Cell) -> Recipe:
    """The recipe that a cell names."""
    from prompttransfer.training.recipes import Recipe

    return Recipe(**setting(cell.settings, "recipe"), source="the study's file")


def candidates_of_cell(cell: Cell, context: Context) -> list[Candidate]:
    """What a cell tries, in the order of its grid."""
    from prompttransfer.training.grids import Candidate, candidates_from

    grid, recipe, brought = grid_of(cell), recipe_of(cell), brought_to(cell)
    if not grid:
        return [Candidate({}, started_method(cell, context), recipe)]
    if SOURCE in cell.inputs:
        method = started_method(cell, context)
        return [replace(one, method=method) for one in candidates_from(PROMPT_TUNING, recipe, grid, brought)]
    return candidates_from(str(cell.settings.get(METHOD, PROMPT_TUNING)), recipe, grid, brought)


def started_method(cell: Cell, context: Context) -> Method:
    """The method of a cell; of a run from a member that was chosen among several settings that member's."""
    if SOURCE in cell.inputs and TUNE in cell.settings:
        return prompt_of(cell, SOURCE, context).method
    return method_of(cell)


@dataclass
class Try:
    """One run of a cell."""

    cell: Cell
    candidate: Candidate
    job: Job
    contestant: Contestant | None = None
    """It beside the others of its cell, where it trains."""
    result: Trained | None = None
    """What came of it."""


@dataclass
class TriedBank:
    """What trains together: runs that differ in their rate alone."""

    candidate: Candidate
    """The first of its candidates; the others have other rates at most."""
    tries: list[Try] = field(default_factory=list)


def tries_of(
    cell: Cell, job: Job, candidates: Sequence[Candidate], starts: Mapping[Method, Sequence[Start]]
) -> list[Try]:
    """Every start with every setting; of several each job has a number behind its name."""
    from prompttransfer.training.grids import RATE

    job = replace(job, name=name_of(cell, job))
    count = len(starts[candidates[0].method])
    found = [
        Try(
            cell,
            one,
            replace(job, start=starts[one.method][number], lr=one.recipe.lr if RATE in one.values else None),
        )
        for number in range(count)
        for one in candidates
    ]
    if len(found) > 1:
        for place, one in enumerate(found):
            one.job = replace(one.job, name=f"{job.name}-{place}")
    return found


def name_of(cell: Cell, job: Job) -> str:
    """What is kept of a cell is called."""
    if "split_seed" not in cell.settings:
        return job.name
    return f"{job.task.name}-n{cell.settings['limit_train']}-s{job.seed}"


def banks_of(tries: Sequence[Try]) -> list[TriedBank]:
    """The banks of a unit, in the order in which they come first."""
    found: dict[object, TriedBank] = {}
    for one in tries:
        key = one.candidate.method, replace(one.candidate.recipe, lr=1.0)
        found.setdefault(key, TriedBank(one.candidate)).tries.append(one)
    return list(found.values())


def train_tries(
    backbone: Backbone, tries: Sequence[Sequence[Try]], encoding: Encoding, context: Context, folder: Path
) -> list[int]:
    """Train all runs of a unit, cell by cell in `tries`; the number of the best of each cell. State is kept in `folder`."""
    from prompttransfer.training.contest import Bank, Contestant, decide
    from prompttransfer.training.train import TrainingOptions, begin_run
    from prompttransfer.transfers.retrieval import with_retrieved

    banks, placed = [], []
    for bank in banks_of([one for group in tries for one in group]):
        method, recipe = bank.candidate.method, bank.candidate.recipe
        asked = [one.job for one in bank.tries]
        jobs = with_retrieved(backbone, asked, recipe, encoding, method, tell=context.tell)
        called = f"of {method}" if METHOD in bank.tries[0].cell.settings else "prompts"
        context.tell(f"{len(jobs)} {called} in one bank, {recipe.told(method)}")
        options = TrainingOptions(state_folder=folder)
        run = begin_run(backbone, jobs, recipe, encoding, method=method, options=options)
        for number, (one, job) in enumerate(zip(bank.tries, jobs, strict=True)):
            one.job = job
            one.contestant = Contestant(job.name, one.candidate.recipe, ((run, number),))
        banks.append(Bank(run, recipe.steps))
        placed.append((run, bank.tries))
    names = [f"{group[0].cell.label} ({group[0].cell.id})" for group in tries]
    places = {
        name: [one.contestant for one in group if one.contestant]
        for name, group in zip(names, tries, strict=True)
    }
    best = decide(banks, places, halving=halves(tries[0][0].cell), tell=context.tell)
    for run, runs in placed:
        for one, result in zip(runs, run.results(), strict=True):
            one.result = result
    return [best[name] for name in names]


def kept_of(tries: Sequence[Try], best: int) -> Trained:
    """The best run of a cell, with what else was tried in its notes."""
    kept = result_of(tries[best])
    if len(tries) == 1:
        return kept
    told: list[dict[str, Any]] = [
        {
            **{axis: value for axis, value in one.candidate.values.items() if axis != "lr"},
            "rate": one.candidate.recipe.lr,
            "start": str(one.job.start),
            "validation": best_score(one),
        }
        for one in tries
    ]
    name = tries[best].job.name.removesuffix(f"-{best}")
    adaptation = replace(kept.adaptation, name=name, notes={**kept.adaptation.notes, "tried": told})
    return replace(kept, adaptation=adaptation)


def write_tried(tries: Sequence[Try], best: int, folder: Path) -> None:
    """Every run of a cell with its setting, score and curve; nothing where there was one."""
    if len(tries) == 1:
        return
    rows = []
    for number, one in enumerate(tries):
        found = result_of(one)
        rows.append(
            {
                "setting": dict(one.candidate.values),
                "start": str(one.job.start),
                "validation": best_score(one),
                "steps": found.steps,
                "ended": "stopped early" if found.ended == "dropped" else found.ended,
                "chosen": number == best,
                "curve": [[point.step, point.score] for point in found.adaptation.curve],
            }
        )
    write_json(folder / TRIED, {"tried": rows})


def result_of(one: Try) -> Trained:
    """What came of a run that has trained."""
    assert one.result is not None
    return one.result


def best_score(one: Try) -> float:
    """Its best validation score."""
    return max(point.score for point in result_of(one).adaptation.curve)


def by_reserved(tries: Sequence[Try]) -> dict[int, list[Try]]:
    """Positions in front of the text -> the runs that take as many."""
    found: dict[int, list[Try]] = {}
    for one in tries:
        found.setdefault(one.candidate.method.reserved, []).append(one)
    return found


def taken(tries: Sequence[Try]) -> dict[str, int]:
    """Steps and rows of all runs of a cell."""
    steps = [result_of(one).steps for one in tries]
    rows = sum(count * one.candidate.recipe.batch for count, one in zip(steps, tries, strict=True))
    return {"steps": sum(steps), "rows": rows}
