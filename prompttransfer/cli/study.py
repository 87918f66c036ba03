"""`study`: whole experiments from one file. `plan` and `report` are here, the others in study_run.py and study_look.py."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from prompttransfer.cli.options import AsJson
from prompttransfer.cli.study_look import Folder, explain, short, status
from prompttransfer.cli.study_new import new_study
from prompttransfer.cli.study_run import run
from prompttransfer.cli.values import Output, checked

if TYPE_CHECKING:
    from prompttransfer.study.plan.estimate import Estimate
    from prompttransfer.study.plan.lookup import BackboneFacts
    from prompttransfer.study.plan.plan import Plan

study_app = typer.Typer(
    help="Whole experiments from one file: planned, run, resumed, reported. FILE may be the name of a shipped study: "
    "demo, methods, real-smollm2, su2022, su2022-small.",
    no_args_is_help=True,
)


@study_app.command("plan")
@checked
def plan(
    file: Annotated[str, typer.Argument(help="Study file, or the name of a shipped one.")],
    output: Annotated[
        str | None, typer.Option("--output", "-o", help="Folder of the study; runs/<its name> if not given.")
    ] = None,
    cells: Annotated[bool, typer.Option("--cells", help="Also list every cell with its id.")] = False,
    as_json: AsJson = False,
) -> None:
    """Check a study file and print what would run: cells, steps, memory and disk, and what is done already.

    Nothing is run or written. All mistakes of the file are reported together.
    """
    from prompttransfer.cli.common import print_json
    from prompttransfer.study.plan.estimate import estimate
    from prompttransfer.study.plan.plan import make_plan
    from prompttransfer.study.plan.shipped import find_study

    made = make_plan(find_study(file), guess=True)
    folder = output or f"runs/{made.spec.study}"
    done = finished(made, folder)
    costs = estimate(made)
    if as_json:
        print_json(as_record(made, costs, folder, done))
    else:
        print_plan(made, costs, folder, done)
        if cells:
            print_cells(made, done)


def finished(made: Plan, folder: str) -> set[str]:
    """Ids of the plan's cells that are in the folder already."""
    from prompttransfer.study.engine.stores import open_store

    if "://" not in folder and not Path(folder).is_dir():
        return set()
    return set(open_store(folder, new=True).ids()) & set(made.graph.cells)


def as_record(made: Plan, costs: Estimate, folder: str, done: set[str]) -> dict[str, Any]:
    """The plan for machines."""
    return {
        "study": made.spec.study,
        "output": folder,
        "certain": made.facts.certain,
        "notes": list(made.facts.notes),
        "estimate": costs.as_dict(),
        "impossible": [asdict(one) for one in made.graph.impossible],
        "cells": [
            {"id": cell.id, "kind": cell.kind, "label": cell.label, "done": cell.id in done}
            for cell in made.graph.cells.values()
        ],
    }


def print_plan(made: Plan, costs: Estimate, folder: str, done: set[str]) -> None:
    """Models and tasks, the table of kinds, and what it comes to."""
    from prompttransfer.cli.common import say, table
    from prompttransfer.study.plan.estimate import in_words

    spec = made.spec
    methods = f"{len(spec.methods)} methods, " if len(spec.methods) > 1 else ""
    say(
        f"study {spec.study}: {len(spec.backbones)} backbones, {methods}{len(spec.seeds)} seeds, {spec.precision}"
    )
    for side in made.facts.backbones.values():
        for line in side_lines(side):
            say(line)
    columns = ["kind", "cells", "done", "units", "steps", "tokens", "arithmetic", "memory", "disk"]
    table(
        "what would run (a unit is what one process does in one go; memory is that of the largest unit)",
        columns,
        list(plan_rows(made, costs, done)),
    )
    chain = in_words(costs.chain, "FLOP")
    say(
        f"longest chain of units that wait for one another: {chain}; {costs.workers:.0f} equal workers are all it keeps busy"
    )
    left = len(made.graph.cells) - len(done)
    say(f"{left} of {len(made.graph.cells)} cells are left to make in {folder}")
    for line in short([f"cannot be: {one.line}" for one in made.graph.impossible]):
        say(line)
    for note in made.facts.notes:
        say(f"note: {note}")
    if not made.facts.certain:
        say("this is an estimate: the study cannot be run, nor its cells be named, before these are at hand")


def side_lines(side: BackboneFacts) -> list[str]:
    """A backbone and its recipe; of several methods one a line."""
    from prompttransfer.study.methods import PROMPT
    from prompttransfer.study.plan.estimate import in_words

    recipes = [method.refused or method.told for method in side.methods]
    head = f"{side.label} ({side.family}, {in_words(side.parameters)}): {len(side.tasks)} tasks"
    if [method.label for method in side.methods] == [PROMPT]:
        return [f"{head}; {recipes[0]}"]
    return [
        head,
        *(
            f"  {method.label} ({in_words(method.values)} values): {recipe}"
            for method, recipe in zip(side.methods, recipes, strict=True)
        ),
    ]


