"""Several heatmaps side by side on one scale of colours: a panel a method, so that methods can be compared cell by cell.

Panels have the same columns and stand in the order in which they are given; each keeps its own sources and rows for
reference. A target that a panel lacks is drawn as a cell that cannot be. What all names begin with is said once, and where
all panels have the same rows these are named at the left of each line only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from analysis.figures.cells import LARGEST_NAMED, Scale, choose_scale, colour_bar, draw_cells
from analysis.figures.margins import name_axes
from analysis.figures.style import Figure, figure_style
from analysis.matrices import order_by_type, shared_prefix, split_references
from tasks.errors import UserError

_ACROSS = 4  # panels on a line
_LEFT, _ABOVE, _BELOW, _APART = 1.5, 0.3, 1.1, 0.12
_BETWEEN = 0.25  # between panels whose names stand at the left of the line or below the column
Panel = tuple[pd.DataFrame, pd.DataFrame]
"""Sources, and rows for reference."""


def heatmaps(
    tables: Mapping[str, pd.DataFrame],
    types: Mapping[str, str] | None = None,
    *,
    title: str = "",
    value_label: str = "",
) -> Figure:
    """A figure of several tables [sources, targets], name of the panel -> table; all have one scale of colours."""
    if not tables or not any(np.isfinite(t.to_numpy(dtype=float)).any() for t in tables.values()):
        raise UserError("there is nothing to draw: no table has a number in it")
    targets = list(dict.fromkeys(column for table in tables.values() for column in table.columns))
    largest = max(len(targets), *(len(table) for table in tables.values()))
    if largest > LARGEST_NAMED:
        raise UserError(
            f"a matrix of {largest} rows or columns is too large to stand beside others (at most {LARGEST_NAMED}): draw "
            f"each for itself"
        )
    columns = order_by_type(targets, types or {})
    panels = {name: _panel(table.reindex(columns=columns), types or {}) for name, table in tables.items()}
    shared = shared_prefix([*columns, *(str(row) for body, _ in panels.values() for row in body.index)])
    before = shared_prefix(list(panels))
    panels = {name.removeprefix(before): _shortened(panel, shared) for name, panel in panels.items()}
    with figure_style():
        return _draw(panels, title, value_label)


def _shortened(panel: Panel, shared: str) -> Panel:
    """The panel with names that lack what all begin with."""

    def short(name: object) -> str:
        return str(name).removeprefix(shared)

    def alike(name: object) -> str:
        """`random prompt` and `random adaptation` are one row of all panels."""
        return "random" if str(name) in ("random prompt", "random adaptation") else str(name)

    body, below = panel
    return body.rename(index=short, columns=short), below.rename(index=alike, columns=short)


def _panel(table: pd.DataFrame, types: Mapping[str, str]) -> Panel:
    body, below = split_references(table)
    return body.loc[order_by_type(list(body.index), types)], below


def _draw(panels: Mapping[str, Panel], title: str, value_label: str) -> Figure:
    """The panels in lines, each as high as its own needs, and one bar of colours at the right."""
    bodies, belows = zip(*panels.values(), strict=True)
    scale = choose_scale(pd.concat(bodies), pd.concat(belows))
    lines = [list(panels.items())[start : start + _ACROSS] for start in range(0, len(panels), _ACROSS)]
    rows = {(*body.index, None, *below.index) for body, below in panels.values()}
    alike = len(rows) == 1  # then names stand at the left of a line and below a column only
    columns = bodies[0].shape[1]
    cell = 0.36 if columns <= 8 else max(0.16, 2.9 / columns)
    heights = [max(_height(panel, cell) for _, panel in line) for line in lines]
    across = len(lines[0])
    step = cell * columns + (_BETWEEN if alike else _LEFT)
    width = _LEFT + (across - 1) * step + cell * columns + 1.0
    gaps = [_BETWEEN if alike and len(below) == across else _BELOW for below in [*lines[1:], []]]
    height = sum(heights) + sum(gaps) + len(lines) * _ABOVE + (0.35 if title else 0.1)
    figure = Figure(figsize=(width, height))
    top = height - (0.35 if title else 0.1)
    for number, (line, high) in enumerate(zip(lines, heights, strict=True)):
        under = len(lines[number + 1]) if number + 1 < len(lines) else 0
        for place, (name, panel) in enumerate(line):
            named = (not alike or place == 0, not alike or place >= under)
            _draw_panel(figure, panel, scale, cell, (_LEFT + place * step, top - _ABOVE), name, named)
        top -= high + _ABOVE + gaps[number]
    long = min(heights[0], 1.6)
    bar = _axes(figure, width - 0.85, height - (0.35 if title else 0.1) - _ABOVE - long, 0.13, long)
    colour_bar(bar, scale, value_label)
    if title:
        figure.text(_LEFT / width, 1 - 0.25 / height, title, fontsize=10, fontweight="bold", va="center")
    return figure


def _height(panel: Panel, cell: float) -> float:
    body, below = panel
    return cell * (len(body) + len(below)) + (_APART if len(below) else 0.0)


def _draw_panel(
    figure: Figure,
    panel: Panel,
    scale: Scale,
    cell: float,
    corner: Sequence[float],
    name: str,
    named: tuple[bool, bool],
) -> None:
    """One panel whose upper left corner is at `corner`, in inches; `named`: whether its rows and columns are."""
    body, below = panel
    left, top = corner
    wide = cell * body.shape[1]
    main = lowest = _axes(figure, left, top - cell * len(body), wide, cell * len(body))
    draw_cells(main, body, scale, cell)
    main.set_title(name, fontsize=8.5, fontweight="bold", loc="left", pad=4)
    if len(below):
        high = cell * len(below)
        lowest = _axes(figure, left, top - cell * len(body) - _APART - high, wide, high)
        draw_cells(lowest, below, scale, cell)
    name_axes(main, lowest, body, below, (cell, cell, cell))
    for axes in (main, lowest):
        axes.set(xlabel="", ylabel="")
        if not named[0]:
            axes.set_yticks([])
    if not named[1]:
        lowest.set_xticks([])


def _axes(figure: Figure, left: float, bottom: float, width: float, height: float) -> Axes:
    """Axes at a place in inches."""
    wide, high = figure.get_size_inches()
    return figure.add_axes((left / wide, bottom / high, width / wide, height / high))
