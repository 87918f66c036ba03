"""Work on one unit, in whatever process it happens: lease, inputs, the kind's code, commit.

The same function runs in this process, in worker processes and on a Ray cluster, so that where a cell was made cannot
matter. What goes wrong comes back as a value (`Outcome`); only the person's interrupt is an exception.
"""

from __future__ import annotations

import errno
import shutil
import time
import traceback
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from safetensors import SafetensorError

from prompttransfer.study.cell import Cell, CellsFailed, Json, Kind, Unit, find_kind, load_kinds
from prompttransfer.study.engine.leases import lease
from prompttransfer.study.engine.records import (
    FORMAT,
    Cause,
    CellRecord,
    FailureRecord,
    code_commit,
    make_record,
    now,
)
from prompttransfer.study.engine.store import Store, write_failure
from prompttransfer.study.engine.stores import open_store
from tasks.errors import MachineError, UnreadableError, UserError, out_of_memory

Cost = Mapping[str, Mapping[str, Json]]
Tell = Callable[[str], None]


@dataclass(frozen=True)
class Workplace:
    """Where work happens and with what code; goes to every process that works, so it holds only plain values."""

    place: str
    """Folder or fsspec URL of the study."""
    kinds: str
    """`package.module:NAME` of the dict of kinds."""
    local: Mapping[str, Json] = field(default_factory=dict)
    commit: str | None = None


State = Literal["done", "busy", "failed", "damaged", "unreadable", "full", "killed"]


@dataclass(frozen=True)
class Outcome:
    """What became of one unit."""

    unit: str
    state: State
    """busy: another run has its lease; damaged: an input is; unreadable: a file; full: the disk; killed: its process ended."""
    seconds: float = 0.0
    committed: tuple[CellRecord, ...] = ()
    failures: tuple[FailureRecord, ...] = ()
    damaged: str = ""
    """The id of the damaged input."""
    line: str = ""


@dataclass
class UnitContext:
    """What a kind may use while it runs (see `cell.Context`)."""

    store: Store
    unit: Unit
    local: Mapping[str, Json]
    say: Tell
    attempt: str = field(default_factory=lambda: uuid.uuid4().hex[:8], kw_only=True)

    def filled(self, cell: Cell) -> Path:
        """Where the cell is filled, on the same file system as the cells.

        Of this unit alone: after a change of the study another run may make the same cell in another unit, at the same
        time. Of this attempt alone: a machine that was cut off from its file server has lost its lease without knowing.
        Made flat: a folder that is renamed away leaves nothing to remove, and removing a folder is what costs most.
        """
        return self.store.work / "scratch" / "filled" / f"{self.unit.id}-{cell.id}-{self.attempt}"

    def clear(self, attempt: str = "*") -> None:
        """Remove what an attempt at the unit filled and did not commit; of all attempts, those that were killed among them."""
        for folder in (self.store.work / "scratch" / "filled").glob(f"{self.unit.id}-*-{attempt}"):
            shutil.rmtree(folder, ignore_errors=True)

    def state(self) -> Path:
        """Where the unit keeps what it needs to go on after a kill."""
        return self.store.work / "scratch" / self.unit.id

    def input(self, cell: Cell, role: str) -> Path:
        """The folder of the finished cell that plays `role`."""
        return self.store.folder(cell.inputs[role])

    def output(self, cell: Cell) -> Path:
        """The folder that becomes the cell."""
        folder = self.filled(cell)
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def scratch(self, unit: Unit) -> Path:
        """Kept between attempts of the unit."""
        folder = self.state()
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def tell(self, line: str) -> None:
        """Say one line about the unit."""
        self.say(f"{self.unit.label}: {line}")


Begin = Callable[[Unit, UnitContext], None]


def work_on(
    unit: Unit, workplace: Workplace, say: Tell, store: Store | None = None, begin: Begin | None = None
) -> Outcome:
    """Make the cells of a unit that are not finished yet; every fault comes back in the outcome.

    `begin` is called when there is something to make, right before the kind's code.
    """
    started = time.monotonic()
    try:
        store = store or open_store(workplace.place, new=True)
        leases = store.work / "leases"
        leases.mkdir(parents=True, exist_ok=True)
        with lease(leases, unit.id) as mine:
            if not mine:
                return Outcome(unit.id, "busy")
            missing = [cell for cell in unit.cells if not _is_whole(cell, store, say)]
            if not missing:
                return Outcome(unit.id, "done")
            if (broken := _broken_input(store, unit)) is not None:
                return Outcome(unit.id, "damaged", damaged=broken[0], line=broken[1])
            context = UnitContext(store, unit, workplace.local, say)
            try:
                return _make(context, missing, workplace, started, begin)
            except BaseException:
                context.clear(context.attempt)  # a disk that is full must not be fuller behind every attempt
                raise
    except Exception as error:
        if disk_is_full(error):
            line = f"no space left on a disk while {unit.label!r} was made in {workplace.place} ({error})"
            return Outcome(unit.id, "full", line=line)
        if isinstance(error, UnreadableError):
            return Outcome(unit.id, "unreadable", line=str(error))
        if store is None:
            raise
        return _failed(unit, unit.cells, store, error, started, workplace.commit)


