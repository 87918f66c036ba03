"""Two that answer the same rows: whether one is right more often, and how sure one may be of the difference.

mcnemar            exact test on the rows that one gets right and the other does not (McNemar 1947; binomial, two-sided)
paired_bootstrap   percentile interval of the mean difference of row scores when rows are drawn again, the same for both

Both are about other test rows of the same kind, not about other seeds: a trained adaptation has a spread of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from analysis.statistics import Interval

LEAST_ROWS = 10
"""Fewer give no interval: the draws are too few different ones."""


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
