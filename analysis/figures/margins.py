"""The margins of a heatmap: names of tasks, brackets round the tasks of one type, the tree of a clustering."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.patches import Patch, Rectangle
from numpy.typing import NDArray
from scipy.cluster.hierarchy import dendrogram

from analysis.figures.cells import LARGEST_NAMED
from analysis.figures.style import MUTED, shorten, type_colours, type_runs

_MOST_TYPES = 40  # above this many types their names cover each other, and no bracket is drawn
_BAR: Any = {"linewidth": 2.4, "clip_on": False, "solid_capstyle": "butt"}


def name_axes(
    main: Axes, lowest: Axes, body: pd.DataFrame, below: pd.DataFrame, sizes: tuple[float, float, float]
) -> None:
    """Names of rows and columns as far as there is room, else their number; those of rows for reference in italics.

    `sizes`: inches of a column, of a row, of a row for reference.
    """
    across, *heights = sizes
    for axes, table, height in zip((main, lowest), (body, below), heights, strict=True):
        if 0 < len(table) <= LARGEST_NAMED:
            names = [shorten(str(r)) for r in table.index]
            axes.set_yticks(np.arange(len(table)) + 0.5, names, rotation=0, fontsize=_type_size(height))
            axes.tick_params(axis="both", length=0, pad=3)
    if len(below):
        for label in lowest.get_yticklabels():
            label.set_fontstyle("italic")
        main.set_xticks([])
    if body.shape[1] <= LARGEST_NAMED:
        names = [shorten(str(c)) for c in body.columns]
        size = _type_size(across)
        places = np.arange(len(names)) + 0.5
        lowest.set_xticks(places, names, rotation=45, ha="right", rotation_mode="anchor", fontsize=size)
    values = body.to_numpy(dtype=float)
    if body.shape[0] != body.shape[1] or not np.allclose(values, values.T, equal_nan=True):
        sides = "source task", "target task"
    elif len(body) > LARGEST_NAMED:
        sides = "", "tasks"
    else:
        return  # both ways are the same in a symmetric table
    main.set_ylabel(_counted(sides[0], len(body)), labelpad=6)
    lowest.set_xlabel(_counted(sides[1], body.shape[1]), labelpad=4)


def _type_size(cell: float) -> float:
    """Points of a name beside a cell of so many inches."""
    return min(7.5, cell * 72 * 0.36)


def _counted(side: str, count: int) -> str:
    """What stands on a side, with how many they are where they have no names."""
    return f"{side} ({count:,}, names left out)" if side and count > LARGEST_NAMED else side


def brackets(
    axes: Axes, body: pd.DataFrame, types: Mapping[str, str], stretch: tuple[float, float] = (1.0, 1.0)
) -> None:
    """Lines over the columns and beside the rows that hold one type, and white rules between types.

    `stretch`: how many cells [across, down] stand for one where cells are too small to measure distances by.
    """
    across, down = stretch
    colours = type_colours(list(types.values()))
    runs = type_runs(list(body.columns), types)
    for kind, first, last in runs if len(runs) <= _MOST_TYPES else []:
        if first:
            axes.axvline(first, color="white", linewidth=2.2)
        if kind:
            level = _fits(kind, first / across, last / across)
            axes.plot([first + 0.12, last - 0.12], [-0.3 * down] * 2, color=colours[kind], **_BAR)
            axes.text(
                (first + last) / 2 if level else first + 0.35 * across, -0.45 * down, kind, color=MUTED, fontsize=7,
                rotation=0 if level else 40, ha="center" if level else "left", va="bottom",
            )  # fmt: skip
    right = body.shape[1]
    runs = type_runs(list(body.index), types)
    for kind, first, last in runs if len(runs) <= _MOST_TYPES else []:
        if first:
            axes.axhline(first, color="white", linewidth=2.2)
        if kind:
            axes.plot([right + 0.3 * across] * 2, [first + 0.12, last - 0.12], color=colours[kind], **_BAR)
            axes.text(
                right + 0.5 * across, (first + last) / 2, kind, color=MUTED, fontsize=7,
                rotation=0 if (last - first) / down <= 1 else 270, ha="left", va="center",
            )  # fmt: skip


def _fits(kind: str, first: float, last: float) -> bool:
    """Whether the name of a type can stand level over its columns."""
    return len(kind) * 0.15 <= last - first


def overhang(body: pd.DataFrame, types: Mapping[str, str]) -> float:
    """Inches that the longest name of a type with too few tasks needs beyond its bracket."""
    runs = [run for labels in (body.index, body.columns) for run in type_runs(list(labels), types)]
    return max((len(kind) for kind, first, last in runs if not _fits(kind, first, last)), default=0) * 0.055


def draw_tree(axes: Axes, tree: NDArray[np.float64]) -> None:
    """The tree of the clustering over the columns; leaf i of scipy's plot stands at 10 i + 5."""
    shape = dendrogram(tree, no_plot=True)
    for x, y in zip(shape["icoord"], shape["dcoord"], strict=True):
        axes.plot(np.array(x) / 10, y, color=MUTED, linewidth=0.7)
    axes.set(xlim=(0, len(shape["leaves"])), ylim=(0, None))
    axes.axis("off")


def chips(main: Axes, labels: Sequence[str], types: Mapping[str, str]) -> None:
    """A square of the type's colour between each row and its name, and the types named beside the lowest rows."""
    colours = type_colours(list(types.values()))
    kinds = [types.get(label, "") for label in labels]
    for place, kind in enumerate(kinds):
        corner = (-0.32, place + 0.1)
        main.add_patch(Rectangle(corner, 0.24, 0.8, facecolor=colours[kind], linewidth=0, clip_on=False))
    main.tick_params(axis="y", pad=9)
    named = [Patch(facecolor=colours[k], label=k) for k in colours if k and k in kinds]
    if named:
        main.legend(
            handles=named, loc="lower left", bbox_to_anchor=(1.01, -0.01), handlelength=1, handleheight=1
        )
