"""The store of a study: finished cells, each a folder that appears as a whole, with a digest of every file.

    plan.json                    the graph of the last run; what `status` and `explain` read
    cells/<2 hex>/<id>/          the files of a cell and its record, cell.json
    failures/<id>.json           why a cell failed
    scratch/<unit>/              what a unit in work keeps between attempts, and the cells that it fills
    leases/<unit>.lock           held by the process that works on the unit

A cell is committed by renaming the folder that was filled. What is found incomplete or changed is thrown away, said,
and made again; nothing is ever repaired in place.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol

from pydantic import BaseModel, ConfigDict, Field

from prompttransfer.files import check_writable, disk_errors, temporary_folder, write_text
from prompttransfer.study.cell import ID, KIND, Cell, Graph, Impossible, SystemRun, Unit
from prompttransfer.study.engine.records import (
    FORMAT,
    RECORD,
    CellRecord,
    FailureRecord,
    file_record,
    read_cell_record,
)
from tasks.documents import checked, decode, parse_json, shortened
from tasks.errors import UnreadableError, UserError

PLAN = "plan.json"


class Store(Protocol):
    """Where a study keeps its cells: a folder, or a place behind an fsspec URL with a folder for the work."""

    place: str
    """As a person would write it."""

    @property
    def work(self) -> Path:
        """A local folder for scratch and leases."""

    def ids(self) -> set[str]:
        """Cells that are there, unchecked."""

    def has(self, cell: str) -> bool:
        """Whether the cell is there, unchecked."""

    def damage(self, cell: str, *, digests: bool = False) -> str | None:
        """What is wrong with a cell that is there: one line, or None. Sizes are compared, with `digests` every bit."""

    def record(self, cell: str) -> CellRecord:
        """The record of a finished cell, else a UserError."""

    def folder(self, cell: str) -> Path:
        """A local folder with the files of a finished cell, every bit of it checked; UserError if it is damaged."""

    def commit(self, filled: Path, record: CellRecord) -> None:
        """Make the filled folder (inside `work`) the cell of that record."""

    def discard(self, cell: str) -> None:
        """Throw a cell away."""

    def read_text(self, name: str) -> str | None:
        """A small file of the study, None where there is none."""

    def write_text(self, name: str, text: str) -> None:
        """Write a small file of the study as a whole."""

    def remove_text(self, name: str) -> None:
        """Remove a small file of the study, if it is there."""

    def check_writable(self, cells: Iterable[str]) -> None:
        """Raise MachineError, before any work, where one of these cells or a file of the study could not be written."""

    def names(self, folder: str) -> list[str]:
        """Names of the small files in a folder of the study."""


class LocalStore:
    """A folder, also one that several machines share."""

    def __init__(self, root: Path):
        self.root = Path(root)
        self.place = str(root)
        self._checked: set[str] = set()

    @property
    def work(self) -> Path:
        """The study's folder itself."""
        return self.root

    def path(self, cell: str) -> Path:
        """Where a cell is, or would be."""
        return self.root / "cells" / cell[:2] / cell

    def ids(self) -> set[str]:
        """Cells that are there, unchecked."""
        return set(self._ids())

    def _ids(self) -> Iterator[str]:
        for shelf in self._shelves():
            with reading(shelf), suppress(NotADirectoryError), os.scandir(shelf) as entries:
                yield from (entry.name for entry in entries if ID.fullmatch(entry.name))

    def _shelves(self) -> list[str]:
        place = str(self.root / "cells")
        try:
            with reading(place), os.scandir(place) as entries:
                return [entry.path for entry in entries if len(entry.name) == 2]
        except (FileNotFoundError, NotADirectoryError):
            return []

    def has(self, cell: str) -> bool:
        """Whether the cell is there, unchecked; also what stands in its place and is none (`damage` says so)."""
        place = f"{self.root}/cells/{cell[:2]}/{cell}"
        try:
            with reading(place):
                os.lstat(place)
        except (FileNotFoundError, NotADirectoryError):
            return False
        return True

    def damage(self, cell: str, *, digests: bool = False) -> str | None:
        """What is wrong with a cell that is there: one line, or None. UnreadableError where that cannot be seen now."""
        base = f"{self.root}/cells/{cell[:2]}/{cell}"
        try:
            with reading(base):
                record = parse_json(_regular_bytes(f"{base}/{RECORD}"), RECORD)
                if record["id"] != cell:
                    return f"{RECORD} is that of {record['id']}"
                for name, file in record["files"].items():
                    if wrong := difference(base, name, file["bytes"], file["sha256"] if digests else None):
                        return wrong
        except FileNotFoundError as error:
            return f"{os.path.relpath(error.filename, base)} is missing"
        except OSError as error:
            return f"{os.path.relpath(error.filename or base, base)} is no file of a cell ({error.strerror})"
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            return f"{RECORD} is no record ({error})"
        return None

    def record(self, cell: str) -> CellRecord:
        """The record of a finished cell, else a UserError."""
        path = self.path(cell) / RECORD
        try:
            with reading(str(path)):
                return read_cell_record(_regular_bytes(str(path)), str(path))
        except OSError as error:
            raise UserError(f"cell {cell} is not finished in {self.place}: run the study first") from error

    def folder(self, cell: str) -> Path:
        """The folder of a finished cell; its digests are compared once a process."""
        if not self.has(cell):
            raise UserError(f"cell {cell} is not finished in {self.place}: run the study first")
        if cell not in self._checked:
            if wrong := self.damage(cell, digests=True):
                raise UserError(
                    f"cell {cell} in {self.place} is damaged: {wrong}; `study run` makes it again"
                )
            self._checked.add(cell)
        return self.path(cell)

    def commit(self, filled: Path, record: CellRecord) -> None:
        """Write the record into the filled folder and rename it to its place; a whole cell that is there stays.

        Another run may have made the cell meanwhile, in another unit, and its files may be read already. Without fsync: after a loss of power the sizes and digests tell a cell that is not whole.
        """
        place = self.path(record.id)
        with disk_errors(place):
            (filled / RECORD).write_text(record.model_dump_json(indent=1), encoding="utf-8")
            place.parent.mkdir(parents=True, exist_ok=True)
            while not _renamed(filled, place):
                if self.damage(record.id, digests=True) is None:
                    shutil.rmtree(filled, ignore_errors=True)
                    return
                self.discard(record.id)

    def discard(self, cell: str) -> None:
        """Throw a cell away: out of its place by one rename, then bit by bit."""
        self._checked.discard(cell)
        scratch = self.root / "scratch"
        with disk_errors(self.path(cell)):
            scratch.mkdir(parents=True, exist_ok=True)
            trash = temporary_folder(scratch / f"discarded-{cell}")
            with suppress(FileNotFoundError):
                self.path(cell).rename(trash / cell)  # whatever it is: a folder, a file, a link
        shutil.rmtree(trash, ignore_errors=True)

    def check_writable(self, cells: Iterable[str]) -> None:
        """Raise MachineError, before any work, where one of these cells or a file of the study could not be written."""
        shelves = sorted({f"cells/{cell[:2]}" for cell in cells})
        for name in ("", "failures", "leases", "report", "scratch", "scratch/filled", *shelves):
            check_writable(self.root / name)

    def read_text(self, name: str) -> str | None:
        """A small file of the study, None where there is none."""
        path = self.root / name
        try:
            with reading(str(path)):
                data = _regular_bytes(str(path))
        except (FileNotFoundError, NotADirectoryError):
            return None
        return decode(data, str(path))

    def write_text(self, name: str, text: str) -> None:
        """Write a small file of the study as a whole."""
        write_text(self.root / name, text)

    def remove_text(self, name: str) -> None:
        """Remove a small file of the study, if it is there."""
        (self.root / name).unlink(missing_ok=True)

    def names(self, folder: str) -> list[str]:
        """Names of the small files in a folder of the study."""
        try:
            return sorted(name for name in os.listdir(self.root / folder) if not name.startswith("."))
        except FileNotFoundError:
            return []


