"""Cells: the smallest results of a study, each named by everything that goes into it.

The name of a cell is a digest of its kind, the version of that kind's code, its settings and the names of its inputs.
A finished cell is therefore never wrong, only unused: whatever changes the result changes the name, and with it the
names of exactly the cells that depend on it.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from graphlib import CycleError, TopologicalSorter
from importlib import import_module
from pathlib import Path
from typing import Protocol, TypeAlias, Union

from tasks.errors import UserError, unknown

Json: TypeAlias = Union[bool, int, float, str, "list[Json]", "dict[str, Json]", None]

ID = re.compile(r"[0-9a-f]{16}")
KIND = re.compile(r"[a-z][a-z0-9-]*")


def canonical(value: Json) -> str:
    """One spelling for one value: sorted keys, no spaces, every digit of a float. NaN is a UserError."""
    try:
        return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise UserError(f"settings of a cell must be plain JSON values: {error}") from error


def short_digest(text: str) -> str:
    """16 hex digits of the sha256 of `text`."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@dataclass(frozen=True, eq=False)
class Cell:
    """One result of a study; two cells are the same cell if they have the same id, whatever their labels say."""

    kind: str
    """Key of the kinds that the study runs with: prompt, score, projector, ..."""
    label: str
    """For people; not part of the id."""
    settings: Mapping[str, Json]
    """Everything that changes the result, also digests of the rows and of the backbone's weights. Copied."""
    inputs: Mapping[str, str]
    """Role -> id of the cell that plays it; the order counts."""
    version: int
    """Of the kind's code; raised when its results change."""

    def __post_init__(self) -> None:
        if not KIND.fullmatch(self.kind):
            raise UserError(f"kind {self.kind!r} of a cell must be lower-case letters, digits and '-'")
        for role, name in self.inputs.items():
            if not ID.fullmatch(name):
                raise UserError(
                    f"cell {self.label!r}: input {role!r} is {name!r}, not an id of 16 hex digits"
                )
        # A copy as JSON reads it: tuples are lists, nobody else holds the dict, what is stored is what was named.
        object.__setattr__(self, "settings", json.loads(canonical(dict(self.settings))))
        object.__setattr__(self, "inputs", dict(self.inputs))

    @cached_property
    def id(self) -> str:
        """16 hex digits of the sha256 over kind, version, settings and inputs."""
        inputs: Json = [[role, name] for role, name in self.inputs.items()]
        return short_digest(canonical([self.kind, self.version, dict(self.settings), inputs]))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Cell) and self.id == other.id

    def __hash__(self) -> int:
        return hash(self.id)


@dataclass(frozen=True)
class Unit:
    """Cells that one process makes together, such as the prompts of a bank; most units hold one cell.

    A unit is a function of the plan alone, never of what is finished already: a run that was killed and started again
    does the same arithmetic.
    """

    cells: tuple[Cell, ...]
    resources: Mapping[str, float] = field(default_factory=dict)
    """What it needs of a machine, such as {"gpu": 1}."""

    def __post_init__(self) -> None:
        if not self.cells:
            raise UserError("a unit needs at least one cell")
        if len({cell.id for cell in self.cells}) != len(self.cells):
            raise UserError(f"unit of {self.cells[0].label!r} holds the same cell twice")
        if len({cell.kind for cell in self.cells}) != 1:
            raise UserError(
                f"unit of {self.cells[0].label!r} mixes kinds: {sorted({c.kind for c in self.cells})}"
            )

    @property
    def kind(self) -> str:
        """The kind of all its cells."""
        return self.cells[0].kind

    @cached_property
    def id(self) -> str:
        """Names its lease and its scratch folder: the id of its only cell, or a digest over those of all."""
        if len(self.cells) == 1:
            return self.cells[0].id
        return short_digest(" ".join(cell.id for cell in self.cells))

    @property
    def label(self) -> str:
        """For people."""
        more = f" and {len(self.cells) - 1} more" if len(self.cells) > 1 else ""
        return self.cells[0].label + more


@dataclass(frozen=True)
class Impossible:
    """A result that a study asks for and cannot have: not a cell, but said wherever the cells are."""

    label: str
    """What it would have been, as a cell would be called."""
    backbone: str
    method: str
    reason: str

    @property
    def line(self) -> str:
        """For people."""
        return f"{self.label}: {self.reason}"


@dataclass(frozen=True)
class SystemRun:
    """One run of one system of a study of few rows: which score is its result, and what it took."""

    system: str
    """What the study calls it; several systems may have one method."""
    backbone: str
    target: str
    shots: int
    seed: int
    score: str
    """Id of the score of what it learned."""
    target_steps: int
    """Steps on rows of the target: of all that was tried, and of a probe."""
    source_steps: int
    """Steps on rows of the library, of all sources that it looks at."""
    shared_by: int
    """How many targets of the system share those."""
    related: int
    """Sources in the study's library that are of the target's type."""

    @property
    def all_steps(self) -> float:
        """Steps on the target and its share of those of the library."""
        return self.target_steps + self.source_steps / self.shared_by


