"""What stands in a report: views of one transfer matrix, answers about indicators, pictures, and what was run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import pandas as pd

from analysis.prediction import Prediction
from tasks.errors import UserError


@dataclass(frozen=True)
class View:
    """One number for each cell of the matrix: raw score, relative to the target's own prompt, score at step 0 ..."""

    name: str
    table: pd.DataFrame
    meaning: str = ""
    percent: bool = False
    """Write 0.87 as 87."""


@dataclass(frozen=True)
class Picture:
    """A figure as bytes, for the page only; `kind` is png or svg."""

    title: str
    caption: str
    content: bytes
    kind: str = "svg"

    def __post_init__(self) -> None:
        if self.kind not in {"png", "svg"}:
            raise UserError(f"a report takes pictures as png or svg, not {self.kind!r}")


@dataclass(frozen=True)
class Taught:
    """Scores of what learned from a teacher, beside their controls."""

    title: str
    about: str
    table: pd.DataFrame
    words: Mapping[str, str]
    """Row or column -> what it is."""
    controls: tuple[str, ...] = ()
    """Rows that are controls."""


@dataclass(frozen=True)
class ReportData:
    """Everything a report shows; every view has the labels of the first. Empty parts are left out of the page."""

    title: str
    views: tuple[View, ...]
    types: Mapping[str, str] = field(default_factory=dict)
    """Task or prompt name -> type."""
    metrics: Mapping[str, str] = field(default_factory=dict)
    """Target -> metric; means are taken within a metric."""
    seeds: pd.DataFrame | None = None
    """Number of seeds behind each cell, labels as the views."""
    spread: pd.DataFrame | None = None
    """Highest minus lowest raw score over the seeds of each cell."""
    impossible: Mapping[str, str] = field(default_factory=dict)
    """Target -> why its empty cells could not be computed."""
    predictions: tuple[Prediction, ...] = ()
    pictures: tuple[Picture, ...] = ()
    cross_model: pd.DataFrame | None = None
    cross_model_controls: tuple[str, ...] = ()
    taught: tuple[Taught, ...] = ()
    facts: Mapping[str, str] = field(default_factory=dict)
    """What was run: backbone, tasks, recipe, seeds, date."""
    environment: Mapping[str, str] = field(default_factory=dict)
    commands: tuple[str, ...] = ()
    """How to run it again."""
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.views:
            raise UserError("a report needs at least one view of a transfer matrix")
        first = self.views[0].table
        for name, table in [(v.name, v.table) for v in self.views] + [
            ("seeds", self.seeds),
            ("spread", self.spread),
        ]:
            if table is not None and (
                list(table.index) != list(first.index) or list(table.columns) != list(first.columns)
            ):
                raise UserError(
                    f"the labels of {name!r} differ from those of {self.views[0].name!r}: give the same rows and columns"
                )
        names = [v.name for v in self.views]
        if len(set(names)) < len(names):
            raise UserError(f"two views have one name: {', '.join(names)}")
