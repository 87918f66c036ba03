"""An indicator against transfer within targets, a point a pair of source and target, with the line and its interval.

What is claimed of an indicator is that it ranks the sources of a target, so both sides are shown less their mean over
the sources of the target: the level of a target (easy or hard, near to all or to none) is not what is asked. The line
is the least-squares line through these points, and the number above it the mean over targets of Spearman's rho: both
are of the order within targets. The line's interval comes from drawing tasks with replacement, not points: pairs that
share a task are not independent.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from numpy.typing import NDArray

from analysis.figures.style import INK, MUTED, TYPE_COLOURS, Figure, figure_style
from analysis.matrices import align
from analysis.resampling import jackknife_interval
from analysis.statistics import Interval, correlate_targets, mean_rho
from tasks.errors import UserError

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]

MOST_POINTS = 3000
"""Points drawn of each kind of pair; of more, so many are drawn at random."""
MOST_DRAWN = 100
"""Above this many tasks the interval of the rank correlation takes minutes, and is left to `correlate`."""


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
    x, y = within_targets(x, usable), within_targets(y, usable)
    if usable.sum() < 3 or np.ptp(x[usable]) == 0:
        raise UserError(
            f"there is nothing to fit: {name} has no two different values over {int(usable.sum())} pairs"
        )
    kinds = np.array([(types or {}).get(label, "") for label in labels])
    same = (kinds[:, None] == kinds[None, :]) & (kinds != "")[:, None]
    grid = np.linspace(x[usable].min(), x[usable].max(), 60)
    line, low, high = fit_by_tasks(x, y, usable, grid, draws=draws, seed=seed)
    rho = mean_rho(correlate_targets(pair))
    interval = jackknife_interval(pair) if len(labels) <= MOST_DRAWN else None
    with figure_style():
        figure = Figure(figsize=(4.6, 3.6))
        axes = figure.add_axes((0.13, 0.14, 0.84, 0.75))
        axes.fill_between(grid, low, high, color=MUTED, alpha=0.18, linewidth=0)
        axes.plot(grid, line, color=INK, linewidth=1.3)
        _points(axes, x, y, usable, same if types else None)
        bottom, top = float(y[usable].min()), float(y[usable].max())  # not the band's: it may run far out
        axes.set_ylim(bottom - 0.05 * (top - bottom), top + 0.16 * (top - bottom))
        axes.set(
            xlabel=f"{name}, less its mean over the target's sources",
            ylabel=f"{transfer_label}, less its mean",
        )
        claim = _claim(rho, interval)
        axes.set_title(title or claim, fontsize=8.5)
        if title:
            axes.text(0.99, 0.02, claim, transform=axes.transAxes, ha="right", fontsize=7)
    return figure


def within_targets(values: Floats, usable: Mask) -> Floats:
    """Values [sources, targets] less the mean of the usable ones of their target; the others are 0."""
    known = np.where(usable, values, 0.0)
    means = known.sum(0) / np.maximum(usable.sum(0), 1)
    return np.where(usable, known - means, 0.0)


def _points(axes: Axes, x: Floats, y: Floats, usable: Mask, same: Mask | None) -> None:
    """A point a pair: hollow rings, and filled squares for pairs of one type where types are known."""
    rest = usable if same is None else usable & ~same
    a, b, size = _drawn(x, y, rest)
    axes.scatter(
        a, b, s=15 * size, facecolor="none", edgecolor=TYPE_COLOURS["nli"], linewidth=0.8 * size, rasterized=size < 1,
        label=f"different type ({int(rest.sum()):,})",
    )  # fmt: skip
    if same is not None:
        a, b, size = _drawn(x, y, usable & same)
        axes.scatter(
            a, b, s=19 * size, color=TYPE_COLOURS["sentiment"], marker="s", linewidth=0.4 * size, edgecolor="white",
            rasterized=size < 1, label=f"same type ({int((usable & same).sum()):,})",
        )  # fmt: skip
        axes.legend(loc="upper left", ncols=2, borderpad=0, handletextpad=0.1, columnspacing=0.8)
    if usable.sum() > MOST_POINTS:
        said = f"of each kind at most {MOST_POINTS:,} pairs are drawn; line and rank correlation are of all"
        axes.text(0.01, 0.02, said, transform=axes.transAxes, fontsize=6, color=MUTED)


def _drawn(x: Floats, y: Floats, mask: Mask) -> tuple[Floats, Floats, float]:
    """The points to draw, at most MOST_POINTS of them, and their size beside that of a few."""
    a, b = x[mask], y[mask]
    if len(a) <= MOST_POINTS:
        return a, b, 1.0
    kept = np.random.default_rng(0).choice(len(a), MOST_POINTS, replace=False)
    return a[kept], b[kept], 0.3


def _claim(rho: float | None, interval: Interval | None) -> str:
    if rho is None:
        return "within targets: none has a rank"
    span = f" [{interval.low:.2f}, {interval.high:.2f}]" if interval and interval.low is not None else ""
    return f"within targets: mean Spearman {rho:.2f}{span}"


def fit_by_tasks(
    x: Floats, y: Floats, usable: Mask, grid: Floats, *, draws: int = 1000, seed: int = 0
) -> tuple[Floats, Floats, Floats]:
    """The line at `grid` through the usable cells [sources, targets] less their target's mean, and its 95 % band.

    The slope is that of least squares with a level of its own for every target; the band comes from drawing tasks, as
    sources and as targets at once.
    """
    count = len(x)
    draws = min(draws, max(100, 200_000 // count))
    weights = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), size=draws)
    slopes = _weighted_slopes(x, y, usable, weights.astype(float))
    slopes = slopes[np.isfinite(slopes)]
    slope = float(_weighted_slopes(x, y, usable, np.ones((1, count)))[0])
    ends = np.quantile(slopes, [0.025, 0.975]) if len(slopes) else np.array([slope, slope])
    low, high = np.sort(ends[:, None] * grid[None, :], axis=0)
    return slope * grid, low, high


def _weighted_slopes(x: Floats, y: Floats, usable: Mask, weights: Floats) -> Floats:
    """Slope within targets for each row of weights [draws, n] of sources and targets -> [draws]; NaN for none.

    Sums over the pairs of a target are products of matrices, so that millions of pairs take seconds.
    """
    mask = usable.astype(float)
    x, y = np.where(usable, x, 0.0), np.where(usable, y, 0.0)
    mass = weights @ mask
    with np.errstate(invalid="ignore", divide="ignore"):
        mean_x = np.where(mass > 0, weights @ x / mass, 0.0)
        across = weights @ (x * y) - mean_x * (weights @ y)
        spread = weights @ (x * x) - mean_x * (weights @ x)
        total = (weights * spread).sum(1)
        least = 1e-12 * float((x * x).sum())
        return np.where(total > least, (weights * across).sum(1) / total, np.nan)