def plan_rows(made: Plan, costs: Estimate, done: set[str]) -> Iterator[list[str]]:
    """What each kind of cells costs, then all together; a dash for what costs nothing."""
    from prompttransfer.study.plan.estimate import in_words

    for kind, cost in [*costs.kinds.items(), ("all", costs.total)]:
        there = sum(cell.id in done for cell in made.graph.cells.values() if kind in (cell.kind, "all"))
        amounts = [(cost.steps, ""), (cost.tokens, ""), (cost.operations, "FLOP"), (cost.memory, "B")]
        spent = [in_words(amount, unit) if amount else "-" for amount, unit in amounts]
        yield [kind, str(cost.cells), str(there), str(cost.units), *spent, in_words(cost.disk, "B")]


def print_cells(made: Plan, done: set[str]) -> None:
    """Every cell, in an order in which inputs come first."""
    from prompttransfer.cli.common import table

    rows = [
        [cell.id, cell.kind, cell.label, "done" if cell.id in done else ""]
        for cell in made.graph.cells.values()
    ]
    table("cells", ["id", "kind", "what it is", ""], rows, left=4)


study_app.command("new")(new_study)
study_app.command("run")(run)
study_app.command("status")(status)


@study_app.command("report")
@checked
def report(
    folder: Folder,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Where to write; the study's own place if not given."),
        Output(),
    ] = None,
    title: Annotated[str, typer.Option(help="Title of the pages; that of the study file if not given.")] = "",
    as_json: AsJson = False,
) -> None:
    """Write the tables of all results with their statistics, and the pages of the study, from what is finished."""
    from prompttransfer.cli.tables import say_written
    from prompttransfer.cli.terminal import say_line
    from prompttransfer.study.engine.store import read_graph
    from prompttransfer.study.engine.stores import open_store
    from prompttransfer.study.results.report import write_own_report, write_study_report

    store = open_store(folder)
    graph, named = read_graph(store), title or title_of(store.read_text("study.yaml"))
    if output is None:
        written = write_own_report(graph, store, title=named)
    else:
        written = write_study_report(graph, store, output, title=named)
    say_written(
        written.files,
        as_json,
        {"missing": written.missing, "notes": list(written.notes)} if as_json else None,
    )
    if not as_json:
        if "systems" in written.tables:
            print_systems(written.tables["systems"])
        else:
            print_comparisons(written.tables["comparisons"])
        for note in written.notes:
            say_line(f"note: {note}")


def title_of(text: str | None) -> str:
    """The title, else the name, of the study file that was kept with the results."""
    from prompttransfer.study.plan.reading import parse_study
    from tasks.errors import UserError

    try:
        spec = parse_study(text or "", "study.yaml").spec
    except UserError:  # its data folder or task files may be on another machine
        return ""
    return spec.report.title or spec.study


def print_systems(found: Any) -> None:
    """Systems on few rows beside the first."""
    from prompttransfer.cli.common import say, table
    from prompttransfer.study.results.systems import PEOPLE, rows_for_people, system_lines

    table("systems on few rows, and differences to the first", PEOPLE, rows_for_people(found), left=3)
    for line in system_lines(found):
        say(line)


def print_comparisons(found: Any) -> None:
    """The comparisons over tasks, or over seeds where these have an interval."""
    from prompttransfer.cli.common import number, table
    from prompttransfer.study.results.report import titles

    name = titles(found)
    rows = [
        [
            str(row.family),
            name(str(row.backbone), str(row.method)),
            str(row.comparison),
            str(row.over),
            number(row.value),
            f"{number(row.low)} to {number(row.high)}" if row.low == row.low and row.low is not None else "-",
            number(row.p_holm),
            str(row.significant) or ("one seed" if row.seeds < 2 else "cannot be"),
            f"{row.tasks} x {row.seeds}",
        ]
        for row in found.itertuples(index=False)
    ]
    columns = [
        "family",
        "model",
        "comparison",
        "over",
        "mean",
        "95 % interval",
        "p (Holm)",
        "significant",
        "tasks x seeds",
    ]
    table("comparisons: differences of scores, ratios of steps for speed-ups", columns, rows, left=4)
    if any(row[-2] == "cannot be" for row in rows):
        typer.echo(
            "cannot be: so few pairs, corrected for so many comparisons, can give no p of 0.05 or less, whatever they are"
        )


study_app.command("explain")(explain)
