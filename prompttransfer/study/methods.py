"""Methods as a study names them: which one a cell is of, and how it is called.

A cell names its method only where that is not the default prompt: the text that `--method` takes, with the settings
that differ from the method's defaults and without its length, which is in the recipe. So all cells of studies of soft
prompts keep their names, and a new setting of a method leaves those of its cells.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import fields
from typing import TYPE_CHECKING, Any, NamedTuple

from prompttransfer.study.cell import Cell, short_digest

if TYPE_CHECKING:
    from prompttransfer.adaptations.method import Method

PROMPT = "prompt"
"""The method of a cell that names none."""
METHOD = "method"
TUNE, HALVING, FIXED = "tune", "halving", "not_tuned"
"""Setting of a cell that tries several settings and keeps the best: axis -> values, whether losers are stopped early, and
beside it the axes that this one cell leaves alone."""
BY_OPTIMIZER = "by_optimizer"
"""Setting of a cell that tries several optimizers: what each brings that is not in the cell's recipe (training/grids.py)."""
LENGTH = "length"
LONGEST_NAME = 255
"""Bytes of the name of a file that every file system in use takes."""


class Use(NamedTuple):
    """One method on one backbone."""

    backbone: str
    text: str
    """As `--method` takes it, without a length."""
    length: int
    """Vectors in front of the text or the like; 0 for a method without."""
    tuned: tuple[str, ...] = ()
    """What it is tuned over, such as `lr=0.01,0.1`, an axis each; empty where it is not."""


def use_of(cell: Cell, cells: Mapping[str, Cell]) -> Use:
    """The method that a cell is of, as the members trained for it say, and the backbone that these are of."""
    while cell.kind != "prompt":
        role = next((role for role in ("run", "prompt") if role in cell.inputs), next(iter(cell.inputs)))
        cell = cells[cell.inputs[role]]
    settings: Mapping[str, Any] = cell.settings
    length = settings.get("recipe", {}).get("length", 0)
    tuned = tuned_by(settings.get(TUNE, {}))
    return Use(settings["backbone"]["name"], settings.get(METHOD, PROMPT), length, tuned)


def grid_in(tune: Mapping[str, Any]) -> dict[str, list[Any]]:
    """Axis -> values of a cell's setting TUNE."""
    return {axis: values for axis, values in tune.items() if axis != HALVING}


def tuned_by(tune: Mapping[str, Any]) -> tuple[str, ...]:
    """`Use.tuned` of a cell's setting TUNE."""
    texts = [f"{axis}={','.join(map(str, values))}" for axis, values in sorted(grid_in(tune).items())]
    return (*texts, *[HALVING] * bool(tune.get(HALVING)))


def labels_of(uses: Iterable[Use]) -> dict[Use, str]:
    """What each is called: its text, with the length where one backbone has the same method in several lengths.

    Behind it stands over what it is tuned; with the values where that is not enough to tell two apart.
    """
    found = list(dict.fromkeys(uses))
    lengths: dict[tuple[str, str], set[int]] = defaultdict(set)
    for use in found:
        if LENGTH not in _axes(use):
            lengths[use.backbone, use.text].add(use.length)
    several = {text for (_, text), known in lengths.items() if len(known) > 1}
    grids: dict[tuple[str, tuple[str, ...]], set[tuple[str, ...]]] = defaultdict(set)
    for use in found:
        grids[use.text, _axes(use)].add(use.tuned)
    labels = {}
    for use in found:
        axes = _axes(use)
        whole = use.text in several and LENGTH not in axes
        name = with_length(use.text, use.length) if whole else use.text
        over = " ".join(use.tuned) if len(grids[use.text, axes]) > 1 else " and ".join(axes)
        labels[use] = f"{name}, tuned over {over}" if axes else name
    return labels


def _axes(use: Use) -> tuple[str, ...]:
    return tuple(part.partition("=")[0] for part in use.tuned if "=" in part)


def with_length(text: str, length: int) -> str:
    """`lora:rank=8` as it is, `prompt` with its length: the method as `--method` takes it."""
    if not length:
        return text
    return f"{text}{',' if ':' in text else ':'}length={length}"


def text_of(method: Method) -> str:
    """A method as `--method` takes it, without its length. Cells are named by it: True and False stay as they were written."""
    from prompttransfer.adaptations.method import spelled

    found = {field: getattr(method, field.name) for field in fields(method) if field.name != LENGTH}
    changed = ",".join(
        f"{field.name.replace('_', '-')}={value if isinstance(value, bool) else spelled(value)}"
        for field, value in found.items()
        if value != field.default
    )
    return f"{method.name}:{changed}" if changed else method.name


def called(backbone: str, method: str) -> str:
    """A backbone under a method, for titles: soft prompts go without saying."""
    return backbone if method == PROMPT else f"{backbone}, {method}"


def slug(name: str, around: int = 0) -> str:
    """The name of a backbone, method or projector as the name of a file or folder, `around` bytes of which stand beside it.

    One that is longer than a file system takes, as of a grid of many values, ends in a digest of itself.
    """
    found = re.sub(r"[^A-Za-z0-9._+-]+", "-", name).strip("-.")
    if len(found) + around <= LONGEST_NAME:
        return found
    digest = short_digest(name)
    return f"{found[: LONGEST_NAME - around - len(digest) - 1]}-{digest}"
