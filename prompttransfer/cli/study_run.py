"""`study run`, `study status`, `study explain`: make the cells of a study, see how far it is, see where a number is from."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from prompttransfer.cli.options import AsJson

if TYPE_CHECKING:
    from prompttransfer.study.cell import Graph
    from prompttransfer.study.engine import Summary
    from prompttransfer.study.explain import Explanation
    from prompttransfer.study.status import Status
    from prompttransfer.study.store import Store

SHOWN = 12
"""Failures, running units and inputs that are listed before the rest is only counted."""
Folder = Annotated[str, typer.Argument(help="Folder of a study, or its fsspec URL.")]


def run(
    file: Annotated[str, typer.Argument(help="Study file, or the name of a shipped one.")],
    output: Annotated[
        str | None,
        typer.Option(
            "--output", "-o", help="Folder or fsspec URL of the study; runs/<its name> if not given."
        ),
    ] = None,
    workers: Annotated[
        int | None, typer.Option(help="Processes of this machine; none: this process alone.")
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
    track: Annotated[
        str | None, typer.Option(help="tensorboard, mlflow or csv; nothing if not given.")
    ] = None,
    track_to: Annotated[
        str | None, typer.Option(help="Folder or server of the tracking; <folder>/logs if not given.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Make every cell of a study that is not finished yet, then write its tables and report.

    Killed at any moment, the same command goes on. Several of them on one folder share the work. Exit code 1 if cells
    failed: they are listed, and what does not depend on them was made.
    """
    from prompttransfer.cli.common import print_json, say
    from prompttransfer.study.engine import run_study
    from prompttransfer.study.plan import plan_study
    from prompttransfer.study.shipping import study_path
    from prompttransfer.study.store import open_store
    from prompttransfer.study.tracking import check_tracking, track_record

    check_tracking(track)
    chosen = which_executor(executor, workers, address)
    made = plan_study(file, data=data)
    place = output or f"runs/{made.name}"
    local = dict(made.local)
    if device is not None:
        local["device"] = device
    if track is not None:
        local["tracking"] = [track, track_to or default_tracking(place)]
    store = open_store(place, new=True)
    store.write_text("study.yaml", Path(study_path(file)).read_text(encoding="utf-8"))
    if not as_json:
        say(f"study {made.name}: {len(made.graph.cells)} cells in {place}, {chosen}")
    found = run_study(
        made.graph,
        store,
        local=local,
        executor=chosen,
        options={
            "workers": workers,
            "address": address,
            "gpus": gpus(made.graph) if chosen == "workers" else 0,
        },
        retry_failed=retry_failed,
        verify=verify,
        say=lambda line: say(line, quiet=as_json),
        watch=(lambda record: track_record(record, store.folder(record.id), local)) if track else None,
    )
    notes = write_report(made.graph, store, place, made.spec.report.title or made.name)
    if as_json:
        print_json({**as_record(found), "output": place, "notes": notes})
    else:
        print_summary(found, file, place)
        for note in notes:
            say(note)
    if not found.complete:
        raise typer.Exit(1)


def which_executor(executor: str | None, workers: int | None, address: str | None) -> str:
    """The executor that the options ask for; UserError where they contradict each other."""
    from prompttransfer.study.executors import EXECUTORS
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


def write_report(graph: Graph, store: Store, place: str, title: str) -> list[str]:
    """Write tables and pages of what is finished; lines about what could not be."""
    from prompttransfer.study.reports import write_study_report
    from tasks.errors import UserError

    if "://" in place:
        return [f"tables and report: prompttransfer study report {place} --output FOLDER"]
    try:
        written = write_study_report(graph, store, Path(place), title=title)
    except UserError as error:
        return [f"no report: {error}"]
    return [f"written: {written.page}", *written.notes]


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


def print_summary(found: Summary, file: str, place: str) -> None:
    """What a run came to, and a short list of what failed."""
    from prompttransfer.cli.common import say
    from prompttransfer.study.status import spoken

    say(
        f"{found.made + found.there} of {found.cells} cells finished: {found.made} made in {spoken(found.seconds)}, "
        f"{found.there} were there"
    )
    if not found.failed:
        return
    say(f"{len(found.failed)} failed, {len(found.blocked)} not made because an input failed:")
    print_failures(found.failed)
    say(
        f"tracebacks: {place}/failures; again: prompttransfer study run {file} --output {place} --retry-failed"
    )


def print_failures(failures: Any) -> None:
    """The first of them, one line each."""
    from prompttransfer.cli.common import say

    for report in failures[:SHOWN]:
        say(f"  {report.label} ({report.id}): {report.line}")
    if len(failures) > SHOWN:
        say(f"  and {len(failures) - SHOWN} more")


