"""What kinds load: backbones, tasks with their rows, finished prompts; each checked to be what the cell was planned for.

A process that works on many units keeps the backbone and the rows that it used last.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prompttransfer.backbones.revisions import differing, is_commit
from prompttransfer.distributed.placement import Placement
from prompttransfer.study.cell import Cell, Context, Json
from prompttransfer.study.plan.checks import find_any_task
from prompttransfer.study.plan.lookup import load_rows
from tasks.errors import UserError
from tasks.loading import Splits
from tasks.task import Task, with_words

if TYPE_CHECKING:
    from prompttransfer.adaptations.adaptation import Adaptation
    from prompttransfer.backbones.base import Backbone
    from prompttransfer.backbones.layouts import Encoding

PROMPT = "prompt"
"""Folder of the prompt inside its cell."""


def setting(values: Mapping[str, Json], *path: str) -> Any:
    """A setting by its path, as the Python value that it is."""
    found: Any = values
    for step in path:
        found = found[step]
    return found


def load_backbone_of(wanted: Mapping[str, Json], context: Context) -> Backbone:
    """The backbone that a cell names; a hub model at the commit that was planned with, UserError if another is here."""
    places = context.local.get("backbones") or {}
    assert isinstance(places, dict)
    name = str(wanted["name"])
    device = str(context.local.get("device") or "auto")
    placement = Placement(*(context.local.get("placement") or ()))  # type: ignore[misc]
    revision = str(wanted["revision"])
    place = str(places.get(name, name))
    pin = revision if is_commit(revision) else None
    backbone = _load(name, place, pin, str(wanted["precision"]), device, placement)
    if differing(revision, backbone.revision):
        raise UserError(
            f"backbone {name} is at revision {backbone.revision} here, the study was planned with {wanted['revision']}: "
            f"bring that one, or plan again"
        )
    return backbone


@lru_cache(maxsize=2)
def _load(
    name: str, place: str, revision: str | None, precision: str, device: str, placement: Placement
) -> Backbone:
    from prompttransfer.backbones.loading import load_backbone

    backbone = load_backbone(
        place, revision=revision, precision=precision, device=device, placement=placement
    )
    backbone.name = name  # the same on every machine, wherever its folder lies
    return backbone


def task_of(name: str, words: Any, context: Context) -> Task:
    """A task with the label words that were planned: `words` is a list of pairs of label and word."""
    files = context.local.get("tasks") or {}
    assert isinstance(files, dict)
    task = find_any_task(str(files.get(name, name)), Path())
    return with_words(task, dict(words)) if words else task


def data_of(context: Context) -> Path | None:
    """The data folder on this machine."""
    data = context.local.get("data")
    return Path(str(data)) if data else None


def rows_to_learn(task: Task, cell: Cell, context: Context) -> Splits:
    """The rows of a prompt; UserError where they are not those that the study was planned with."""
    limit = setting(cell.settings, "limit_train")
    seed = cell.settings.get("split_seed", 0)
    splits, learned, _ = load_rows(task, data_of(context), limit, 1, seed)  # type: ignore[arg-type]
    check_rows(task, learned, setting(cell.settings, "rows"))
    return splits


def rows_to_test(task: Task, cell: Cell, context: Context) -> Splits:
    """The same for test rows (of the training rows there is one, as none is needed)."""
    limit = setting(cell.settings, "limit_test")
    splits, _, tested = load_rows(task, data_of(context), 1, limit)
    check_rows(task, tested, setting(cell.settings, "rows"))
    return splits


def check_rows(task: Task, found: str, planned: str) -> None:
    """Raise a UserError for rows that changed."""
    if found != planned:
        raise UserError(
            f"the rows of task {task.name!r} are not those that the study was planned with (digest {found}, not "
            f"{planned}): bring the same data, or run the study file again to plan with these"
        )


def prompt_of(cell: Cell, role: str, context: Context) -> Adaptation:
    """The prompt of an input."""
    from prompttransfer.adaptations.artifacts import load_adaptation

    return load_adaptation(context.input(cell, role) / PROMPT)


def encoding_of(cell: Cell) -> Encoding:
    """How the rows of a cell meet the backbone, in its prompts' layout where the cell does not say."""
    from prompttransfer.backbones.layouts import USUAL, Encoding

    return Encoding(
        setting(cell.settings, "layout") if "layout" in cell.settings else USUAL.layout,
        max_length=setting(cell.settings, "max_length"),
        aggregation=setting(cell.settings, "aggregation"),
        template=setting(cell.settings, "template") if "template" in cell.settings else None,
    )


def mean_tokens(backbone: Backbone, task: Task, splits: Splits, cell: Cell, length: int) -> float:
    """Tokens of a row with prompt and special tokens, as the mean of a sample; for the cost that is kept."""
    from prompttransfer.study.plan.lookup import SAMPLE

    rows = backbone.encode(
        task,
        splits.train[:SAMPLE],
        encoding_of(cell),
        reserved=length,
    )
    return sum(row.size for row in rows) / len(rows) + length + backbone.special_tokens