@dataclass(frozen=True)
class Graph:
    """All units of a study, brought into an order in which inputs come before what uses them.

    Raises UserError for a cell in two units, an input that no unit makes, or a cycle.
    """

    units: tuple[Unit, ...]
    impossible: tuple[Impossible, ...] = ()
    runs: tuple[SystemRun, ...] = ()
    """Of a study of few rows, system by system; none for any other."""
    labels: Mapping[str, str] = field(default_factory=dict)
    """Cell -> what the study's file calls the method that it is of, where it says; one cell of each method and backbone."""

    def __post_init__(self) -> None:
        if lost := next((run for run in self.runs if run.score not in self.unit_of), None):
            raise UserError(f"the score {lost.score} of system {lost.system!r} is not in the study")
        if strange := sorted(set(self.labels) - set(self.unit_of)):
            raise UserError(f"the cell {strange[0]} that has a label is not in the study")
        for unit in self.units:
            for cell in unit.cells:
                if self.unit_of[cell.id] is not unit:
                    raise UserError(f"cell {cell.label!r} ({cell.id}) is in two units of the study")
                for role, name in cell.inputs.items():
                    if name not in self.unit_of:
                        raise UserError(
                            f"cell {cell.label!r}: its input {role!r} ({name}) is not in the study"
                        )
        sorter = TopologicalSorter(self.needs)
        try:
            order = list(sorter.static_order())
        except CycleError as error:
            labels = " -> ".join(self.by_id[name].label for name in error.args[1])
            raise UserError(f"cells of the study wait for each other: {labels}") from error
        object.__setattr__(self, "units", tuple(self.by_id[name] for name in order))

    @cached_property
    def by_id(self) -> dict[str, Unit]:
        """Unit id -> unit."""
        return {unit.id: unit for unit in self.units}

    @cached_property
    def cells(self) -> dict[str, Cell]:
        """Cell id -> cell, inputs first."""
        return {cell.id: cell for unit in self.units for cell in unit.cells}

    @cached_property
    def unit_of(self) -> dict[str, Unit]:
        """Cell id -> the unit that makes it."""
        return {cell.id: unit for unit in self.units for cell in unit.cells}

    @cached_property
    def needs(self) -> dict[str, tuple[str, ...]]:
        """Unit id -> ids of the units that make its inputs, in the order in which they are named."""
        return {
            unit.id: tuple(
                dict.fromkeys(self.unit_of[name].id for cell in unit.cells for name in cell.inputs.values())
            )
            for unit in self.units
        }

    def __iter__(self) -> Iterator[Unit]:
        return iter(self.units)


class CellsFailed(Exception):  # noqa: N818
    """Raised by `Kind.run` when some cells of a unit failed and the others are whole: only the failed ones fail."""

    def __init__(self, failed: Mapping[str, str], costs: Mapping[str, Mapping[str, Json]]):
        super().__init__("; ".join(failed.values()))
        self.failed = dict(failed)
        """Cell id -> one line why."""
        self.costs = dict(costs)
        """Cell id -> cost of the cells that are whole."""


class Context(Protocol):
    """What a kind may use while it runs."""

    @property
    def local(self) -> Mapping[str, Json]:
        """Settings of this machine that do not change results: {"data": "/path", "device": "auto", ...}."""

    def input(self, cell: Cell, role: str) -> Path:
        """The folder of the finished cell that plays `role`; its digests were checked."""

    def output(self, cell: Cell) -> Path:
        """A folder to fill, empty at the start; it becomes the cell when `run` returns."""

    def scratch(self, unit: Unit) -> Path:
        """A folder kept between attempts of this unit (training state), removed when its cells are committed."""

    def tell(self, line: str) -> None:
        """Say one line to the person who watches."""


class Kind(Protocol):
    """How cells of one kind are made; one module, one entry in a dict of kinds."""

    version: int

    def run(self, unit: Unit, context: Context) -> Mapping[str, Mapping[str, Json]]:
        """Fill `context.output(cell)` for every cell of the unit; returns cell id -> cost (steps, tokens, rows, ...).

        The engine measures the seconds itself. Raise UserError or MachineError for what a person can mend, CellsFailed
        where some cells of the unit are whole; anything else is kept with its traceback.
        """


def load_kinds(name: str) -> Mapping[str, Kind]:
    """The dict of kinds at `package.module:NAME`; by name, because worker processes import it themselves."""
    module, _, attribute = name.partition(":")
    found: Mapping[str, Kind] = getattr(import_module(module), attribute)
    return found


def find_kind(kinds: Mapping[str, Kind], name: str) -> Kind:
    """The kind of that name, else a UserError with the nearest."""
    if name not in kinds:
        raise unknown("kind of cell", name, kinds)
    return kinds[name]