def difference(base: str, name: str, size: int, sha256: str | None) -> str | None:
    """One line if the file `base/name` has another size or digest than was written; FileNotFoundError if it is not there."""
    found = os.stat(f"{base}/{name}")
    if not stat.S_ISREG(found.st_mode):
        return f"{name} is no regular file"
    if found.st_size != size:
        return f"{name} has {found.st_size} bytes, {size} were written"
    if sha256 is not None and file_record(Path(base, name)).sha256 != sha256:
        return f"{name} was changed after it was written (its digest differs)"
    return None


NO_FILE = {errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.ENAMETOOLONG}
"""What the system says where something is not there, or is nothing that a study wrote; all else may pass."""


@contextmanager
def reading(place: str) -> Iterator[None]:
    """Turn an error that says nothing about the file (permission, I/O, too many open files) into UnreadableError."""
    try:
        yield
    except OSError as error:
        if error.errno in NO_FILE or isinstance(error, FileNotFoundError):  # fsspec gives no number
            raise
        raise UnreadableError(
            f"{error.filename or place} cannot be read now ({error.strerror or error}): it was left as it is; "
            "mend that and run again"
        ) from error


def _regular_bytes(path: str) -> bytes:
    """The content of a file; of a pipe, which would be waited for, nothing."""
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC | getattr(os, "O_NONBLOCK", 0))
    with open(handle, "rb", buffering=0) as stream:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            return b""
        return stream.readall()


