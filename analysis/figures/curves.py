"""Curves over steps and over shares: learning from scratch against from a transferred prompt, and masking of neurons.

Lines are means over seeds (or draws), bands run from the lowest to the highest of them: with three seeds a standard
error would pretend to more. Only seeds of one recipe are averaged: runs of two recipes are two lines.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes

from analysis.figures.style import (
    INK,
    MUTED,
    RULE,
    SCRATCH_COLOUR,
    TRANSFER_COLOUR,
    Figure,
    figure_style,
    shorten,
)
from analysis.matrices import check_names
from tasks.documents import shortened
from tasks.errors import UserError

SCRATCH = "scratch"
_LINES = (TRANSFER_COLOUR, "#D55E00", "#009E73", "#CC79A7", "#B8860B")
_DASHES: tuple[Any, ...] = (
    "-",
    (0, (5, 1.5)),
    (0, (1, 1)),
    (0, (3, 1, 1, 1)),
    (0, (7, 2)),
)
_SCRATCH_LINES = (SCRATCH_COLOUR, "#1A1A1A", "#A0A0A0", "#8C6D46")
MOST_PANELS, MOST_LINES = 48, 20
_MARKS = ("o", "s", "^", "D", "v")


NUMBERS = frozenset({"step", "score", "share", "layer", "mean", "low", "high"})
NAMES = frozenset({"task", "start", "kind", "pair"})


def _checked(table: pd.DataFrame, columns: Sequence[str], what: str) -> pd.DataFrame:
    missing = [c for c in columns if c not in table.columns]
    if missing or table.empty:
        needed = ", ".join(columns)
        raise UserError(
            f"{what} need columns {needed} and at least one row; missing: {', '.join(missing) or 'rows'}"
        )
    made = table.copy()
    for column in columns:
        if column in NUMBERS:
            made[column] = _numbers(table[column], what)
        elif column in NAMES:
            if table[column].isna().any():
                raise UserError(
                    f"{what}: column {column!r} is empty in row {int(table[column].isna().argmax()) + 1}"
                )
            made[column] = table[column].astype(str)
            check_names(made[column], f"{what}: column {column!r},")
    return made


def _numbers(column: pd.Series, what: str) -> pd.Series:
    """The column as finite floats."""
    values = pd.to_numeric(column, errors="coerce").astype(float)
    wrong = ~np.isfinite(values.to_numpy())
    if wrong.any():
        row = int(wrong.argmax())
        raise UserError(
            f"{what}: column {column.name!r} holds {shortened(str(column.iloc[row]))!r} in row {row + 1}: it needs numbers"
        )
    return values


def learning_curves(table: pd.DataFrame, *, title: str = "", score_label: str = "validation score") -> Figure:
    """A panel a task of a table with columns task, start (`scratch` or a source), seed, step, score.

    A column `recipe` tells runs apart that differ in more than the seed; each recipe has its own lines. A thin line
    marks the best mean score from scratch (of the same recipe), and a ring the step at which each start first reaches
    it. Of more than MOST_PANELS tasks the first are drawn; more than MOST_LINES sources become one line.
    """
    table = _told_apart(_checked(table, ("task", "start", "seed", "step", "score"), "learning curves"))
    tasks = list(dict.fromkeys(table["task"]))
    if len(tasks) > MOST_PANELS:
        left_out = f"the first {MOST_PANELS} of {len(tasks):,} tasks"
        title, tasks = (f"{title} ({left_out})" if title else left_out), tasks[:MOST_PANELS]
        table = table[table["task"].isin(tasks)]
    lines = sorted(
        dict.fromkeys(zip(table["start"], table["recipe"], strict=True)), key=lambda s: s[0] != SCRATCH
    )
    across = min(len(tasks), 4)
    down = -(-len(tasks) // across)
    rows_of_names = -(-len(lines) // (2 if len({recipe for _, recipe in lines}) > 1 else 5))
    with figure_style():
        figure = Figure(
            figsize=(0.6 + 2.15 * across, 0.75 + 0.15 * rows_of_names + 1.75 * down), layout="constrained"
        )
        panels = figure.subplots(down, across, squeeze=False, sharey=True)
        for axes, task in zip(panels.flat, tasks, strict=False):
            _learning_panel(axes, table[table["task"] == task], lines)
            axes.set_title(shorten(str(task)), fontsize=8)
        for axes in panels.flat[len(tasks) :]:
            axes.remove()
        for axes in [*panels[-1], *panels.flat[len(tasks) - across : len(tasks)]]:
            axes.set_xlabel("training step")
        _label_outer(figure, score_label, title)
        handles: dict[str, Artist] = {}
        for axes in panels.flat[: len(tasks)]:
            handles.update(zip(*axes.get_legend_handles_labels()[::-1], strict=True))
        named = [name for line in lines if (name := _line_name(table, *line)) in handles]
        columns = min(-(-len(named) // rows_of_names), len(named))
        figure.legend([handles[n] for n in named], named, loc="outside lower center", ncols=columns)
    return figure


def _told_apart(table: pd.DataFrame) -> pd.DataFrame:
    """The table with a column `recipe`, every run once; UserError where two runs cannot be told apart."""
    known = table["recipe"].fillna("").astype(str) if "recipe" in table.columns else ""
    table = table.assign(recipe=known)[["task", "start", "recipe", "seed", "step", "score"]].drop_duplicates()
    same = table.duplicated(["task", "start", "recipe", "seed", "step"])
    if same.any():
        first = table[same].iloc[0]
        raise UserError(
            f"learning curves: task {first['task']}, start {first['start']}, seed {first['seed']} has two scores at step "
            f"{first['step']:g}: tell the runs apart by a column recipe, only seeds of one recipe are averaged"
        )
    sources = [start for start in dict.fromkeys(table["start"]) if start != SCRATCH]
    if len(sources) > MOST_LINES:
        table["seed"] = table["start"].astype(str) + " " + table["seed"].astype(str)
        table["start"] = table["start"].where(table["start"] == SCRATCH, f"{len(sources)} other prompts")
    return table


def _line_name(table: pd.DataFrame, start: str, recipe: str) -> str:
    """What a line is: its start, its recipe where there are several, and how many seeds it is the mean of."""
    seeds = table[(table["start"] == start) & (table["recipe"] == recipe)]["seed"]
    more, what = [recipe] if recipe else [], "seeds" if pd.api.types.is_numeric_dtype(seeds) else "runs"
    count = seeds.nunique()
    return f"from {', '.join([start, *more])}" + (f" ({count} {what})" if count > 1 else "")


def _learning_panel(axes: Axes, table: pd.DataFrame, lines: Sequence[tuple[str, str]]) -> None:
    goals: dict[str, float] = {}
    recipes = list(dict.fromkeys(recipe for _, recipe in lines))
    starts = [start for start in dict.fromkeys(start for start, _ in lines) if start != SCRATCH]
    for start, recipe in lines:
        rows = table[(table["start"] == start) & (table["recipe"] == recipe)]
        if rows.empty:
            continue
        steps = rows.groupby("step")["score"].agg(["mean", "min", "max"])
        scratch, kind = start == SCRATCH, recipes.index(recipe)
        style = 0 if scratch else starts.index(start) * len(recipes) + kind
        colour = _SCRATCH_LINES[kind % len(_SCRATCH_LINES)] if scratch else _LINES[style % len(_LINES)]
        dashes = (
            (0, (4, 2)) if scratch and kind == 0 else _DASHES[(style // len(_LINES) + kind) % len(_DASHES)]
        )
        axes.fill_between(steps.index, steps["min"], steps["max"], color=colour, alpha=0.15, linewidth=0)
        name = _line_name(table, start, recipe)
        axes.plot(steps.index, steps["mean"], color=colour, label=name, linewidth=1.3, linestyle=dashes)
        if scratch:
            goals[recipe] = float(steps["mean"].max())
            axes.axhline(goals[recipe], color=RULE, linewidth=0.8, zorder=0)
        there = steps.index[steps["mean"] >= goals.get(recipe, np.inf) - 1e-12]
        if len(there):
            first = there[0]
            axes.plot(
                first,
                steps["mean"][first],
                "o",
                color=colour,
                markerfacecolor="white",
                markersize=4.5,
                zorder=3,
            )
    axes.margins(x=0.03)


def masking_curves(table: pd.DataFrame, *, title: str = "", score_label: str = "score") -> Figure:
    """One panel of a table with columns share (0 to 1), kind (which neurons: `specific`, `random`), draw, score."""
    table = _checked(table, ("share", "kind", "draw", "score"), "masking curves")
    kinds = sorted(dict.fromkeys(table["kind"]), key=lambda k: k == "random")
    with figure_style():
        figure = Figure(figsize=(4.2, 3.0 + 0.17 * len(kinds)), layout="constrained")
        axes = figure.subplots()
        for place, kind in enumerate(kinds):
            steps = table[table["kind"] == kind].groupby("share")["score"].agg(["mean", "min", "max"])
            random = kind == "random"
            colour = SCRATCH_COLOUR if random else _LINES[place % len(_LINES)]
            axes.fill_between(
                steps.index * 100, steps["min"], steps["max"], color=colour, alpha=0.18, linewidth=0
            )
            draws = table[table["kind"] == kind]["draw"].nunique()
            axes.plot(
                steps.index * 100, steps["mean"], marker=_MARKS[place % len(_MARKS)], markersize=3.5, color=colour,
                linestyle=(0, (4, 2)) if random else "-", linewidth=1.3,
                label=f"{kind} neurons" + (f" (mean and range of {draws} draws)" if draws > 1 else ""),
            )  # fmt: skip
        axes.set(xlabel="neurons switched off, %", ylabel=score_label)
        axes.margins(x=0.03)
        figure.legend(loc="outside lower left")  # below: lines that fall leave no corner free
        if title:
            axes.set_title(title)
    return figure


def layer_curves(table: pd.DataFrame, *, title: str = "", value_label: str = "mean overlap ON") -> Figure:
    """Overlap by layer of a table with columns layer, pair (`same type`, `different type`), mean, low, high."""
    table = _checked(table, ("layer", "pair", "mean", "low", "high"), "layer curves")
    with figure_style():
        figure = Figure(figsize=(4.2, 2.9))
        axes = figure.add_axes((0.13, 0.16, 0.84, 0.73))
        for place, (pair, rows) in enumerate(table.groupby("pair", sort=False)):
            colour = (TRANSFER_COLOUR, "#D55E00")[place % 2]
            axes.fill_between(rows["layer"], rows["low"], rows["high"], color=colour, alpha=0.15, linewidth=0)
            axes.plot(
                rows["layer"],
                rows["mean"],
                marker=_MARKS[place % len(_MARKS)],
                markersize=3.5,
                color=colour,
                label=str(pair),
                linewidth=1.3,
            )
        layers = np.unique(table["layer"])
        axes.set_xticks(layers[:: max(1, len(layers) // 12)])
        axes.set(xlabel="layer", ylabel=value_label)
        axes.legend(loc="best")
        if title:
            axes.set_title(title)
    return figure


def _label_outer(figure: Figure, y_label: str, title: str) -> None:
    figure.supylabel(y_label, fontsize=8, color=INK)
    if title:
        figure.suptitle(title, fontsize=9, fontweight="bold", x=0.01, ha="left", color=INK)
    for axes in figure.axes:
        axes.tick_params(length=2, color=MUTED)
