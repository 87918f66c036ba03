"""The record of a task as JSON values, every field of it: what is trained on a task of the user's own keeps the task.

A task of the catalogue is known by its name and is not kept. What is read is checked as any task is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from tasks.catalog import all_tasks
from tasks.errors import UserError
from tasks.task import HubSource, Task

KEPT = "task"
"""Key of the record among what is kept of a prompt's data."""


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


def task_record(task: Task) -> dict[str, Any]:
    """Every field of a task, as JSON values."""
    words = {
        family: {label: list(alternatives) for label, alternatives in table.items()}
        for family, table in task.words.items()
    }
    hub = None
    if task.hub is not None:
        hub = {**asdict(task.hub), "labels": [[value, label] for value, label in task.hub.labels.items()]}
    return {**asdict(task), "labels": list(task.labels), "words": words, "hub": hub}


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
        return Task(**{**fields, "labels": tuple(found.labels), "words": words, "hub": hub})
    except UserError as error:
        raise UserError(f"{where}: {error}") from None


def _hub(record: _HubRecord, where: str) -> HubSource:
    labels: dict[int | str, str | None] = {}
    for pair in record.labels:
        if len(pair) != 2 or pair[0] is None or isinstance(pair[1], int):
            raise UserError(f"its task is damaged at hub.labels: {pair!r} is no pair of value and label")
        labels[pair[0]] = pair[1]
    return HubSource(**{**record.model_dump(), "labels": labels})


def is_of_catalogue(task: Task) -> bool:
    """Whether the catalogue has this very task; label words or a template that a run chose do not make it another."""
    known = all_tasks().get(task.name)
    if known is None or task.labels != known.labels:
        return False
    return replace(task, words=known.words, template=known.template) == known


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