def _renamed(filled: Path, place: Path) -> bool:
    """Rename a folder to its place; False where another one is there."""
    try:
        filled.rename(place)
    except OSError as error:
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
            return False
        raise
    return True


def write_graph(store: Store, graph: Graph) -> None:
    """Keep the graph beside its cells, one line a unit."""
    units = ",\n".join(
        json.dumps(
            {"id": unit.id, "resources": dict(unit.resources), "cells": [_as_json(c) for c in unit.cells]}
        )
        for unit in graph
    )
    said = ",\n".join(json.dumps(asdict(one)) for one in graph.impossible)
    runs = ",\n".join(json.dumps(asdict(one)) for one in graph.runs)
    more = "".join(
        f', "{name}": [\n{lines}\n]' for name, lines in (("impossible", said), ("runs", runs)) if lines
    )
    more += f', "labels": {json.dumps(dict(graph.labels))}' if graph.labels else ""
    store.write_text(PLAN, f'{{"format": {FORMAT}, "units": [\n{units}\n]{more}}}\n')


def _as_json(cell: Cell) -> dict[str, Any]:
    return {
        "id": cell.id,
        "kind": cell.kind,
        "label": cell.label,
        "version": cell.version,
        "settings": cell.settings,
        "inputs": cell.inputs,
    }


class CellEntry(BaseModel):
    """One cell in `plan.json`."""

    model_config = ConfigDict(strict=True)

    id: str = Field(pattern=f"^{ID.pattern}$")
    kind: str = Field(pattern=f"^{KIND.pattern}$")
    label: str
    version: int
    settings: dict[str, Any]
    inputs: dict[str, str]


class UnitEntry(BaseModel):
    """One unit in `plan.json`."""

    model_config = ConfigDict(strict=True)

    id: str
    resources: dict[str, float]
    cells: list[CellEntry] = Field(min_length=1)


class ImpossibleEntry(BaseModel):
    """One result in `plan.json` that cannot be."""

    model_config = ConfigDict(strict=True)

    label: str
    backbone: str
    method: str
    reason: str


class RunEntry(BaseModel):
    """One run of a system in `plan.json`."""

    model_config = ConfigDict(strict=True)

    system: str
    backbone: str
    target: str
    shots: int
    seed: int
    score: str = Field(pattern=f"^{ID.pattern}$")
    target_steps: int = Field(ge=0)
    source_steps: int = Field(ge=0)
    shared_by: int = Field(ge=1)
    related: int = Field(ge=0)