def _is_whole(cell: Cell, store: Store, say: Tell) -> bool:
    """Whether a cell is there bit for bit; a damaged one is thrown away, which only the holder of the lease does."""
    if not store.has(cell.id):
        return False
    wrong = store.damage(cell.id, digests=True)
    if wrong:
        say(f"damaged: {cell.label} ({cell.id}): {wrong}; it is made again")
        store.discard(cell.id)
    return not wrong


def _broken_input(store: Store, unit: Unit) -> tuple[str, str] | None:
    """The first input that is gone or whose bits are not those that were written."""
    for name in dict.fromkeys(name for cell in unit.cells for name in cell.inputs.values()):
        try:
            store.folder(name)
        except UserError as error:
            return name, str(error)
    return None


def _make(
    context: UnitContext, missing: list[Cell], workplace: Workplace, started: float, begin: Begin | None
) -> Outcome:
    unit, store = context.unit, context.store
    when, failed = now(), {}
    kind: Kind = find_kind(load_kinds(workplace.kinds), unit.kind)
    if any(cell.version != kind.version for cell in unit.cells):
        raise UserError(
            f"kind {unit.kind!r} of this code is version {kind.version}, the plan was made with another"
        )
    if begin is not None:
        begin(unit, context)
    try:
        costs: Cost = kind.run(unit, context)
    except CellsFailed as error:
        costs, failed = error.costs, error.failed
    seconds = time.monotonic() - started
    committed = []
    for cell in missing:
        if cell.id in failed:
            continue
        filled = context.filled(cell)
        if not filled.is_dir() or not any(filled.iterdir()):
            raise RuntimeError(f"kind {unit.kind!r} wrote no file for {cell.label!r}")
        record = make_record(
            cell,
            filled,
            started=when,
            seconds=seconds / len(unit.cells),
            unit_cells=len(unit.cells),
            cost=costs.get(cell.id, {}),
            commit=workplace.commit,
        )
        store.commit(filled, record)
        store.remove_text(f"failures/{cell.id}.json")
        committed.append(record)
    reports = [
        failure(cell, "error", failed[cell.id], "", workplace.commit) for cell in missing if cell.id in failed
    ]
    for report in reports:
        write_failure(store, report)
    context.clear()
    if not reports:
        shutil.rmtree(context.state(), ignore_errors=True)
    return Outcome(
        unit.id, "failed" if reports else "done", seconds, tuple(committed), tuple(reports),
        line=reports[0].line if reports else "",
    )  # fmt: skip


def _failed(
    unit: Unit,
    cells: tuple[Cell, ...],
    store: Store,
    error: BaseException,
    started: float,
    commit: str | None,
) -> Outcome:
    """Keep why every cell of the unit that is not finished failed."""
    text = "".join(traceback.format_exception(error))
    cause, line = diagnose(error)
    reports = tuple(failure(cell, cause, line, text, commit) for cell in cells if not store.has(cell.id))
    for report in reports:
        write_failure(store, report)
    return Outcome(unit.id, "failed", time.monotonic() - started, failures=reports, line=line)


def failure(cell: Cell, cause: Cause, line: str, text: str, commit: str | None) -> FailureRecord:
    """The report of a failed cell."""
    return FailureRecord(
        format=FORMAT,
        id=cell.id,
        kind=cell.kind,
        label=cell.label,
        cause=cause,
        line=" ".join(line.split()),
        traceback=text,
        when=now(),
        commit=commit,
    )


def diagnose(error: BaseException) -> tuple[Cause, str]:
    """Whose fault it was, and one line for people."""
    text = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    if isinstance(error, UserError):
        return "user", str(error)
    if isinstance(error, MachineError):
        return "machine", str(error)
    if out_of_memory(error):
        return "machine", f"out of memory ({text.splitlines()[0]}): use a smaller batch or fewer workers"
    if isinstance(error, SafetensorError):
        return "machine", f"a file of weights is damaged or cut short ({error}): remove it and fetch it again"
    if isinstance(error, OSError):
        return "machine", f"the machine says: {error}"
    return "error", text


def disk_is_full(error: BaseException | None) -> bool:
    """Whether a full disk is behind an error, however often it was wrapped."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            return True
        error = error.__cause__ or error.__context__
    return False


def workplace_for(store: Store, kinds: str, local: Mapping[str, Json]) -> Workplace:
    """The workplace of a run that starts here."""
    return Workplace(store.place, kinds, dict(local), code_commit())
