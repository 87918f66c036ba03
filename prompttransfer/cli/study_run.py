"""`study run`: make the cells of a study."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from prompttransfer.cli.options import AsJson, Devices, Nodes, Strategy
from prompttransfer.cli.study_look import short
from prompttransfer.cli.values import Whole, checked
from prompttransfer.distributed.placement import SINGLE, Placement

if TYPE_CHECKING:
    import pandas as pd

    from prompttransfer.study.cell import Graph, Json
    from prompttransfer.study.engine.engine import Summary
    from prompttransfer.study.engine.store import Store


@checked
def run(
    file: Annotated[str, typer.Argument(help="Study file, or the name of a shipped one.")],
    output: Annotated[
        str | None,
        typer.Option(
            "--output", "-o", help="Folder or fsspec URL of the study; runs/<its name> if not given."
        ),
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(help="Processes of this machine; none: this process alone."),
        Whole(1, 10_000),
    ] = None,
    executor: Annotated[str | None, typer.Option(help="embedded, workers or ray.")] = None,
    address: Annotated[str | None, typer.Option(help="Of the Ray cluster, as ray.init takes it.")] = None,
    retry_failed: Annotated[bool, typer.Option("--retry-failed", help="Try failed cells again.")] = False,
    verify: Annotated[
        bool, typer.Option("--verify", help="Compare every finished cell bit by bit first.")
    ] = False,
    data: Annotated[
        Path | None, typer.Option(help="Folder of local rows; before that of the study file.")
    ] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu, cuda, ...")] = None,
    devices: Devices = 1,
    strategy: Strategy = "auto",
    nodes: Nodes = 1,
    track: Annotated[
        str | None, typer.Option(help="tensorboard, mlflow, wandb or csv; nothing if not given.")
    ] = None,
    track_to: Annotated[
        str | None, typer.Option(help="Folder or server of the tracking; <folder>/logs if not given.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Make every cell of a study that is not finished yet, then write its tables and report.

    Killed at any moment, the same command goes on. Several of them on one folder share the work. With --devices each
    unit is worked on by several devices at once, one unit after the other. Exit code 1 if cells failed: they are listed,
    and what does not depend on them was made.
    """
    given = dict(locals())
    placement = Placement(devices, strategy, nodes)
    which_executor(executor, workers, address, placement)
    for name in ("devices", "strategy", "nodes"):
        del given[name]
    if not placement.several:
        complete = make_study(**given, placement=placement)
    else:
        from prompttransfer.distributed.launching import run_on
        from prompttransfer.distributed.processes import check_devices
        from prompttransfer.signals import keeping

        check_devices(placement, device or "auto")
        with keeping(lambda: f"finished cells are kept in {output or 'the study'}; the same command goes on"):
            complete = run_on(placement, make_study, **given, placement=placement)
    if not complete:
        raise typer.Exit(1)


def make_study(
    file: str,
    output: str | None,
    workers: int | None,
    executor: str | None,
    address: str | None,
    retry_failed: bool,
    verify: bool,
    data: Path | None,
    device: str | None,
    track: str | None,
    track_to: str | None,
    as_json: bool,
    placement: Placement,
) -> bool:
    """Make a study's cells and write its report; whether all of them are there. A following process returns True."""
    from prompttransfer.cli.common import say
    from prompttransfer.reports.calls import Call
    from prompttransfer.study.engine.earlier import over_finished
    from prompttransfer.study.engine.engine import run_study
    from prompttransfer.study.engine.stores import open_store
    from prompttransfer.study.plan.plan import plan_study
    from prompttransfer.study.plan.shipped import study_path
    from prompttransfer.study.results.report import RUN_CALL
    from prompttransfer.study.results.tracking import check_tracking, open_tracker

    processes = None
    local: dict[str, Json] = {"device": device} if device else {}
    if placement.several:
        from prompttransfer.distributed.processes import choose_device, join
        from prompttransfer.study.engine.distributed_executor import dismiss, follow

        processes = join(placement, choose_device(device or "auto").type)
        if not processes.first:
            follow(processes)
            return True
        local["placement"] = [placement.devices, placement.strategy, placement.nodes]
    check_tracking(track, track_to)
    chosen = which_executor(executor, workers, address, placement)
    made = plan_study(file, data=data)
    place = output or f"runs/{made.name}"
    tell = partial(say, quiet=as_json)
    tracker = open_tracker(track, track_to or default_tracking(place), tell) if track else None
    store = open_store(place, new=True)
    store.write_text("study.yaml", Path(study_path(file)).read_text(encoding="utf-8"))
    named = Path(file) if Path(file).is_file() else file
    asked = {"data": data, "device": device}
    store.write_text(
        RUN_CALL, Call(verb="study run").with_options(file=named, output=place, **asked).model_dump_json()
    )
    made, changes = over_finished(made, store)
    for line in changes:
        tell(line)
    tell(f"study {made.name}: {len(made.graph.cells)} cells in {place}, {chosen}")
    found = run_study(
        made.graph,
        store,
        local={**made.local, **local},
        executor=chosen,
        options={
            "workers": workers,
            "address": address,
            "gpus": gpus(made.graph) if chosen == "workers" else 0,
            "processes": processes,
        },
        retry_failed=retry_failed,
        verify=verify,
        say=tell,
        watch=(lambda record: tracker.log(record, store.folder(record.id))) if tracker else None,
    )
    if processes is not None:
        dismiss(processes)
    notes, results = write_report(made.graph, store, made.spec.report.title or made.name)
    if tracker and tracker.stopped:
        notes.append(tracker.stopped)
    print_end(found, notes, file, place, as_json, results)
    return found.complete