class PlanRecord(BaseModel):
    """`plan.json`, checked because it comes from outside."""

    format: int
    units: list[UnitEntry]
    impossible: list[ImpossibleEntry] = []
    runs: list[RunEntry] = []
    labels: dict[str, str] = {}


def read_units(store: Store) -> list[dict[str, Any]]:
    """The units of the stored graph as plain JSON, for what must be quick; UserError if the file is damaged."""
    units: list[dict[str, Any]] = _read_plan(store)["units"]
    return units


def read_impossible(store: Store) -> tuple[Impossible, ...]:
    """What the stored graph says cannot be."""
    found = _read_plan(store).get("impossible", [])
    return tuple(Impossible(**ImpossibleEntry(**one).model_dump()) for one in found)


def read_runs(store: Store) -> tuple[SystemRun, ...]:
    """The runs of systems in the stored graph."""
    found = _read_plan(store).get("runs", [])
    return tuple(SystemRun(**RunEntry(**one).model_dump()) for one in found)


def read_labels(store: Store) -> dict[str, str]:
    """What the stored graph calls methods that have a label."""
    return dict(_read_plan(store).get("labels", {}))


def _read_plan(store: Store) -> dict[str, Any]:
    try:
        plan = parse_json(store.read_text(PLAN) or "", PLAN)
        if isinstance(plan, dict) and plan.get("format", FORMAT) != FORMAT:
            raise UserError(f"it is of format {plan['format']}, this version reads {FORMAT}")
        checked(PlanRecord, plan, PLAN)
        _check_inputs(plan["units"])
    except UserError as error:
        raise UserError(
            f"{PLAN} of {store.place} cannot be used ({error}): `study run` writes it anew"
        ) from None
    return dict(plan)


def _check_inputs(units: list[dict[str, Any]]) -> None:
    """Every cell stands in the plan once, and so do its inputs."""
    names = [cell["id"] for unit in units for cell in unit["cells"]]
    known = set(names)
    if len(known) < len(names):
        raise UserError("a cell stands in it twice")
    for unit in units:
        for cell in unit["cells"]:
            if lost := set(cell["inputs"].values()) - known:
                raise UserError(f"input {shortened(min(lost))!r} of cell {cell['id']} is not in it")


def read_graph(store: Store) -> Graph:
    """The stored graph, checked: also that every cell has the id that its settings and inputs give it."""
    units = []
    for unit in read_units(store):
        cells = [Cell(c["kind"], c["label"], c["settings"], c["inputs"], c["version"]) for c in unit["cells"]]
        for cell, stored in zip(cells, unit["cells"], strict=True):
            if cell.id != stored["id"]:
                raise UserError(
                    f"{PLAN} of {store.place} was changed after it was written (cell {stored['id']} has other settings "
                    f"than its name says): `study run` writes it anew"
                )
        units.append(Unit(tuple(cells), unit["resources"]))
    return Graph(tuple(units), read_impossible(store), read_runs(store), read_labels(store))


def read_failures(store: Store) -> dict[str, FailureRecord]:
    """Cell id -> why it failed, of all failures on record; a damaged report counts as a fault of the machine."""
    found = {}
    for name in store.names("failures"):
        cell = name.removesuffix(".json")
        try:
            text = store.read_text(f"failures/{name}")
            if text is None or not ID.fullmatch(cell):
                continue
            found[cell] = checked(FailureRecord, parse_json(text, name), name)
        except UserError:
            found[cell] = FailureRecord(
                format=FORMAT, id=cell, kind="unknown", label=cell, cause="machine", line="its report is damaged",
                traceback="", when="",
            )  # fmt: skip
    return found


def write_failure(store: Store, failure: FailureRecord) -> None:
    """Keep the report of a failed cell."""
    store.write_text(f"failures/{failure.id}.json", failure.model_dump_json(indent=1) + "\n")
