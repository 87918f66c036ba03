"""Grids: axes with values, each combination of which is a candidate, a method with a recipe.

An axis is a value of the recipe or a setting of the method. Here is also how long candidates train where losers are stopped
early (contest.py); nothing trains here.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import product
from typing import Any

from prompttransfer.adaptations.method import Method, spelled
from prompttransfer.adaptations.methods import parse_method, settings_in
from prompttransfer.training.recipes import Recipe, check_warm_up, method_and_recipe
from tasks.errors import UserError, unknown

RUNGS = (0.25, 0.5)
"""Shares of the steps behind which the better half of the candidates goes on."""


RATE, LENGTH, OPTIMIZER = "lr", "length", "optimizer"
RECIPE_AXES: dict[str, type] = {
    RATE: float,
    "weight-decay": float,
    "steps": int,
    "batch": int,
    "warm-up": int,
    OPTIMIZER: str,
    "schedule": str,
}
"""Axes that are values of the recipe, and what their values are; all others are settings of the method."""
MOST = 1000
"""Candidates of one sweep; more are a slip."""

Grid = Mapping[str, tuple[str, ...]]
"""Axis -> its values as they were written."""
Brought = Mapping[str, Mapping[str, Any]]
"""Optimizer that is tried -> the values of its usual recipe that are not those of the first candidate."""
NOTHING: Brought = {}


def parse_grid(texts: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """The grid that `name=value,value` texts stand for; a value with a comma stands in double quotes. Raises UserError."""
    grid: dict[str, tuple[str, ...]] = {}
    for text in texts:
        name, sign, rest = text.partition("=")
        name = name.strip().replace("_", "-")
        values = [value.strip() for row in csv.reader([rest], skipinitialspace=True) for value in row]
        if not sign or not name or not values or "" in values:
            raise UserError(f"--sweep {text!r}: write NAME=VALUE,VALUE,... as in lr=1e-3,1e-2 or length=5,20")
        if name in grid:
            raise UserError(f"--sweep gives {name} twice: write all its values behind one {name}=")
        if len(set(values)) < len(values):
            twice = next(value for value in values if values.count(value) > 1)
            raise UserError(f"--sweep {text!r}: {twice} stands twice")
        grid[name] = tuple(values)
    count = math.prod(len(values) for values in grid.values())
    if count < 2:
        raise UserError(f"--sweep {' '.join(texts)} is one setting: give at least two, or drop --sweep")
    if count > MOST:
        raise UserError(f"--sweep gives {count:,} settings: give at most {MOST:,}")
    return grid


def texts_of(grid: Mapping[str, Sequence[Any]]) -> dict[str, tuple[str, ...]]:
    """A grid of values as one of texts."""
    return {
        axis: tuple(spelled(tuple(value)) if isinstance(value, list) else str(value) for value in values)
        for axis, values in grid.items()
    }


@dataclass(frozen=True)
class Candidate:
    """One combination of a grid, and what it trains."""

    values: Mapping[str, str]
    method: Method
    recipe: Recipe

    def __str__(self) -> str:
        return ", ".join(f"{name} {value}" for name, value in self.values.items())


def candidates_of(
    family: str, width: int, text: str, grid: Grid, given: Mapping[str, Any]
) -> list[Candidate]:
    """Every combination of a grid for a method (its text) on a backbone; `given` are the recipe's other values.

    Raises UserError for an axis that the method does not have, a value that it does not take, or an axis whose value is
    given beside the sweep.
    """
    check_axes(text, grid, given)
    found = []
    for chosen in combinations(grid):
        method, recipe = method_and_recipe(family, width, _with(text, chosen), **_overrides(chosen, given))
        found.append(Candidate(chosen, method, recipe))
    return found


def candidates_from(text: str, recipe: Recipe, grid: Grid, brought: Brought = NOTHING) -> list[Candidate]:
    """Every combination of a grid where all other values of the recipe are known; its length counts where no axis is one.

    `recipe` is that of one of them; what an optimizer has brought (`brought_by`) goes before it.
    """
    found = []
    for chosen in combinations(grid):
        method = parse_method(_with(text, chosen), length=recipe.length)
        length = {LENGTH: method.settings()[LENGTH]} if LENGTH in method.settings() else {}
        own = _overrides(chosen, brought.get(chosen.get(OPTIMIZER, ""), {}))
        found.append(Candidate(chosen, method, replace(recipe, **own, **length)))
    return found


def brought_by(candidates: Sequence[Candidate]) -> dict[str, dict[str, Any]]:
    """What each optimizer brings beside the axes, so that `candidates_from` the first recipe makes the same candidates."""
    first = candidates[0].recipe
    found: dict[str, dict[str, Any]] = {}
    for one in candidates:
        if OPTIMIZER in one.values:
            same = replace(first, length=one.recipe.length, source=one.recipe.source)
            like = asdict(replace(same, **_overrides(one.values, {})))
            own = {name: value for name, value in asdict(one.recipe).items() if value != like[name]}
            found |= {one.recipe.optimizer: own} if own else {}
    return found


def combinations(grid: Grid) -> list[dict[str, str]]:
    """Axis -> value, one each of every axis; one without any for a grid without axes."""
    return [dict(zip(grid, values, strict=True)) for values in product(*grid.values())]


def first_of(text: str, grid: Grid) -> str:
    """The method's text with the first value of each of its settings that are swept over."""
    return _with(text, combinations(grid)[0])


