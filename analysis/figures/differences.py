"""Differences with intervals, a row each and a panel a condition: which lie beside 0, and by how much."""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

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
from tasks.errors import UserError

COLUMNS = ("panel", "row", "difference", "low", "high", "significant")


def difference_rows(table: pd.DataFrame, *, title: str = "", value_label: str = "difference") -> Figure:
    """Panels side by side on one scale, of a table with columns panel, row, difference, low, high, significant.

    Filled marks are significant ("yes"), empty ones are not; without low and high there is no line.
    """
    missing = [column for column in COLUMNS if column not in table.columns]
    if missing or table.empty:
        raise UserError(
            f"differences need columns {', '.join(COLUMNS)}; missing: {', '.join(missing) or 'rows'}"
        )
    rows, panels = list(dict.fromkeys(table["row"])), list(dict.fromkeys(table["panel"]))
    with figure_style():
        figure = Figure(figsize=(2.4 + 2.1 * len(panels), 1.1 + 0.21 * len(rows)), layout="constrained")
        axes_of = figure.subplots(1, len(panels), squeeze=False, sharex=True, sharey=True)[0]
        for axes, panel in zip(axes_of, panels, strict=True):
            _panel(axes, table[table["panel"] == panel], rows)
            axes.set_title(shorten(str(panel)), fontsize=8)
        axes_of[0].set_yticks(range(len(rows)), [shorten(str(row), 34) for row in rows])
        axes_of[0].set_ylim(len(rows) - 0.5, -0.5)
        figure.supxlabel(value_label, fontsize=8, color=INK)
        if title:
            figure.suptitle(title, fontsize=9, fontweight="bold", x=0.01, ha="left", color=INK)
    return figure


def _panel(axes: Axes, table: pd.DataFrame, rows: list[str]) -> None:
    axes.axvline(0, color=MUTED, linewidth=0.8, zorder=1)
    numbers = table[["difference", "low", "high"]].astype(float).to_numpy()
    for row, significant, (middle, low, high) in zip(
        table["row"], table["significant"], numbers, strict=True
    ):
        place, shown = rows.index(str(row)), significant == "yes"
        colour = TRANSFER_COLOUR if shown else SCRATCH_COLOUR
        if low == low and high == high:
            axes.plot([low, high], [place, place], color=colour, linewidth=1.3, zorder=2)
        axes.plot(
            [middle], [place], "o", color=colour, markersize=4, markerfacecolor=colour if shown else "white",
            zorder=3,
        )  # fmt: skip
    axes.grid(axis="y", color=RULE, linewidth=0.4)
    axes.xaxis.set_major_locator(MaxNLocator(5))  # more of them would touch where panels are narrow
    axes.tick_params(axis="y", length=0)
