"""The run of a study: every unit of a graph in an order in which inputs come first, until nothing is left to do.

The run holds no truth. What is finished is in the store, who is at work is in the leases; a run that is killed, started
again or started twice reads both and goes on. Its own state (`_Run`) is only what it still waits for.
"""

from __future__ import annotations

import heapq
import shutil
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from prompttransfer import signals
from prompttransfer.files import clear_leftovers
from prompttransfer.study.cell import Cell, Graph, Json, Unit
from prompttransfer.study.engine.executor_kinds import EXECUTORS
from prompttransfer.study.engine.executors import Executor, stopping
from prompttransfer.study.engine.leases import swept
from prompttransfer.study.engine.records import CellRecord, FailureRecord
from prompttransfer.study.engine.store import Store, read_failures, write_failure, write_graph
from prompttransfer.study.engine.work import Outcome, Tell, failure, workplace_for
from prompttransfer.study.results.status import spoken
from tasks.errors import MachineError, UnreadableError, unknown

KINDS = "prompttransfer.study.kinds:KINDS"
DAMAGED_AGAIN = 3
"""A cell found damaged this often in one run is given up: the disk is at fault."""
FIRST_LOOK, LONGEST_LOOK = 0.02, 1.0
"""Seconds between looks at what another run is working on."""

Watcher = Callable[[CellRecord], None]


@dataclass(frozen=True)
class Summary:
    """What a run came to."""

    cells: int
    made: int
    """By this run."""
    there: int
    """Finished before it, or by another run meanwhile."""
    failed: tuple[FailureRecord, ...]
    blocked: tuple[Cell, ...]
    """Not made because an input failed."""
    seconds: float

    @property
    def complete(self) -> bool:
        """Whether every cell of the study is finished."""
        return self.made + self.there == self.cells


def run_study(
    graph: Graph,
    store: Store,
    *,
    kinds: str = KINDS,
    local: Mapping[str, Json] | None = None,
    executor: str = "embedded",
    options: Mapping[str, Any] | None = None,
    retry_failed: bool = False,
    verify: bool = False,
    say: Tell = print,
    watch: Watcher | None = None,
) -> Summary:
    """Make every cell of `graph` that is not finished in `store`, and return what was made and what failed.

    `kinds` names the dict of kinds (`package.module:NAME`), which worker processes import themselves; `executor` is a
    key of EXECUTORS and `options` are its own (workers, gpus, address). Failed cells of an earlier run are left alone
    unless the machine was at fault or `retry_failed` is set. With `verify` every finished cell is compared bit by bit
    first, otherwise by its sizes. `watch` gets the record of every cell that this run commits.

    Raises MachineError when the disk is full: nothing more can be written, and nothing was lost. Raises
    UnreadableError for a file that cannot be read now: it is neither damaged nor missing, so nothing is made over it.
    """
    if executor not in EXECUTORS:
        raise unknown("executor", executor, EXECUTORS)
    started = time.monotonic()
    run = _Run(graph, store, say, watch)
    run.look(verify=verify)
    store.check_writable(graph.cells.keys() - run.done)
    write_graph(store, graph)
    run.tidy()
    run.take_failures(retry_failed)
    if run.left:
        where = workplace_for(store, kinds, local or {})
        with (
            signals.keeping(run.kept),
            swept(store.work / "leases"),
            stopping(EXECUTORS[executor](where, say, store, options or {})) as at,
        ):
            run.work(at)
    return run.summary(time.monotonic() - started)


def kept_words(finished: int, cells: int, place: str) -> str:
    """What a run that is stopped leaves."""
    return f"{finished} of {cells} cells are finished in {place}; the same command goes on with the others"