def check_axes(text: str, grid: Grid, given: Mapping[str, Any], how: str = "--sweep") -> None:
    """Raise UserError unless each axis is one that the method can be swept over, with values that it takes.

    `how` is where the grid was given, for messages.
    """
    method = parse_method(text)
    own = {name.replace("_", "-") for name in method.settings()}
    said = {name.replace("_", "-") for name in settings_in(text)}
    for name in grid:
        if given.get(name.replace("-", "_")) is not None or name in said:
            raise UserError(f"{name} is given and swept over: leave out one of the two")
        if name in RECIPE_AXES:
            if not method.trains or (method.searches and name not in ("steps", "batch")):
                raise UserError(
                    f"{how} {name}: method {method.name} has no {name}; sweep over {_few(own, method)}"
                )
        elif name not in own:
            axes = sorted(own | ({*RECIPE_AXES} if method.trains else set()))
            raise unknown(f"axis of a sweep of method {method.name}", name, axes)
    known: dict[object, Mapping[str, str]] = {}
    # Every combination is a method and a recipe that can be, and none is there twice under two spellings.
    for chosen in combinations(grid):
        tried = parse_method(_with(text, chosen), length=1), replace(PLAIN, **_overrides(chosen, {}, how))
        both = _overrides(chosen, given, how)
        if method.trains and not method.searches:
            check_warm_up(both.get("warm_up"), both.get("steps"))
        if tried in known:
            first, second = (
                ", ".join(f"{name} {own[name]}" for name in grid) for own in (known[tried], chosen)
            )
            raise UserError(f"{how}: {first} and {second} are one setting: keep one")
        known[tried] = chosen


def _few(own: set[str], method: Method) -> str:
    names = [*sorted(own), *(["steps", "batch"] if method.searches else [])]
    return ", ".join(names) or "nothing, as it has no settings"


def _with(text: str, chosen: Mapping[str, str]) -> str:
    """The method's text with the settings that are swept over."""
    own = [f"{name}={spelled(value)}" for name, value in chosen.items() if name not in RECIPE_AXES]
    if not own:
        return text
    return text + (("," if ":" in text else ":") + ",".join(own))


PLAIN = Recipe("adamw", 1.0, "to check values by")


def _overrides(chosen: Mapping[str, str], given: Mapping[str, Any], how: str = "--sweep") -> dict[str, Any]:
    """The recipe's values, those that are swept over among them."""
    values = dict(given)
    for name, text in chosen.items():
        if name in RECIPE_AXES:
            try:
                values[name.replace("-", "_")] = RECIPE_AXES[name](text)
            except ValueError:
                kind = {float: "a number", int: "a whole number"}[RECIPE_AXES[name]]
                raise UserError(f"{how} {name}={text}: give {kind}") from None
    return values


def banked(candidates: Sequence[Candidate], *, rates_apart: bool = True) -> list[list[Candidate]]:
    """The candidates of each bank: those that differ in their rate alone together.

    Of methods whose members share something each rate has a bank of its own (`rates_apart`), so that what is kept names no
    stranger.
    """
    groups: dict[object, list[Candidate]] = {}
    for one in candidates:
        rate = one.recipe.lr if one.method.shares and rates_apart else 0.0
        groups.setdefault((one.method, replace(one.recipe, lr=1.0), rate), []).append(one)
    return list(groups.values())


def until(steps: int, rung: float) -> int:
    """The step that a share of all steps comes to."""
    return max(1, math.ceil(rung * steps))


def most_steps(plans: Sequence[tuple[int, int]], *, halving: bool) -> list[int]:
    """The steps that contestants of one place take at most, by (steps, steps between evaluations) of each.

    Who is stopped is not known before: those that take the longest are taken to go on.
    """
    if not halving:
        return [steps for steps, _ in plans]
    order = sorted(range(len(plans)), key=lambda number: plans[number][0], reverse=True)
    taken, left = [0] * len(plans), len(plans)
    for rung in (*RUNGS, 1.0):
        for number in order[:left]:
            steps, every = plans[number]
            taken[number] = min(steps, math.ceil(until(steps, rung) / every) * every)
        left = math.ceil(left / 2)
    return taken
