"""The cells of a heatmap: how numbers become colours and text, and how what cannot be is marked."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Colormap, Normalize
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from analysis.figures.style import INK, MUTED, RULE

COLOURS: Colormap = sns.color_palette("YlGnBu", as_cmap=True)  # darker is more, in grey as well
_LARGEST_WRITTEN = 40  # above this many columns a number no longer fits its cell
LARGEST_NAMED = 120
"""Above this many rows or columns a name no longer fits its cell, and the cells are drawn as one image."""
_PIXELS = 1800  # of an image's side: nine inches of 200 dots
_EMPTY = "#EFEFEF"
Values = NDArray[np.float64]


@dataclass(frozen=True)
class Scale:
    """How numbers become colours and text: value x factor with `decimals` places, colours over [low, high]."""

    low: float
    high: float
    factor: float
    decimals: int
    clipped: bool

    def text(self, value: float) -> str:
        if self.clipped and np.isclose(value, 1):
            return "1" if self.factor == 1 else "self"
        written = f"{value * self.factor:.{self.decimals}f}"
        if float(written) == 0:
            written = written.lstrip("-")
        return written.replace("0.", ".", 1) if self.decimals and abs(float(written)) < 1 else written

    @property
    def unit(self) -> str:
        power = str(round(np.log10(self.factor))).translate(str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹"))
        return "" if self.factor == 1 else f" (×10⁻{power})"


def choose_scale(body: pd.DataFrame, below: pd.DataFrame, limits: tuple[float, float] | None = None) -> Scale:
    """Colours over all cells, but without a diagonal of ones that would leave the rest one colour.

    `limits` are the ends of the colours where other tables have the same.
    """
    values = body.to_numpy(dtype=float)
    everything = np.concatenate([values.ravel(), below.to_numpy(dtype=float).ravel()])
    everything = everything[np.isfinite(everything)]
    own = np.asarray(body.index, dtype=object)[:, None] == np.asarray(body.columns, dtype=object)[None, :]
    rest = values[np.isfinite(values) & ~own]
    is_one = (
        own.any() and np.allclose(values[own & np.isfinite(values)], 1) and len(rest) and rest.max() < 0.8
    )
    shown = rest if is_one else everything
    low, high = float(shown.min()), float(shown.max())
    if low >= 0 and low < 0.3 * high:
        low = 0.0
    low, high = limits or (low, high)
    if high - low < 1e-12:
        low, high = low - 0.5, high + 0.5
    largest = max(abs(low), abs(high))
    factor = 1.0 if largest >= 0.1 or largest == 0 else 10.0 ** np.ceil(-np.log10(largest))
    return Scale(low, high, factor, 0 if largest > 20 else 1 if factor != 1 else 2, bool(is_one))


def draw_cells(axes: Axes, table: pd.DataFrame, scale: Scale, cell: float) -> None:
    """Coloured cells of `cell` inches with their values; what cannot be is grey, hatched, with a dash.

    Too many to be read one by one are one image, in an SVG as well: what cannot be is grey there.
    """
    values = table.to_numpy(dtype=float)
    if max(values.shape) > LARGEST_NAMED:
        _draw_image(axes, values, scale)
        return
    sns.heatmap(
        table, ax=axes, cmap=COLOURS, vmin=scale.low, vmax=scale.high, cbar=False, linewidths=0.4, linecolor="white",
        xticklabels=False, yticklabels=False, mask=~np.isfinite(values), rasterized=values.size > 2500,
    )  # fmt: skip
    axes.set(xlabel="", ylabel="", facecolor="white")
    for row, column in np.argwhere(~np.isfinite(values)):
        corner = (column + 0.03, row + 0.03)
        axes.add_patch(Rectangle(corner, 0.94, 0.94, facecolor=_EMPTY, edgecolor="#BDBDBD", hatch="////", linewidth=0))  # fmt: skip
    if values.shape[1] <= _LARGEST_WRITTEN:
        _write_values(axes, table, scale, min(7.0, cell * 72 * 0.27))


def _draw_image(axes: Axes, values: Values, scale: Scale) -> None:
    """All cells as one image, in the coordinates of the cells; where there are more than pixels, blocks are averaged."""
    rows, columns = values.shape
    axes.imshow(
        _averaged(_averaged(values).T).T, cmap=COLOURS.with_extremes(bad=_EMPTY), vmin=scale.low, vmax=scale.high,
        aspect="auto", extent=(0, columns, rows, 0), interpolation="nearest",
    )  # fmt: skip
    axes.set(xticks=[], yticks=[])
    axes.autoscale(False)
    for spine in axes.spines.values():
        spine.set_visible(False)


def _averaged(values: Values) -> Values:
    """Rows [n, m] averaged in blocks so that at most _PIXELS are left; empty cells do not count."""
    block = -(-len(values) // _PIXELS)
    if block == 1:
        return values
    starts = np.arange(0, len(values), block)
    known = np.isfinite(values)
    total = np.add.reduceat(np.where(known, values, 0.0), starts, axis=0)
    count = np.add.reduceat(known.astype(float), starts, axis=0)
    return np.divide(total, count, out=np.full(total.shape, np.nan), where=count > 0)


def _write_values(axes: Axes, table: pd.DataFrame, scale: Scale, size: float) -> None:
    norm = Normalize(scale.low, scale.high, clip=True)
    for (row, column), value in np.ndenumerate(table.to_numpy(dtype=float)):
        known = bool(np.isfinite(value))
        red, green, blue, _ = COLOURS(norm(value)) if known else (1, 1, 1, 1)
        dark = 0.299 * red + 0.587 * green + 0.114 * blue < 0.52
        own = table.index[row] == table.columns[column]
        axes.text(
            column + 0.5, row + 0.52, scale.text(value) if known else "–", ha="center", va="center", fontsize=size,
            color=("white" if dark else INK) if known else MUTED, fontweight="bold" if own and known else "normal",
            bbox=None if known else {"facecolor": _EMPTY, "edgecolor": "none", "pad": 0.6},
        )  # fmt: skip


def colour_bar(axes: Axes, scale: Scale, label: str) -> None:
    """The bar of colours in `axes`, in the numbers of the cells."""
    colours = ScalarMappable(Normalize(scale.low, scale.high), COLOURS)
    bar = axes.figure.colorbar(colours, cax=axes, extend="max" if scale.clipped else "neither")
    bar.ax.yaxis.set_major_formatter(lambda value, _: scale.text(value))
    bar.ax.tick_params(length=2, labelsize=7, color=RULE)
    bar.outline.set_visible(False)
    bar.set_label(label + scale.unit)
