"""`study status`, `study explain`: see how far a study is, and where a number is from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from prompttransfer.cli.options import AsJson
from prompttransfer.cli.values import Real, checked

if TYPE_CHECKING:
    from prompttransfer.study.engine.store import Store
    from prompttransfer.study.results.explain import Explanation
    from prompttransfer.study.results.status import Status

SHOWN = 12
"""Failures, running units and inputs that are listed before the rest is only counted."""
Folder = Annotated[str, typer.Argument(help="Folder of a study, or its fsspec URL.")]


@checked
def status(
    folder: Folder,
    watch: Annotated[bool, typer.Option("--watch", help="Show it until nothing is left to do.")] = False,
    every: Annotated[
        float, typer.Option(help="Seconds between two looks with --watch."), Real(0, 86_400)
    ] = 2.0,
    verify: Annotated[bool, typer.Option("--verify", help="Compare every finished cell bit by bit.")] = False,
    as_json: AsJson = False,
) -> None:
    """How far a study is: done, running, failed, blocked, left, time to go."""
    from prompttransfer.cli.common import console, print_json
    from prompttransfer.study.engine.stores import open_store
    from prompttransfer.study.results.status import read_status

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
    import signal
    import time

    from rich.live import Live

    from prompttransfer.cli.common import console
    from prompttransfer.signals import Interrupted, forget
    from prompttransfer.study.results.status import read_status

    with Live(console=console, auto_refresh=False) as live:
        try:
            while True:
                found = read_status(store)
                live.update(drawn(found), refresh=True)
                if not found.total("left"):
                    return
                time.sleep(max(0.1, every))
        except (KeyboardInterrupt, Interrupted) as error:
            if getattr(error, "number", signal.SIGINT) != signal.SIGINT:
                raise
            forget()  # Ctrl-C is how a person stops looking


def drawn(found: Status) -> Any:
    """A line, a table of kinds, what is worked on and what failed."""
    import time

    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    from prompttransfer.study.results.status import spoken

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
    lines += short(
        [f"running: {label}, for {spoken(max(0.0, now - since))}" for label, since in found.running.items()]
    )
    lines += short([f"failed: {f.label} ({f.id}): {f.line}" for f in found.failures])
    lines += short(
        [f"damaged: {name}: {wrong}; `study run` makes it again" for name, wrong in found.damaged.items()]
    )
    lines += short([f"cannot be: {one.line}" for one in found.impossible])
    if found.unused:
        lines.append(f"{found.unused} finished cells are of another version of this study and are not used")
    return Group(table, *(Text(line) for line in lines))


def short(lines: list[str]) -> list[str]:
    """The first lines, and how many more there are."""
    return lines if len(lines) <= SHOWN else [*lines[:SHOWN], f"and {len(lines) - SHOWN} more"]


@checked
def explain(
    folder: Folder,
    cell: Annotated[str, typer.Argument(help="Id of a cell, its beginning, or its label.")],
    as_json: AsJson = False,
) -> None:
    """Where a number comes from: settings, inputs, versions, git commit, time and cost of a cell."""
    from prompttransfer.cli.common import print_json, say
    from prompttransfer.study.engine.stores import open_store
    from prompttransfer.study.results.explain import explain_cell

    found = explain_cell(open_store(folder), cell)
    if as_json:
        print_json(found.as_json())
        return
    for line in explained(found):
        say(line)


def explained(found: Explanation) -> list[str]:
    """An explanation as lines for people."""
    from json import dumps

    from prompttransfer.study.results.status import spoken

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
