"""Two that answer the same rows: whether one is right more often, and how sure one may be of the difference.

mcnemar            exact test on the rows that one gets right and the other does not (McNemar 1947; binomial, two-sided)
paired_bootstrap   percentile interval of the mean difference of row scores when rows are drawn again, the same for both
paired_correlation the same of the difference of two Pearson correlations with the same numbers, where numbers are answered

Both are about other test rows of the same kind, not about other seeds: a trained adaptation has a spread of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from analysis.statistics import Interval

LEAST_ROWS = 10
"""Fewer give no interval: the draws are too few different ones."""
BLOCK = 500
"""Draws of rows that are held at once."""


@dataclass(frozen=True)
class McNemar:
    """How often only one of two was right, and the two-sided p value of as unequal a division of these rows."""

    only_first: int
    only_second: int
    p_value: float


def mcnemar(first: Sequence[bool], second: Sequence[bool]) -> McNemar:
    """The exact test; p is 1 where no row divides the two."""
    from scipy.stats import binomtest

    only_first = sum(a and not b for a, b in zip(first, second, strict=True))
    only_second = sum(b and not a for a, b in zip(first, second, strict=True))
    divided = only_first + only_second
    p_value = float(binomtest(only_first, divided, 0.5).pvalue) if divided else 1.0
    return McNemar(only_first, only_second, p_value)


def paired_bootstrap(
    first: Sequence[float],
    second: Sequence[float],
    *,
    draws: int = 10_000,
    level: float = 0.95,
    seed: int = 0,
) -> tuple[float, Interval]:
    """Mean of the first's scores less the second's over rows, and its interval; both are scored on the same draws."""
    difference = np.asarray(first, dtype=float) - np.asarray(second, dtype=float)
    mean = float(difference.mean())
    if len(difference) < LEAST_ROWS:
        return mean, Interval(
            None, None, f"no interval from {len(difference)} rows: at least {LEAST_ROWS} are needed"
        )
    # Rows count by the value of their difference: how often each value is drawn is all that matters, so draws are cheap.
    values, counts = np.unique(difference, return_counts=True)
    drawn = np.random.default_rng(seed).multinomial(len(difference), counts / counts.sum(), size=draws)
    low, high = np.quantile(drawn @ values / len(difference), [(1 - level) / 2, (1 + level) / 2])
    return mean, Interval(float(low), float(high))


def paired_correlation(
    first: Sequence[float],
    second: Sequence[float],
    truth: Sequence[float],
    *,
    draws: int = 10_000,
    level: float = 0.95,
    seed: int = 0,
) -> tuple[float, float, Interval]:
    """Pearson's correlation of two with the truth, and the interval of the first's less the second's.

    A correlation of what is constant, also in a draw, is 0.
    """
    parts = [np.asarray(values, dtype=float) for values in (first, second, truth)]
    ours, theirs, right = (values - values.mean() for values in parts)
    rows = len(right)
    once = np.ones((1, rows))
    found = [float(_correlations(once, values, right)[0]) for values in (ours, theirs)]
    if rows < LEAST_ROWS:
        reason = f"no interval from {rows} rows: at least {LEAST_ROWS} are needed"
        return found[0], found[1], Interval(None, None, reason)
    rng, differences = np.random.default_rng(seed), []
    for start in range(0, draws, BLOCK):
        counts = rng.multinomial(rows, np.full(rows, 1 / rows), size=min(BLOCK, draws - start)).astype(float)
        differences.append(_correlations(counts, ours, right) - _correlations(counts, theirs, right))
    low, high = np.quantile(np.concatenate(differences), [(1 - level) / 2, (1 + level) / 2])
    return found[0], found[1], Interval(float(low), float(high))


def _correlations(counts: np.ndarray, values: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Pearson's correlation in each draw, [draws]; counts [draws, rows] says how often each row is in it."""
    rows = counts.sum(axis=1)
    mean, right = counts @ values / rows, counts @ truth / rows
    together = counts @ (values * truth) / rows - mean * right
    spread = (counts @ values**2 / rows - mean**2) * (counts @ truth**2 / rows - right**2)
    tiny = 1e-12 * (values**2).mean() * (truth**2).mean()
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(spread > tiny, together / np.sqrt(spread), 0.0)
