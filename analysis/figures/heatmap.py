"""The heatmap: transfer (or similarity) between every two tasks, tasks of one type standing together.

Rows are sources, columns targets. Values are written in the cells; a cell that cannot be is hatched with a dash;
rows for reference (no prompt, random prompt, majority) stand below, apart. With `cluster` the order is by average
linkage of the symmetrised table instead of by type, with the tree on top and types as chips beside the names.
A table of more than LARGEST_NAMED rows or columns is one image of bounded size, without numbers, names or tree.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from numpy.typing import NDArray
from scipy.cluster.hierarchy import leaves_list, linkage, optimal_leaf_ordering
from scipy.spatial.distance import squareform

from analysis.figures.cells import LARGEST_NAMED, choose_scale, colour_bar, draw_cells
from analysis.figures.margins import brackets, chips, draw_tree, name_axes, overhang
from analysis.figures.style import Figure, figure_style
from analysis.matrices import order_by_type, split_references
from tasks.errors import UserError


def heatmap(
    table: pd.DataFrame,
    types: Mapping[str, str] | None = None,
    *,
    title: str = "",
    value_label: str = "",
    cluster: bool = False,
    references: Sequence[str] | None = None,
    limits: tuple[float, float] | None = None,
) -> Figure:
    """A figure of `table` [sources, targets]; `types` maps a task to its type, `references` names rows to set apart.

    `limits` are the ends of the scale of colours, where several figures are to have one (`common_limits`).
    """
    if table.empty or not np.isfinite(table.to_numpy(dtype=float)).any():
        raise UserError("there is nothing to draw: the table has no number in it")
    types = types or {}
    body, below = _split(table, references)
    tree = None
    if cluster:
        order, tree = _cluster_order(body)
        body = body.loc[order, order]
        if len(body) > LARGEST_NAMED:  # neither a tree nor the type of a row could be made out
            tree, types = None, {}
    else:
        body = body.loc[order_by_type(list(body.index), types), order_by_type(list(body.columns), types)]
    below = below[body.columns]
    with figure_style():
        return _draw(body, below, types, (title, value_label), tree, limits)


def common_limits(tables: Sequence[pd.DataFrame]) -> tuple[float, float]:
    """Ends of one scale of colours over the tables of several heatmaps."""
    scales = [choose_scale(*_split(table, None)) for table in tables]
    return min(scale.low for scale in scales), max(scale.high for scale in scales)


def _split(table: pd.DataFrame, references: Sequence[str] | None) -> tuple[pd.DataFrame, pd.DataFrame]:
    if references is None:
        return split_references(table)
    apart = table.index.isin(list(references))
    return table[~apart], table[apart]


def _cluster_order(body: pd.DataFrame) -> tuple[list[str], NDArray[np.float64]]:
    """Order of the labels by average linkage, and the tree; distance falls with the mean of both ways."""
    if set(body.index) != set(body.columns):
        odd = sorted(set(map(str, body.index)) ^ set(map(str, body.columns)))
        raise UserError(
            f"clustering needs the same tasks on both sides; on one side only: {', '.join(odd[:8])}"
        )
    if len(body) < 3:
        raise UserError(f"clustering needs at least 3 tasks; given {len(body)}")
    labels = list(body.columns)
    values = body.loc[labels, labels].to_numpy(dtype=float)
    both = (values + values.T) / 2
    if not np.isfinite(both[~np.eye(len(both), dtype=bool)]).all():
        raise UserError("clustering needs every cell; some are empty: order by type instead")
    apart = both[~np.eye(len(both), dtype=bool)]
    distance = apart.max() + 0.1 * np.ptp(apart) - both  # a shift: it moves the tree up, not the order
    np.fill_diagonal(distance, 0)
    condensed = squareform(distance, checks=False)
    tree = linkage(condensed, method="average")
    if len(labels) <= LARGEST_NAMED:  # the best order of the leaves takes time with the cube of their number
        tree = optimal_leaf_ordering(tree, condensed)
    return [labels[i] for i in leaves_list(tree)], tree


_IMAGE = 9.0


def _readable(count: int) -> float:
    """Inches of a cell whose name can be read, in a figure that is as narrow as that allows."""
    return 0.36 if count <= 20 else max(0.16, 7.2 / count)


@dataclass(frozen=True)
class _Frame:
    """Where things stand, in inches: cells of `cell`, the body above the rows for reference, room around them.

    Cells are square as long as each can be read; an image is at most _IMAGE inches wide and high.
    """

    rows: int
    columns: int
    below: int
    tree: float

    @property
    def cell(self) -> float:
        """Width of a cell."""
        return _IMAGE / self.columns if self.columns > LARGEST_NAMED else _readable(self.columns)

    @property
    def row(self) -> float:
        """Height of a row of the body."""
        if self.rows > LARGEST_NAMED:
            return _IMAGE / self.rows
        return _readable(self.rows) if self.columns > LARGEST_NAMED else self.cell

    @property
    def below_row(self) -> float:
        """Height of a row for reference, which keeps its name."""
        return max(0.16, self.row)

    @property
    def width(self) -> float:
        return self.cell * self.columns

    @property
    def body(self) -> float:
        """Height of all rows of the body."""
        return self.row * self.rows

    @property
    def foot(self) -> float:
        return self.below_row * self.below + (0.22 if self.below else 0.0)

    @property
    def height(self) -> float:
        return self.foot + self.body + self.tree

    @property
    def size(self) -> tuple[float, float]:
        return self.width + 3, self.height + 2

    def at(self, left: float, bottom: float) -> tuple[float, float]:
        """A place in inches from the lower left cell, as shares of the figure."""
        return (1.5 + left) / self.size[0], (1.2 + bottom) / self.size[1]

    def axes(self, figure: Figure, left: float, bottom: float, width: float, height: float) -> Axes:
        return figure.add_axes((*self.at(left, bottom), width / self.size[0], height / self.size[1]))


def _draw(
    body: pd.DataFrame,
    below: pd.DataFrame,
    types: Mapping[str, str],
    words: tuple[str, str],
    tree: NDArray[np.float64] | None,
    limits: tuple[float, float] | None,
) -> Figure:
    title, value_label = words
    frame = _Frame(*body.shape, below=len(below), tree=0.0 if tree is None else 0.55)
    scale, cell = choose_scale(body, below, limits), frame.cell
    figure = Figure(figsize=frame.size)
    main = lowest = frame.axes(figure, 0, frame.foot, frame.width, frame.body)
    draw_cells(main, body, scale, cell)
    if len(below):
        lowest = frame.axes(figure, 0, 0, frame.width, frame.below_row * frame.below)
        draw_cells(lowest, below, scale, cell)
    name_axes(main, lowest, body, below, (cell, frame.row, frame.below_row))
    right, above = 0.22, 0.1
    if tree is not None:
        draw_tree(
            frame.axes(figure, 0, frame.height - frame.tree + 0.04, frame.width, frame.tree - 0.06), tree
        )
        chips(main, list(body.index), types)
    elif types:
        brackets(main, body, types, (max(1.0, 0.16 / cell), max(1.0, 0.16 / frame.row)))
        over = overhang(body, types)
        right, above = 0.62 + max(0.0, over - 0.3), 0.36 + 0.55 * over
    long = min(frame.body, max(frame.row * min(frame.rows / 2, 8), min(frame.body, 1.44)))
    bar = frame.axes(figure, frame.width + right, frame.height - frame.tree - long, 0.13, long)
    colour_bar(bar, scale, value_label)
    if title:
        figure.text(*frame.at(0, frame.height + above), title, fontsize=10, fontweight="bold", va="bottom")
    return figure