@dataclass
class _Run:
    graph: Graph
    store: Store
    say: Tell
    watch: Watcher | None
    done: set[str] = field(default_factory=set)
    """Cells."""
    made: set[str] = field(default_factory=set)
    failed: dict[str, FailureRecord] = field(default_factory=dict)
    blocked: dict[str, None] = field(default_factory=dict)
    """Cells, in the order in which they were found."""
    running: dict[str, Unit] = field(default_factory=dict)
    elsewhere: dict[str, Unit] = field(default_factory=dict)
    """Units that another run holds."""
    suspects: set[str] = field(default_factory=set)
    """Cells that are there and damaged; whoever gets the lease of their unit throws them away and says so."""
    kills: Counter[str] = field(default_factory=Counter)
    damages: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self.place = {unit.id: index for index, unit in enumerate(self.graph)}
        self.inputs = {
            unit.id: {name for cell in unit.cells for name in cell.inputs.values()} for unit in self.graph
        }
        self.users: dict[str, list[Unit]] = defaultdict(list)
        for unit in self.graph:
            for name in self.inputs[unit.id]:
                self.users[name].append(unit)
        self.ready: list[tuple[int, str]] = []
        self.queued: set[str] = set()
        self.progress = _Progress(self)

    def look(self, *, verify: bool) -> None:
        """See what is finished; what is damaged goes back to the unit that makes it."""
        for name in self.store.ids() & self.graph.cells.keys():
            if self.store.damage(name, digests=verify):
                self.suspects.add(name)
            else:
                self.done.add(name)

    def tidy(self) -> None:
        """Remove what a run that was killed right after the last commit of a unit left of its work, and what was thrown away."""
        finished = {unit.id for unit in self.graph if all(cell.id in self.done for cell in unit.cells)}
        scratch = self.store.work / "scratch"
        clear_leftovers(scratch)
        for folder in (*scratch.glob("*"), *scratch.glob("filled/*")):
            if folder.name.split("-")[0] in (*finished, "discarded"):
                shutil.rmtree(folder, ignore_errors=True)

    def take_failures(self, retry: bool) -> None:
        """Leave failures of earlier runs alone, or forget them so that they are tried again."""
        known = {
            name: report
            for name, report in read_failures(self.store).items()
            if name in self.graph.cells and name not in self.done
        }
        for name, report in known.items():
            if retry or report.passing:
                self.store.remove_text(f"failures/{name}.json")
                if not report.passing:  # what it kept may be what made it fail
                    folder = self.store.work / "scratch" / self.graph.unit_of[name].id
                    shutil.rmtree(folder, ignore_errors=True)
            else:
                self.failed[name] = report
        if again := len(known) - len(self.failed):
            self.say(f"{again} cells that failed in an earlier run are tried again")
        if self.failed:
            self.say(
                f"{len(self.failed)} cells that failed in an earlier run are left alone; --retry-failed tries them"
            )
        for name in list(self.failed):
            self.block(name)
        self.queue(self.graph)

    @property
    def left(self) -> int:
        """Cells that may still be made."""
        return len(self.graph.cells) - len(self.done) - len(self.failed) - len(self.blocked)

    def queue(self, units: Iterable[Unit]) -> None:
        """Queue those units that have all inputs and something left to make."""
        for unit in units:
            open_cells = any(cell.id not in self.done and cell.id not in self.failed for cell in unit.cells)
            if open_cells and self._can_start(unit) and unit.id not in self.queued:
                self.queued.add(unit.id)
                heapq.heappush(self.ready, (self.place[unit.id], unit.id))

    def _can_start(self, unit: Unit) -> bool:
        away = unit.id in self.running or unit.id in self.elsewhere
        return not away and self.inputs[unit.id] <= self.done

    def work(self, executor: Executor) -> None:
        """Until nothing is left that could be made."""
        pause = FIRST_LOOK
        looked = time.monotonic()
        while self.ready or self.running or self.elsewhere:
            signals.check()
            self.fill(executor)
            if self.running:
                outcomes = executor.outcomes()
                for outcome in outcomes:
                    self.take(outcome, executor)
                if any(outcome.state != "busy" for outcome in outcomes):
                    pause = FIRST_LOOK
            elif self.elsewhere and not self.ready:
                time.sleep(pause)
                pause = min(2 * pause, LONGEST_LOOK)
            if self.elsewhere and (not self.ready or time.monotonic() - looked > LONGEST_LOOK):
                self.look_elsewhere()
                looked = time.monotonic()

    def fill(self, executor: Executor) -> None:
        """Give the executor as much as it takes; what another run finished meanwhile needs no work."""
        while self.ready and len(self.running) < executor.slots:
            _, name = heapq.heappop(self.ready)
            self.queued.discard(name)
            unit = self.graph.by_id[name]
            if not self._can_start(unit):
                continue  # an input was found damaged meanwhile
            if self._finished(unit):
                self.finish(unit)
                continue
            self.running[name] = unit
            executor.submit(unit)

    def _finished(self, unit: Unit) -> bool:
        return all(self._is_there(cell) for cell in unit.cells)

    def _is_there(self, cell: Cell) -> bool:
        return cell.id in self.done or (cell.id not in self.suspects and self.store.has(cell.id))

    def take(self, outcome: Outcome, executor: Executor) -> None:
        """Go on from what became of a unit."""
        unit = self.running.pop(outcome.unit)
        for record in outcome.committed:
            self.made.add(record.id)
            if self.watch:
                self.watch(record)
        if outcome.state == "busy":
            self.elsewhere[unit.id] = unit
        elif outcome.state == "done":
            self.finish(unit)
            self.progress.made(unit, outcome)
        elif outcome.state == "failed":
            self.fail(unit, outcome.failures)
        elif outcome.state == "damaged":
            self.lose(unit, outcome)
        elif outcome.state == "killed":
            self.killed(unit, outcome, executor)
        elif outcome.state == "unreadable":
            raise UnreadableError(outcome.line)
        else:
            raise MachineError(f"{outcome.line}: nothing was lost; free some space and run again")

    def finish(self, unit: Unit, *, but: Iterable[str] = ()) -> None:
        """All cells of a unit but those are there: what waits for them may start."""
        new = {cell.id for cell in unit.cells} - set(but) - self.done
        self.done |= new
        self.suspects -= new
        for name in new:
            self.queue(self.users[name])

    def fail(self, unit: Unit, reports: Iterable[FailureRecord]) -> None:
        """Keep the failures, mark what depends on them, go on with the rest."""
        reports = list(reports)
        for report in reports:
            self.failed[report.id] = report
            self.say(f"failed: {report.label} ({report.id}): {report.line}")
        for report in reports:
            self.block(report.id)
        self.finish(unit, but=[report.id for report in reports])

    def block(self, name: str) -> None:
        """Mark everything that depends on a cell, however far, and is not finished."""
        found = [name]
        while found:
            for unit in self.users[found.pop()]:
                for cell in unit.cells:
                    if not any(cell.id in those for those in (self.blocked, self.done, self.failed)):
                        self.blocked[cell.id] = None
                        found.append(cell.id)

    def lose(self, unit: Unit, outcome: Outcome) -> None:
        """An input turned out damaged: make it again first."""
        name = outcome.damaged
        cell, maker = self.graph.cells[name], self.graph.unit_of[name]
        self.damages[name] += 1
        self.done.discard(name)
        if self.damages[name] >= DAMAGED_AGAIN:
            line = f"found damaged {self.damages[name]} times, the disk may be failing: {outcome.line}"
            self.give_up(maker, [failure(cell, "machine", line, "", None)])
            return
        self.suspects.add(name)
        self.queue([maker])

    def killed(self, unit: Unit, outcome: Outcome, executor: Executor) -> None:
        """Try a unit again whose process was killed, until it was tried often enough."""
        self.kills[unit.id] += 1
        if self.kills[unit.id] < executor.attempts:
            self.say(f"killed: {unit.label}: {outcome.line}; it is tried again")
            self.queue([unit])
            return
        line = f"tried {self.kills[unit.id]} times; {outcome.line}"
        missing = [cell for cell in unit.cells if not self.store.has(cell.id)]
        self.give_up(unit, [failure(cell, "killed", line, "", None) for cell in missing])

    def give_up(self, unit: Unit, reports: list[FailureRecord]) -> None:
        """Failures that this process saw and the working one could not report."""
        for report in reports:
            write_failure(self.store, report)
        self.fail(unit, reports)

    def look_elsewhere(self) -> None:
        """Take over what another run finished or failed, and try again for what it let go."""
        units, self.elsewhere = list(self.elsewhere.values()), {}
        for unit in units:
            if self._finished(unit):
                self.finish(unit)
                continue
            missing = [cell.id for cell in unit.cells if not self._is_there(cell)]
            # Reports are written one after the other: a unit has failed when every cell is there or has one.
            if all(self.store.read_text(f"failures/{name}.json") is not None for name in missing):
                known = read_failures(self.store)
                self.fail(unit, [known[name] for name in missing if name in known])
            else:
                self.queue([unit])

    def kept(self) -> str:
        """What a stop in this moment would leave, in words."""
        return kept_words(len(self.done), len(self.graph.cells), self.store.place)

    def summary(self, seconds: float) -> Summary:
        """What the run came to."""
        order = list(self.graph.cells)
        return Summary(
            cells=len(order),
            made=len(self.made & self.done),
            there=len(self.done - self.made),
            failed=tuple(self.failed[name] for name in order if name in self.failed),
            blocked=tuple(self.graph.cells[name] for name in order if name in self.blocked),
            seconds=seconds,
        )


class _Progress:
    """A line for every unit that was made, but no more than one a second."""

    def __init__(self, run: _Run):
        self.run = run
        self.started = time.monotonic()
        self.said = float("-inf")
        self.seconds: dict[str, list[float]] = defaultdict(list)

    def made(self, unit: Unit, outcome: Outcome) -> None:
        """One unit is done."""
        at = time.monotonic()
        if not outcome.committed or (at - self.said < 1 and self.run.left):
            return
        self.said = at
        share = len(self.run.made) / max(1e-9, at - self.started)
        done, whole = len(self.run.done), len(self.run.graph.cells)
        togo = f", {spoken(self.run.left / share)} to go" if self.run.left else ""
        self.run.say(f"[{done}/{whole}] {unit.label}: {spoken(outcome.seconds)}{togo}")
