"""Where a command's rows come from and how they are read: one value made of the options that all such commands have."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prompttransfer.cli.common import load_targets, resolve_tasks
from tasks.reading import AS_THEY_ARE, Reading, parse_reading

if TYPE_CHECKING:
    from prompttransfer.adaptations.adaptation import Adaptation
    from prompttransfer.transfers.nearest_rows import RowsOf
    from prompttransfer.transfers.zero_shot import Target
    from tasks.task import Task

READING = ("columns", "labels", "splits", "skip_empty", "shots")
"""Options that say how rows are read and drawn."""


@dataclass(frozen=True)
class DataOptions:
    """The rows of a command."""

    data: Path | None = None
    reading: Reading = AS_THEY_ARE
    label_words: Sequence[str] | None = None
    metric: str | None = None
    limit_train: int | None = None
    limit_test: int | None = None
    shots: int | None = None
    one_split: bool = False
    head: bool = False
    """Whether a trained head answers in place of label words."""

    def tasks(self, names: Sequence[str], prompts: Sequence[Adaptation] = ()) -> list[Task]:
        """Tasks by name, YAML file or data (see `resolve_tasks`). Raises UserError."""
        return resolve_tasks(
            names, self.label_words, prompts, self.reading, self.data, self.metric, head=self.head
        )

    def targets(self, tasks: Sequence[Task], seeds: Sequence[int] = (0,)) -> list[Target]:
        """Each with the rows that a seed draws."""
        return load_targets(
            tasks,
            data=self.data,
            limit_train=self.limit_train,
            limit_test=self.limit_test,
            seeds=seeds,
            one_split=self.one_split,
            shots=self.shots,
        )

    def at_most(self, rows: int) -> DataOptions:
        """With no more training rows than that, unless so many of each label are drawn."""
        return replace(self, limit_train=rows if self.shots is None else None)


def data_options(given: Mapping[str, Any]) -> DataOptions:
    """The rows that a command's options ask for; an option that it does not have counts as not given. Raises UserError."""
    reading = parse_reading(
        given.get("columns"),
        given.get("labels"),
        given.get("splits"),
        skip_empty=bool(given.get("skip_empty")),
    )
    own = ("data", "label_words", "metric", "limit_train", "limit_test", "shots")
    return DataOptions(
        reading=reading,
        one_split=bool(given.get("one_split")),
        head=bool(given.get("head")),
        **{name: given.get(name) for name in own},
    )


def asked(given: Mapping[str, Any], *also: str) -> dict[str, Any]:
    """A command's options without those of reading, and those of `also`, that are not given: what was made before there were
    any is the same."""
    return where_given(given, *READING, *also)


def where_given(given: Mapping[str, Any], *names: str) -> dict[str, Any]:
    """A command's options without those of `names` that are not given, which earlier versions did not have."""
    return {name: value for name, value in given.items() if name not in names or value}


def rows_of_sources(data: Path | None) -> RowsOf:
    """What gives the tasks of sources with a few training rows each, for retrieval by rows."""
    from prompttransfer.transfers.nearest_rows import STORED

    def found(sources: Sequence[Adaptation]) -> Sequence[Target]:
        names = list(dict.fromkeys(source.task for source in sources))
        return load_targets(resolve_tasks(names, prompts=sources), data=data, limit_train=STORED)

    return found
