"""The projector table: what each way across models reaches on each task, controls below a rule.

A projector counts for something only where it beats the controls (a random prompt, a constant prompt that ignores
its input), so they stand in the same table; the best projector of a column is bold.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from analysis.figures.style import INK, MUTED, RULE, Figure, figure_style, shorten
from tasks.errors import UserError

MOST_ROWS, MOST_COLUMNS = 80, 30


def projector_table(
    table: pd.DataFrame, controls: Sequence[str] = (), *, title: str = "", decimals: int = 1
) -> Figure:
    """A figure of `table` (rows projectors and controls, columns tasks or task groups); empty cells get a dash."""
    if table.empty:
        raise UserError("there is nothing to draw: the projector table is empty")
    absent = [c for c in controls if c not in table.index]
    if absent:
        raise UserError(f"controls that are not rows of the table: {', '.join(absent)}")
    if len(table) > MOST_ROWS or table.shape[1] > MOST_COLUMNS:
        raise UserError(
            f"the projector table has {len(table):,} rows and {table.shape[1]:,} columns; a figure holds {MOST_ROWS} and "
            f"{MOST_COLUMNS}: draw a part of it"
        )
    rows = [r for r in table.index if r not in controls] + list(controls)
    line, first = 0.24, 0.2 + 0.075 * max(len(shorten(str(r), 40)) for r in rows)
    wide = max(0.62, 0.075 * max(len(shorten(str(c))) for c in table.columns) + 0.14)
    width, height = first + wide * len(table.columns), line * (len(rows) + 1.4)
    with figure_style():
        figure = Figure(figsize=(width, height + (0.3 if title else 0)))
        axes = figure.add_axes((0, 0, 1, height / (height + (0.3 if title else 0))))
        axes.set(xlim=(0, width), ylim=(height, 0))
        axes.axis("off")
        right = [first + wide * (i + 1) - 0.08 for i in range(len(table.columns))]
        for x, column in zip(right, table.columns, strict=True):
            axes.text(x, line * 0.75, shorten(str(column)), ha="right", va="center", color=INK, fontsize=8)
        rules = {1.2: 0.9, 1.2 + len(rows): 0.9, 1.2 + len(rows) - len(controls): 0.5}
        for place, weight in rules.items():
            axes.plot([0, width], [line * place] * 2, color=INK if weight > 0.6 else RULE, linewidth=weight)
        best = table.loc[rows[: len(rows) - len(controls)]].max() if len(controls) < len(rows) else None
        for number, row in enumerate(rows):
            y = line * (1.75 + number)
            style = "italic" if row in controls else "normal"
            axes.text(0.05, y, shorten(str(row), 40), va="center", fontstyle=style, fontsize=8)
            for x, column in zip(right, table.columns, strict=True):
                value = table.loc[row, column]
                written = f"{value:.{decimals}f}" if np.isfinite(value) else "–"
                top = best is not None and row not in controls and value == best[column]
                axes.text(
                    x, y, written, ha="right", va="center", fontsize=8, fontstyle=style,
                    fontweight="bold" if top else "normal", color=MUTED if written == "–" else INK,
                )  # fmt: skip
        if title:
            figure.text(0.05 / width, 1, title, fontsize=9, fontweight="bold", va="top")
    return figure
