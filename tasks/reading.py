"""How a user's rows are read, as a command line says it: `--columns text=body label=stars --labels 1=bad 5=good`.

A task file says the same under the same names (custom.py).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from tasks.errors import UserError
from tasks.task import Task


@dataclass(frozen=True)
class Reading:
    """What a run says of the files that its rows are in; each part goes before what the task says."""

    columns: Mapping[str, str] = field(default_factory=dict)
    """Neutral field -> column."""
    labels: Mapping[str, str] = field(default_factory=dict)
    """What stands for a label there -> label."""
    splits: Mapping[str, str] = field(default_factory=dict)
    """train and test -> name of a file, or of a split on the hub."""
    skip_empty: bool = False

    def __bool__(self) -> bool:
        return bool(self.columns or self.labels or self.splits or self.skip_empty)

    def of(self, task: Task) -> Task:
        """The task with its files read so."""
        if not self:
            return task
        values: dict[int | str, str | None] = {value: label for value, label in self.labels.items()}
        return replace(
            task,
            columns={**task.columns, **self.columns},
            label_values={**task.label_values, **values},
            splits={**task.splits, **self.splits},
            skip_empty=task.skip_empty or self.skip_empty,
        )


AS_THEY_ARE = Reading()


def parse_reading(
    columns: Iterable[str] | None = None,
    labels: Iterable[str] | None = None,
    splits: Iterable[str] | None = None,
    *,
    skip_empty: bool = False,
) -> Reading:
    """The reading that `name=value` pairs say."""
    return Reading(
        _pairs(columns or (), "--columns", "text=body"),
        _pairs(labels or (), "--labels", "0=negative"),
        _pairs(splits or (), "--splits", "test=dev"),
        skip_empty,
    )


def _pairs(given: Iterable[str], option: str, example: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for pair in given:
        name, equals, value = (part.strip() for part in pair.partition("="))
        if not (name and equals and value):
            left, right = example.split("=")
            raise UserError(f"{option} {pair!r} is not of the form {left}={right}: as in {option} {example}")
        if name in found:
            raise UserError(f"{option} names {name!r} twice: give it once")
        found[name] = value
    return found
