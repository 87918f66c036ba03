"""An indicator against transfer, a point a pair of source and target, with the line that fits and its interval.

The interval comes from drawing tasks with replacement, not points: pairs that share a task are not independent. The
number in the corner is the mean over targets of Spearman's rho, which is what is claimed; the line is for the eye.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from analysis.figures.style import INK, MUTED, TYPE_COLOURS, figure_style
from analysis.matrices import align
from analysis.resampling import jackknife_interval
from analysis.statistics import correlate_targets, mean_rho
from tasks.errors import UserError

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]


def scatter(
    transfer: pd.DataFrame,
    indicator: pd.DataFrame,
    types: Mapping[str, str] | None = None,
    *,
    name: str = "indicator",
    transfer_label: str = "transfer",
    title: str = "",
    common: bool = False,
    draws: int = 1000,
    seed: int = 0,
) -> Figure:
    """The figure; pairs of one type are filled, pairs of two types hollow, a prompt on its own task is left out."""
    pair = align(transfer, indicator, name, common=common)
    labels = list(pair.transfer.columns)
    x, y = pair.indicator.to_numpy(dtype=float), pair.transfer.to_numpy(dtype=float)
    usable = np.isfinite(x) & np.isfinite(y) & ~np.eye(len(labels), dtype=bool)
    if usable.sum() < 3 or np.ptp(x[usable]) == 0:
        raise UserError(
            f"there is nothing to fit: {name} has no two different values over {int(usable.sum())} pairs"
        )
    kinds = np.array([(types or {}).get(label, "") for label in labels])
    same = (kinds[:, None] == kinds[None, :]) & (kinds != "")[:, None]
    grid = np.linspace(x[usable].min(), x[usable].max(), 60)
    line, low, high = fit_by_tasks(x, y, usable, grid, draws=draws, seed=seed)
    rho, interval = mean_rho(correlate_targets(pair)), jackknife_interval(pair)
    with figure_style():
        figure = Figure(figsize=(4.6, 3.6))
        axes = figure.add_axes((0.13, 0.14, 0.84, 0.75))
        axes.fill_between(grid, low, high, color=MUTED, alpha=0.18, linewidth=0)
        axes.plot(grid, line, color=INK, linewidth=1.3)
        _points(axes, x, y, usable, same if types else None)
        bottom, top = float(y[usable].min()), float(y[usable].max())  # not the band's: it may run far out
        axes.set_ylim(bottom - 0.05 * (top - bottom), top + 0.16 * (top - bottom))
        axes.set(xlabel=name, ylabel=transfer_label)
        claim = _claim(rho, interval.low, interval.high)
        axes.set_title(title or claim, fontsize=8.5)
        if title:
            axes.text(0.99, 0.02, claim, transform=axes.transAxes, ha="right", fontsize=7)
    return figure


def _points(axes: Axes, x: Floats, y: Floats, usable: Mask, same: Mask | None) -> None:
    """A point a pair: hollow rings, and filled squares for pairs of one type where types are known."""
    rest = usable if same is None else usable & ~same
    axes.scatter(
        x[rest], y[rest], s=15, facecolor="none", edgecolor=TYPE_COLOURS["nli"], linewidth=0.8,
        label=f"different type ({int(rest.sum())})",
    )  # fmt: skip
    if same is not None:
        ours = usable & same
        axes.scatter(
            x[ours], y[ours], s=19, color=TYPE_COLOURS["sentiment"], marker="s", linewidth=0.4, edgecolor="white",
            label=f"same type ({int(ours.sum())})",
        )  # fmt: skip
        axes.legend(loc="upper left", ncols=2, borderpad=0, handletextpad=0.1, columnspacing=0.8)


def _claim(rho: float | None, low: float | None, high: float | None) -> str:
    if rho is None:
        return "no target has a rank"
    span = f" [{low:.2f}, {high:.2f}]" if low is not None else ""
    return f"mean Spearman over targets {rho:.2f}{span}"


def fit_by_tasks(
    x: Floats, y: Floats, usable: NDArray[np.bool_], grid: Floats, *, draws: int = 1000, seed: int = 0
) -> tuple[Floats, Floats, Floats]:
    """Least-squares line over the usable cells [n, n] at `grid`, and its 95 % band from drawing tasks."""
    count = len(x)
    weights = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), size=draws)
    rows, columns = np.nonzero(usable)
    xs, ys = x[rows, columns], y[rows, columns]
    lines = _weighted_lines(xs, ys, (weights[:, rows] * weights[:, columns]).astype(float), grid)
    lines = lines[np.isfinite(lines).all(1)]
    low, high = np.quantile(lines, [0.025, 0.975], axis=0)
    return _weighted_lines(xs, ys, np.ones((1, len(xs))), grid)[0], low, high


def _weighted_lines(x: Floats, y: Floats, weights: Floats, grid: Floats) -> Floats:
    """One least-squares line for each row of weights, [draws, points] -> [draws, grid]; NaN where there is none."""
    mass = weights.sum(1)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean_x, mean_y = weights @ x / mass, weights @ y / mass
        variance = weights @ x**2 / mass - mean_x**2
        covariance = weights @ (x * y) / mass - mean_x * mean_y
        slope = np.where(variance > 1e-12 * np.ptp(x) ** 2, covariance / variance, np.nan)
    return mean_y[:, None] + slope[:, None] * (grid[None, :] - mean_x[:, None])
