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

from analysis.figures.style import MUTED, shorten, type_colours, type_runs

_BAR: Any = {"linewidth": 2.4, "clip_on": False, "solid_capstyle": "butt"}


def name_axes(main: Axes, lowest: Axes, body: pd.DataFrame, below: pd.DataFrame, cell: float) -> None:
    """Names of rows and columns; those of rows for reference in italics."""
    size = min(7.5, cell * 72 * 0.36)
    for axes, table in ((main, body), (lowest, below)):
        if len(table):
            axes.set_yticks(
                np.arange(len(table)) + 0.5, [shorten(str(r)) for r in table.index], rotation=0, fontsize=size
            )
            axes.tick_params(axis="both", length=0, pad=3)
    if len(below):
        for label in lowest.get_yticklabels():
            label.set_fontstyle("italic")
        main.set_xticks([])
    names = [shorten(str(c)) for c in body.columns]
    lowest.set_xticks(
        np.arange(len(names)) + 0.5, names, rotation=45, ha="right", rotation_mode="anchor", fontsize=size
    )
    values = body.to_numpy(dtype=float)
    if body.shape[0] != body.shape[1] or not np.allclose(values, values.T, equal_nan=True):
        lowest.set_xlabel("target task", labelpad=4)  # both ways are the same in a symmetric table
        main.set_ylabel("source prompt", labelpad=6)


def brackets(axes: Axes, body: pd.DataFrame, types: Mapping[str, str]) -> None:
    """Lines over the columns and beside the rows that hold one type, and white rules between types."""
    colours = type_colours(list(types.values()))
    for kind, first, last in type_runs(list(body.columns), types):
        if first:
            axes.axvline(first, color="white", linewidth=2.2)
        if kind:
            level = _fits(kind, first, last)
            axes.plot([first + 0.12, last - 0.12], [-0.3] * 2, color=colours[kind], **_BAR)
            axes.text(
                (first + last) / 2 if level else first + 0.35, -0.45, kind, color=MUTED, fontsize=7,
                rotation=0 if level else 40, ha="center" if level else "left", va="bottom",
            )  # fmt: skip
    right = body.shape[1]
    for kind, first, last in type_runs(list(body.index), types):
        if first:
            axes.axhline(first, color="white", linewidth=2.2)
        if kind:
            axes.plot([right + 0.3] * 2, [first + 0.12, last - 0.12], color=colours[kind], **_BAR)
            axes.text(
                right + 0.5, (first + last) / 2, kind, color=MUTED, fontsize=7,
                rotation=0 if last - first == 1 else 270, ha="left", va="center",
            )  # fmt: skip


def _fits(kind: str, first: int, last: int) -> bool:
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
