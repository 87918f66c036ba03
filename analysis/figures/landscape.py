"""Loss between adaptations: a curve along the line through two, contours over the plane through three."""

from __future__ import annotations

import pandas as pd

from analysis.figures.style import INK, MUTED, TRANSFER_COLOUR, Figure, figure_style
from tasks.errors import UserError


def landscape(table: pd.DataFrame, *, value: str = "loss", title: str = "", label: str = "") -> Figure:
    """The figure of a table with a column `a` (0 and 1 are two adaptations), on a plane also `b`, one a name, and `value`.

    On a plane the adaptations lie at (0, 0), (1, 0) and (0, 1). Raises UserError where a value is missing.
    """
    plane = "b" in table.columns
    names = [str(c) for c in table.columns if c not in ("a", "b", "score", "loss")]
    if value not in table.columns or "a" not in table.columns or len(names) != 2 + plane:
        raise UserError(
            f"a landscape needs columns a{', b' * plane}, one for each of {2 + plane} adaptations, and {value}; given "
            f"{', '.join(map(str, table.columns))}"
        )
    if table[value].isna().any():
        raise UserError(f"{value} is not known at every place: draw the score instead, with --value score")
    with figure_style():
        figure = Figure(figsize=(4.4, 3.8) if plane else (4.4, 2.8), layout="constrained")
        axes = figure.subplots()
        (_plane if plane else _line)(figure, axes, table, names, value, label or value)
        axes.set_title(title)
    return figure


def _line(figure, axes, table, names, value, label) -> None:
    axes.plot(table["a"], table[value], color=TRANSFER_COLOUR, linewidth=1.4, marker="o", markersize=3)
    for place, name in enumerate(names):
        axes.axvline(place, color=MUTED, linewidth=0.7, linestyle=(0, (3, 3)))
        axes.annotate(
            name, (place, 1), xycoords=("data", "axes fraction"), xytext=(3, -3), textcoords="offset points",
            va="top", color=INK, fontsize=7,
        )  # fmt: skip
    axes.set_xlabel(f"share of {names[1]} (the rest is {names[0]})")
    axes.set_ylabel(label)


def _plane(figure, axes, table, names, value, label) -> None:
    grid = table.pivot(index="b", columns="a", values=value)
    drawn = axes.contourf(grid.columns, grid.index, grid.to_numpy(), levels=12, cmap="cividis")
    axes.contour(grid.columns, grid.index, grid.to_numpy(), levels=12, colors="white", linewidths=0.3)
    figure.colorbar(drawn, ax=axes, label=label)
    for (x, y), name in zip([(0, 0), (1, 0), (0, 1)], names, strict=True):
        axes.plot(x, y, marker="o", color="white", markeredgecolor=INK, markersize=6)
        axes.annotate(
            name, (x, y), xytext=(0, 7), textcoords="offset points", ha="center", fontsize=7, color=INK,
            bbox={"facecolor": "white", "alpha": 0.8, "linewidth": 0, "pad": 1},
        )  # fmt: skip
    axes.set_xlabel(f"share of {names[1]}")
    axes.set_ylabel(f"share of {names[2]}")
