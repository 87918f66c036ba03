"""The record of a task as JSON values, every field of it: what is trained on a task of the user's own keeps the task.

A task of the catalogue is known by its name and is not kept. What is read is checked as any task is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from tasks.catalog import all_tasks
from tasks.errors import UserError
from tasks.task import HubSource, Scale, Task

KEPT = "task"
"""Key of the record among what is kept of a prompt's data."""
SAID_IF_GIVEN = ("label_values", "splits", "skip_empty", "scale", "head", "separator")
"""Fields that a record of a task without them leaves out: what was kept before there were such stays the same."""
OF_A_RUN = ("words", "template", "columns", "label_values", "splits", "skip_empty")


class _HubRecord(BaseModel):
    """Where on the hub the rows are; `labels` are pairs, because keys of JSON are text and values there may be numbers."""

    model_config = ConfigDict(extra="forbid", strict=True)
    repo: str
    config: str | None
    revision: str | None
    train: str
    test: str
    columns: dict[str, str]
    labels: list[list[int | str | None]]
    data_files: dict[str, str] | None


class _ScaleRecord(BaseModel):
    """The ends of a regression's numbers."""

    model_config = ConfigDict(extra="forbid", strict=True)
    low: float
    high: float


class _TaskRecord(BaseModel):
    """A task as JSON has it."""

    model_config = ConfigDict(extra="forbid", strict=True)
    name: str
    type: str
    kind: str
    metric: str
    labels: list[str]
    words: dict[str, dict[str, list[str]]]
    hub: _HubRecord | None
    world: str | None
    folder: str | None
    columns: dict[str, str]
    aspect: bool
    note: str
    template: str = ""
    """Records of before there were decoders have none: it is then that of the type and kind."""
    label_values: list[list[int | str | None]] = Field(default_factory=list)
    splits: dict[str, str] = Field(default_factory=dict)
    skip_empty: bool = False
    scale: _ScaleRecord | None = None
    head: bool = False
    separator: str = ""


def task_record(task: Task) -> dict[str, Any]:
    """Every field of a task, as JSON values."""
    words = {
        family: {label: list(alternatives) for label, alternatives in table.items()}
        for family, table in task.words.items()
    }
    hub = None
    if task.hub is not None:
        hub = {**asdict(task.hub), "labels": _pairs(task.hub.labels)}
    record = {**asdict(task), "labels": list(task.labels), "words": words, "hub": hub}
    record["label_values"] = _pairs(task.label_values)
    return {key: value for key, value in record.items() if value or key not in SAID_IF_GIVEN}


def _pairs(labels: Mapping[int | str, str | None]) -> list[list[int | str | None]]:
    return [[value, label] for value, label in labels.items()]


def task_of_record(record: Any, where: str) -> Task:
    """The task that `task_record` wrote down; UserError, beginning with `where`, for anything else."""
    try:
        found = _TaskRecord.model_validate(record)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])) or "the record"
        raise UserError(f"{where}: its task is damaged at {place}: {first['msg']}") from None
    fields = found.model_dump()
    words = {
        family: {label: tuple(alternatives) for label, alternatives in table.items()}
        for family, table in found.words.items()
    }
    try:
        hub = _hub(found.hub, where) if found.hub is not None else None
        values = _values(found.label_values, "label_values", where)
        scale = Scale(found.scale.low, found.scale.high) if found.scale is not None else None
        named = {
            **{"labels": tuple(found.labels), "words": words, "hub": hub, "label_values": values},
            "scale": scale,
        }
        return Task(**{**fields, **named})
    except UserError as error:
        raise UserError(f"{where}: {error}") from None


def _hub(record: _HubRecord, where: str) -> HubSource:
    return HubSource(**{**record.model_dump(), "labels": _values(record.labels, "hub.labels", where)})


def _values(
    pairs: Sequence[Sequence[int | str | None]], place: str, where: str
) -> dict[int | str, str | None]:
    labels: dict[int | str, str | None] = {}
    for pair in pairs:
        if len(pair) != 2 or pair[0] is None or isinstance(pair[1], int):
            raise UserError(f"its task is damaged at {place}: {pair!r} is no pair of value and label")
        labels[pair[0]] = pair[1]
    return labels


def is_of_catalogue(task: Task) -> bool:
    """Whether the catalogue has this very task.

    Label words or a template that a run chose, and how files of its rows are read, do not make it another.
    """
    known = all_tasks().get(task.name)
    if known is None or (task.labels, task.head) != (known.labels, known.head):
        return False
    as_known: dict[str, Any] = {name: getattr(known, name) for name in OF_A_RUN}
    return replace(task, **as_known) == known


def kept_of(task: Task) -> dict[str, Any]:
    """What a prompt keeps of its task beside the name: nothing where the catalogue has it."""
    return {} if is_of_catalogue(task) else {KEPT: task_record(task)}


def own_task(name: str, kept: Mapping[str, Any]) -> Task | None:
    """The task `name` that things keep, `kept` being what keeps it -> its record; None where none does.

    UserError where they keep different ones.
    """
    found: dict[str, Task] = {}
    for where, record in kept.items():
        if isinstance(record, Mapping) and record.get("name") == name:
            found[where] = task_of_record(record, where)
    (first, task), *others = found.items() or [("", None)]
    for where, other in others:
        if other != task:
            raise UserError(
                f"{first} and {where} keep different tasks of the name {name!r}: say which is meant by its YAML file"
            )
    return task