def status(
    folder: Folder,
    watch: Annotated[bool, typer.Option("--watch", help="Show it until nothing is left to do.")] = False,
    every: Annotated[float, typer.Option(help="Seconds between two looks with --watch.")] = 2.0,
    verify: Annotated[bool, typer.Option("--verify", help="Compare every finished cell bit by bit.")] = False,
    as_json: AsJson = False,
) -> None:
    """How far a study is: done, running, failed, blocked, left, time to go."""
    from prompttransfer.cli.common import console, print_json
    from prompttransfer.study.status import read_status
    from prompttransfer.study.store import open_store

    store = open_store(folder)
    if watch and not as_json:
        watch_status(store, every)
        return
    found = read_status(store, verify=verify)
    if as_json:
        print_json(found.as_json())
    else:
        console.print(drawn(found))


def watch_status(store: Store, every: float) -> None:
    """Draw the status again and again until nothing is left to do, or until the person has seen enough."""
    import time

    from rich.live import Live

    from prompttransfer.cli.common import console
    from prompttransfer.study.status import read_status

    with Live(console=console, auto_refresh=False) as live:
        try:
            while True:
                found = read_status(store)
                live.update(drawn(found), refresh=True)
                if not found.total("left"):
                    return
                time.sleep(max(0.1, every))
        except KeyboardInterrupt:
            return


def drawn(found: Status) -> Any:
    """A line, a table of kinds, what is worked on and what failed."""
    import time

    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    from prompttransfer.study.status import spoken

    togo = "" if found.togo is None or not found.total("left") else f", about {spoken(found.togo)} to go"
    head = ", ".join(
        f"{found.total(name)} {name}" for name in ("done", "running", "failed", "blocked", "left")
    )
    table = Table(header_style="bold", box=None, pad_edge=False)
    for index, name in enumerate(("kind", "cells", "done", "running", "failed", "blocked", "left", "each")):
        table.add_column(name, justify="left" if index == 0 else "right")
    for c in found.kinds:
        counts = (c.cells, c.done, c.running, c.failed, c.blocked, c.left)
        table.add_row(c.kind, *map(str, counts), "-" if c.seconds is None else spoken(c.seconds))
    lines = [f"{found.total('cells')} cells: {head}{togo}"]
    now = time.time()
    lines += short([f"running: {label}, for {spoken(now - since)}" for label, since in found.running.items()])
    lines += short([f"failed: {f.label} ({f.id}): {f.line}" for f in found.failures])
    lines += short(
        [f"damaged: {name}: {wrong}; `study run` makes it again" for name, wrong in found.damaged.items()]
    )
    if found.unused:
        lines.append(f"{found.unused} finished cells are of another version of this study and are not used")
    return Group(table, *(Text(line) for line in lines))


def short(lines: list[str]) -> list[str]:
    """The first lines, and how many more there are."""
    return lines if len(lines) <= SHOWN else [*lines[:SHOWN], f"and {len(lines) - SHOWN} more"]


def explain(
    folder: Folder,
    cell: Annotated[str, typer.Argument(help="Id of a cell, its beginning, or its label.")],
    as_json: AsJson = False,
) -> None:
    """Where a number comes from: settings, inputs, versions, git commit, time and cost of a cell."""
    from prompttransfer.cli.common import print_json, say
    from prompttransfer.study.explain import explain_cell
    from prompttransfer.study.store import open_store

    found = explain_cell(open_store(folder), cell)
    if as_json:
        print_json(found.as_json())
        return
    for line in explained(found):
        say(line)


def explained(found: Explanation) -> list[str]:
    """An explanation as lines for people."""
    from json import dumps

    from prompttransfer.study.status import spoken

    lines = [f"{found.id} {found.label}", f"{found.kind} (version {found.version}), {found.state}"]
    if found.damage:
        lines.append(f"damage: {found.damage}")
    if found.failure:
        attempt = f"failed {found.failure.when} ({found.failure.cause}): {found.failure.line}"
        lines += [attempt, *found.failure.traceback.rstrip().splitlines()]
    if found.record:
        record = found.record
        made = f", with {record.unit_cells - 1} others in one unit" if record.unit_cells > 1 else ""
        lines += [
            f"made {record.started} in {spoken(record.seconds)}{made}; with everything it is made from {spoken(found.above)}",
            f"cost: {', '.join(f'{name} {value}' for name, value in record.cost.items()) or 'none recorded'}",
            f"commit: {record.commit or 'no git checkout'}",
            f"versions: {', '.join(f'{name} {value}' for name, value in record.versions.items())}",
            f"machine: {', '.join(f'{name} {value}' for name, value in record.machine.items())}",
            f"files: {', '.join(f'{name} ({file.bytes} bytes)' for name, file in record.files.items())}",
            f"digest of the files: {record.digest}",
        ]
    lines.append("settings:")
    lines += [f"  {name}: {dumps(value, ensure_ascii=False)}" for name, value in found.settings.items()]
    lines.append("inputs:" if found.inputs else "inputs: none")
    for one in found.inputs:
        state = "" if one.finished else ", not finished"
        again = " (see above)" if one.again else ""
        lines.append(f"{'  ' * one.depth}{one.role}: {one.label} [{one.kind} {one.id}{state}]{again}")
    return lines