def which_executor(
    executor: str | None, workers: int | None, address: str | None, placement: Placement = SINGLE
) -> str:
    """The executor that the options ask for; UserError where they contradict each other."""
    from prompttransfer.study.engine.executor_kinds import EXECUTORS
    from tasks.errors import UserError, unknown

    if executor is not None and executor not in EXECUTORS:
        raise unknown("executor", executor, EXECUTORS)
    chosen = executor or ("workers" if workers is not None else "ray" if address else "embedded")
    if workers is not None and chosen != "workers":
        raise UserError(
            f"--workers is for processes of this machine, not for --executor {chosen}: leave one out"
        )
    if address and chosen != "ray":
        raise UserError(f"--address is that of a Ray cluster, not for --executor {chosen}: leave one out")
    if chosen == "workers" and (workers is None or workers < 1):
        raise UserError(f"--workers {workers}: give a number of processes from 1 on")
    if placement.several and chosen != "embedded":
        raise UserError(
            f"--devices {placement.devices} gives each unit several devices, one unit after the other: leave it out, or "
            f"leave out what asks for --executor {chosen}"
        )
    return chosen


def gpus(graph: Graph) -> int:
    """GPUs to share out among workers; torch is only asked where a unit could use one."""
    if not any(unit.resources.get("gpu") for unit in graph):
        return 0
    import torch

    return torch.cuda.device_count()


def default_tracking(place: str) -> str:
    """Beside the cells, for a study in a folder."""
    from tasks.errors import UserError

    if "://" in place:
        raise UserError(f"--track beside {place} needs a place of its own: give one with --track-to")
    return str((Path(place) / "logs").resolve())


def write_report(graph: Graph, store: Store, title: str) -> tuple[list[str], pd.DataFrame | None]:
    """Write tables and pages of what is finished; lines about it, of which the last says where the page is, and all numbers."""
    from prompttransfer.study.results.report import write_own_report
    from tasks.errors import UserError

    try:
        written = write_own_report(graph, store, title=title)
    except UserError as error:
        return [f"no report: {error}"], None
    return [*written.notes, f"the page: {written.page}"], written.tables["results"]


def print_end(
    found: Summary,
    notes: list[str],
    file: str,
    place: str,
    as_json: bool,
    results: pd.DataFrame | None = None,
) -> None:
    """What a run came to, for people (with the matrices, who is ahead, and last where the page is) or for machines."""
    from prompttransfer.cli.common import print_json, say

    if as_json:
        print_json({**as_record(found), "output": place, "notes": notes})
        return
    for line in summary_lines(found, file, place):
        say(line)
    if results is not None:
        print_outcome(results)
    for line in notes:
        say(line)


def print_outcome(results: pd.DataFrame) -> None:
    """The matrix of each model and method, and who is ahead."""
    from prompttransfer.cli.common import say, table
    from prompttransfer.study.methods import called
    from prompttransfer.study.results.outcome import mean_matrices, shown, winners

    for (backbone, method), matrix in mean_matrices(results).items():
        columns, rows = shown(matrix)
        title = f"zero-shot transfer on {called(backbone, method)}, test scores, mean over seeds (rows: sources, columns: targets)"
        table(title, ["", *columns], [[name, *cells] for name, cells, _ in rows])
    for line in winners(results):
        say(line)


def as_record(found: Summary) -> dict[str, Any]:
    """The end of a run for machines."""
    return {
        "cells": found.cells,
        "made": found.made,
        "there": found.there,
        "seconds": found.seconds,
        "failed": [{"id": f.id, "label": f.label, "cause": f.cause, "line": f.line} for f in found.failed],
        "blocked": [cell.id for cell in found.blocked],
    }


def summary_lines(found: Summary, file: str, place: str) -> list[str]:
    """What was made, and a short list of what failed."""
    from prompttransfer.study.results.status import spoken

    lines = [
        f"{found.made + found.there} of {found.cells} cells finished: {found.made} made in {spoken(found.seconds)}, "
        f"{found.there} were there"
    ]
    if found.failed:
        lines.append(f"{len(found.failed)} failed, {len(found.blocked)} not made because an input failed:")
        lines += [f"  {line}" for line in short([f"{f.label} ({f.id}): {f.line}" for f in found.failed])]
        again = f"prompttransfer study run {file} --output {place} --retry-failed"
        lines.append(f"tracebacks: {place}/failures; again: {again}")
    return lines
