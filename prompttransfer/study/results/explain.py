"""Where a number comes from: one cell with its settings, its inputs as far down as they go, versions, commit and cost."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from prompttransfer.study.engine.leases import held
from prompttransfer.study.engine.records import CellRecord, FailureRecord
from prompttransfer.study.engine.store import Store, read_failures, read_impossible, read_units
from tasks.errors import UserError

SHORTEST = 4
"""Hex digits that a prefix of an id needs."""


@dataclass(frozen=True)
class Input:
    """One line of the tree of inputs."""

    depth: int
    role: str
    id: str
    kind: str
    label: str
    finished: bool
    again: bool
    """Its own inputs were shown further up."""


@dataclass(frozen=True)
class Explanation:
    """All that is known of a cell."""

    id: str
    kind: str
    label: str
    version: int
    state: str
    """finished, damaged, running, failed, blocked or to do."""
    settings: Mapping[str, Any]
    inputs: tuple[Input, ...]
    record: CellRecord | None
    failure: FailureRecord | None
    damage: str | None
    above: float
    """Seconds that this cell and everything it was made from took, each cell counted once."""

    def as_json(self) -> dict[str, Any]:
        """For machines."""
        return {
            "id": self.id,
            "kind": self.kind,
            "label": self.label,
            "version": self.version,
            "state": self.state,
            "settings": dict(self.settings),
            "inputs": [vars(one) for one in self.inputs],
            "record": self.record.model_dump() if self.record else None,
            "failure": self.failure.model_dump() if self.failure else None,
            "damage": self.damage,
            "seconds_with_inputs": self.above,
        }


def find_cell(store: Store, given: str) -> str:
    """The id that `given` means: an id, the beginning of one, or a whole label; else a UserError with the nearest."""
    cells = _cells(store)
    text = given.strip().lower()
    if text in cells:
        return text
    begun = [name for name in cells if name.startswith(text)] if len(text) >= SHORTEST else []
    found = begun or [name for name, cell in cells.items() if cell["label"].lower() == text]
    if len(found) == 1:
        return found[0]
    if found:
        shown = ", ".join(f"{name} ({cells[name]['label']})" for name in found[:6])
        raise UserError(f"{given!r} is the beginning of {len(found)} cells: {shown}; give more of the id")
    for one in read_impossible(store):
        if one.label.lower() == text:
            raise UserError(f"there is no cell {one.label!r}, and there cannot be: {one.reason}")
    labels = {cell["label"].lower(): name for name, cell in cells.items()}
    near = [labels[label] for label in difflib.get_close_matches(text, labels, n=3, cutoff=0.5)]
    near = near or difflib.get_close_matches(text, cells, n=3, cutoff=0.6)
    hint = " or ".join(f"{name} ({cells[name]['label']})" for name in near)
    raise UserError(
        f"no cell {given!r} in {store.place}{f': did you mean {hint}?' if hint else ''}; give an id, at least "
        f"{SHORTEST} digits of its beginning, or a label (`study plan --cells` lists them)"
    )


def explain_cell(store: Store, given: str) -> Explanation:
    """Everything that is known of the cell that `given` means (see `find_cell`)."""
    cells = _cells(store)
    name = find_cell(store, given)
    cell = cells[name]
    present = store.ids()
    failures = read_failures(store)
    damage = store.damage(name, digests=True) if name in present else None
    record = store.record(name) if name in present and not damage else None
    lines = tuple(_tree(cells, cell["inputs"], present, 1, set()))
    whole = {line.id for line in lines if line.finished}
    seconds = sum(store.record(other).seconds for other in whole if not store.damage(other))
    return Explanation(
        id=name,
        kind=cell["kind"],
        label=cell["label"],
        version=cell["version"],
        state=_state(store, name, cells, present, failures, damage),
        settings=cell["settings"],
        inputs=lines,
        record=record,
        failure=failures.get(name) if record is None else None,
        damage=damage,
        above=seconds + (record.seconds if record else 0.0),
    )


def _cells(store: Store) -> dict[str, dict[str, Any]]:
    """Cell id -> cell with the id of its unit, of the study as it is now."""
    return {cell["id"]: {**cell, "unit": unit["id"]} for unit in read_units(store) for cell in unit["cells"]}


def _tree(
    cells: Mapping[str, Any], inputs: Mapping[str, str], present: set[str], depth: int, seen: set[str]
) -> Iterator[Input]:
    for role, name in inputs.items():
        cell = cells[name]
        again = name in seen and bool(cell["inputs"])
        yield Input(depth, role, name, cell["kind"], cell["label"], name in present, again)
        if not again:
            seen.add(name)
            yield from _tree(cells, cell["inputs"], present, depth + 1, seen)


def _state(
    store: Store,
    name: str,
    cells: Mapping[str, Any],
    present: set[str],
    failures: Mapping[str, FailureRecord],
    damage: str | None,
) -> str:
    if damage:
        return "damaged"
    if name in present:
        return "finished"
    if cells[name]["unit"] in held(store.work / "leases"):
        return "running"
    if name in failures:
        return "failed"
    above = _tree(cells, cells[name]["inputs"], present, 1, set())
    return "blocked" if any(line.id in failures and not line.finished for line in above) else "to do"
