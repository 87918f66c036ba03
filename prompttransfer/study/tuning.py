"""What a cell tries before it keeps the best by validation rows: settings, and starts from a library.

Its settings name the grid (TUNE), its recipe and method are those of one candidate, from which all others follow. A run from
another member of the study has that one's method: only axes of the recipe are tried there, and none that the cell leaves
alone (FIXED).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from prompttransfer.study.cell import Cell
from prompttransfer.study.library_starts import LIBRARY_START, parse_library_start
from prompttransfer.study.methods import BY_OPTIMIZER, FIXED, HALVING, TUNE, grid_in
from prompttransfer.training.grids import OPTIMIZER, RECIPE_AXES, Brought, combinations, most_steps, texts_of

SOURCE = "source"
"""Role of the member that a run starts from."""


def grid_of(cell: Cell) -> dict[str, tuple[str, ...]]:
    """Axis -> the values that a cell tries; empty where it tries one setting."""
    tune: Mapping[str, Any] = cell.settings.get(TUNE, {})  # type: ignore[assignment]
    fixed: Sequence[str] = cell.settings.get(FIXED, ())  # type: ignore[assignment]
    return texts_of(
        {
            axis: values
            for axis, values in grid_in(tune).items()
            if axis not in fixed and (SOURCE not in cell.inputs or axis in RECIPE_AXES)
        }
    )


def brought_to(cell: Cell) -> Brought:
    """What each optimizer that a cell tries brings with it."""
    return cell.settings.get(BY_OPTIMIZER, {})  # type: ignore[return-value]


def halves(cell: Cell) -> bool:
    """Whether losers are stopped early."""
    tune: Mapping[str, Any] = cell.settings.get(TUNE, {})  # type: ignore[assignment]
    return bool(tune.get(HALVING))


def starts_tried(cell: Cell) -> int:
    """How many sources a cell starts from, one after the other."""
    start = cell.settings.get(LIBRARY_START)
    return parse_library_start(str(start)).runs if start else 1


def plans_of(cell: Cell) -> list[dict[str, int]]:
    """Steps, batch and steps between evaluations of every run of a cell; of halving, at most."""
    recipe: Mapping[str, Any] = cell.settings["recipe"]  # type: ignore[assignment]
    brought = brought_to(cell)
    plans = []
    for chosen in combinations(grid_of(cell)) * starts_tried(cell):
        own = {**recipe, **brought.get(chosen.get(OPTIMIZER, ""), {}), **chosen}
        plans.append({name: int(own[name]) for name in ("steps", "batch", "evaluate_every")})
    steps = most_steps([(plan["steps"], plan["evaluate_every"]) for plan in plans], halving=halves(cell))
    return [{**plan, "steps": taken} for plan, taken in zip(plans, steps, strict=True)]


def steps_tried(cell: Cell) -> int:
    """Steps of all runs of a cell."""
    return sum(plan["steps"] for plan in plans_of(cell))
