"""Together: a study whose backbones several processes share. The first process runs the study, the others follow it.

A unit is worked on in all of them at once: the first does what a process alone would, the others call the same code
on the same unit, with folders of their own that are thrown away. What they share (rows, weights) they exchange below
the kinds' code, which knows nothing of it. On several machines the study's folder must be one that all of them see.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from prompttransfer.distributed.processes import Processes
from prompttransfer.study.cell import Cell, CellsFailed, Unit, find_kind, load_kinds
from prompttransfer.study.engine.executors import EmbeddedExecutor
from prompttransfer.study.engine.store import Store
from prompttransfer.study.engine.stores import open_store
from prompttransfer.study.engine.work import Outcome, Tell, UnitContext, Workplace, work_on
from tasks.errors import MachineError

PAUSE = 5.0
"""Seconds that a process which failed waits for the first one, which fails alike as a rule, to keep the reason."""


@dataclass(frozen=True)
class Order:
    """What the first process asks of the others."""

    unit: Unit
    workplace: Workplace
    scratch: Path
    """What the unit kept when it was killed; each process goes on from a copy."""


class LeadingExecutor(EmbeddedExecutor):
    """The first process, one unit after the other, with the others beside it."""

    def __init__(self, workplace: Workplace, say: Tell, store: Store, processes: Processes):
        super().__init__(workplace, say, store)
        self.processes = processes
        self._begun = False

    def submit(self, unit: Unit) -> None:
        """Work on the unit in all processes; MachineError where they may not have come to its end alike."""
        self._begun = False
        outcome = work_on(unit, self.workplace, self.say, self.store, begin=self._begin)
        if self._begun and not _ended_alike(outcome):
            raise MachineError(
                f"{unit.label}: {outcome.line}; it failed in processes that share its work, so the run ends with it, and "
                f"the same command goes on with the other cells"
            )
        self._ready.append(outcome)

    def _begin(self, unit: Unit, context: UnitContext) -> None:
        self._begun = True
        self.processes.gather(Order(unit, self.workplace, context.state()))
        self.processes.gather(None)  # they have their copies


def _ended_alike(outcome: Outcome) -> bool:
    """Whether a unit came to its end in every process: done, or with cells that failed by their numbers."""
    by_numbers = all(not report.traceback for report in outcome.failures)
    return outcome.state == "done" or (outcome.state == "failed" and by_numbers)


def dismiss(processes: Processes) -> None:
    """Let the others end. Where the first process fails instead, those who started them all end them."""
    processes.gather(None)


def follow(processes: Processes) -> None:
    """Do what the first process orders until it dismisses."""
    while True:
        order = processes.gather(None)[0]
        if order is None:
            return
        with tempfile.TemporaryDirectory(prefix="prompttransfer-") as folder:
            _obey(order, processes, Path(folder))


def _obey(order: Order, processes: Processes, folder: Path) -> None:
    context = FollowingContext(
        _store(order.workplace.place), order.unit, order.workplace.local, _nothing, folder
    )
    if order.scratch.is_dir():
        shutil.copytree(order.scratch, context.state())
    processes.gather(None)
    kind = find_kind(load_kinds(order.workplace.kinds), order.unit.kind)
    try:
        kind.run(order.unit, context)
    except CellsFailed:
        return  # the first process keeps why
    except Exception:
        time.sleep(PAUSE)
        raise


@dataclass
class FollowingContext(UnitContext):
    """Folders of a process that follows: thrown away behind the unit."""

    root: Path = Path()

    def filled(self, cell: Cell) -> Path:
        """Where the cell is filled, for nobody."""
        return self.root / "filled" / cell.id

    def state(self) -> Path:
        """A copy of what the unit kept."""
        return self.root / "state"


@cache
def _store(place: str) -> Store:
    return open_store(place, new=True)


def _nothing(line: str) -> None:
    """Only the first process speaks."""
