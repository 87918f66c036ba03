"""How much each source counts for each target, where prompts are mixed by weights: mean over rows, and how far rows differ."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.gridspec import GridSpec

from analysis.figures.cells import COLOURS, Scale, choose_scale, colour_bar, draw_cells
from analysis.figures.style import INK, MUTED, Figure, figure_style
from tasks.errors import UserError

CELL = 0.62
"""Inches of a cell, which holds two numbers."""


def weights_heatmap(mean: pd.DataFrame, spread: pd.DataFrame, *, title: str = "") -> Figure:
    """A heatmap of mean weights, rows targets, columns sources; under each its standard deviation over rows of text.

    NaN where a source is not one of a target's. Raises UserError where there is no weight.
    """
    if mean.empty or not np.isfinite(mean.to_numpy(dtype=float)).any():
        raise UserError("there is nothing to draw: the table has no weight in it")
    most = float(np.nanmax(mean.to_numpy(dtype=float)))
    scale = choose_scale(mean, mean.iloc[:0], (0.0, most))
    rows, columns = mean.shape
    with figure_style():
        figure = Figure(figsize=(CELL * columns + 2.6, CELL * rows + 1.9), layout="constrained")
        grid = GridSpec(1, 2, figure, width_ratios=(columns, 0.2))
        axes = figure.add_subplot(grid[0])
        draw_cells(axes, mean, scale, CELL)
        _write_spread(axes, mean, spread, scale)
        axes.set_xticks([place + 0.5 for place in range(columns)], mean.columns, rotation=40, ha="right")
        axes.set_yticks([place + 0.5 for place in range(rows)], mean.index, rotation=0)
        axes.tick_params(length=0, labelsize=7)
        colour_bar(figure.add_subplot(grid[1]), scale, "mean weight")
        axes.set_xlabel("under each mean: ± deviation over rows of text", fontsize=6, color=MUTED)
        if title:
            axes.set_title(title)
    return figure


def _write_spread(axes: Axes, mean: pd.DataFrame, spread: pd.DataFrame, scale: Scale) -> None:
    means = mean.to_numpy(dtype=float)
    for (row, column), value in np.ndenumerate(spread.to_numpy(dtype=float)):
        if not np.isfinite(value):
            continue
        red, green, blue, _ = COLOURS(float(means[row, column] / scale.high))
        dark = 0.299 * red + 0.587 * green + 0.114 * blue < 0.52
        written = f"±{value:.3f}".replace("0.", ".", 1)
        axes.text(
            column + 0.5, row + 0.78, written, ha="center", va="center", fontsize=5,
            color="white" if dark else INK,
        )  # fmt: skip
