"""Differences of two systems over tasks and seeds, [tasks, seeds]: what would other seeds show on these tasks?

A seed draws the rows, the start and the library for all tasks at once, so that its differences on two tasks may go together.
The mean over all of them varies with the larger of

    between   the variance of the means of seeds (times tasks), S - 1 degrees of freedom, which are few
    within    the mean variance over seeds of a task, with Satterthwaite's degrees of freedom, times what seeds have in common

What seeds have in common is little known from one comparison of five seeds, so that it is taken from all that are made together
(`common_part`). Tasks are these and no others: that one gains and another loses is no doubt about their mean. How often it
errs: scripts/simulate_systems.py, docs/later-systems.md.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import t as student

from analysis.statistics import Interval, PairedDifference

Floats = NDArray[np.float64]

LEAST_SEEDS = 3


def seed_difference(differences: ArrayLike, *, common: float = 1.0, level: float = 0.95) -> PairedDifference:
    """Mean of first minus second over tasks and seeds, its interval and p value (Student's t) for other seeds.

    `common` is that of all comparisons that are made together. Seeds without a value on every task are left out. Fewer than
    LEAST_SEEDS have neither interval nor p; nor have differences that are all the same but 0, of which a spread of nothing would
    claim too much.
    """
    values = complete(differences)
    pairs, seeds = values.size, values.shape[1]
    if not pairs:
        return PairedDifference(None, Interval(None, None, "no seed has a value on every task"), None, 0)
    mean = float(values.mean())
    if seeds < LEAST_SEEDS:
        said = (
            f"no {level:.0%} interval from {seeds} seed{'s' * (seeds > 1)}: at least {LEAST_SEEDS} are needed"
        )
        return PairedDifference(mean, Interval(None, None, said), None, pairs, 1.0)
    between, within = squares(values)
    if max(between, within) < 1e-24:
        said = "no interval: all seeds have the same differences"
        return PairedDifference(
            mean, Interval(None, None, said), 1.0 if abs(mean) < 1e-12 else None, pairs, 0.0
        )
    square, freedom = max((between, seeds - 1.0), (within * common, _satterthwaite(values)))
    error = math.sqrt(square / pairs)
    reach = float(student.ppf((1 + level) / 2, freedom)) * error
    p_value = float(2 * student.sf(abs(mean) / error, freedom))
    return PairedDifference(mean, Interval(mean - reach, mean + reach), p_value, pairs, 0.0)


def common_part(comparisons: Sequence[ArrayLike]) -> float:
    """By what the variance of a mean over tasks is larger than it were if seeds had nothing in common; at least 1.

    The sum of the squares between seeds over that of those within tasks, of all comparisons with enough seeds.
    """
    found = [complete(differences) for differences in comparisons]
    each = [squares(values) for values in found if values.size and values.shape[1] >= LEAST_SEEDS]
    between, within = sum(one for one, _ in each), sum(one for _, one in each)
    return max(1.0, between / within) if within > 0 else 1.0


def complete(differences: ArrayLike) -> Floats:
    """The seeds that have a value on every task, [tasks, seeds]."""
    values = np.asarray(differences, dtype=float)
    if values.ndim != 2:
        raise ValueError(f"differences are [tasks, seeds], not {list(values.shape)}")
    whole: Floats = values[:, np.isfinite(values).all(axis=0)]
    return whole


def squares(values: Floats) -> tuple[float, float]:
    """Mean squares between seeds and within tasks; both are the variance of one difference where seeds have nothing in common."""
    between = len(values) * float(values.mean(axis=0).var(ddof=1))
    return between, float(values.var(axis=1, ddof=1).mean())


def _satterthwaite(values: Floats) -> float:
    """Degrees of freedom of a sum of the tasks' variances: fewer where a few of them have most of it."""
    own = values.var(axis=1, ddof=1)
    return float(own.sum() ** 2 / (own**2).sum() * (values.shape[1] - 1)) if own.any() else 1.0
