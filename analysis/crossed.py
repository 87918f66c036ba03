"""Differences of two systems over tasks and seeds, [tasks, seeds]: what would other seeds show on these tasks?

A seed draws the rows, the start and the library for all tasks at once, so that its differences on two tasks may go together.
The mean over all of them then varies as the means of seeds do (S - 1 degrees of freedom, few), and where seeds have nothing in
common as the single differences about their task's and seed's mean do ((T - 1)(S - 1), many). The larger of the two mean squares
is taken, with its own degrees of freedom. Tasks are these and no others: that one gains and another loses is no doubt about
their mean. How often it errs: scripts/simulate_systems.py, docs/later-systems.md.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import t as student

from analysis.statistics import Interval, PairedDifference

LEAST_SEEDS = 3


def seed_difference(differences: ArrayLike, *, level: float = 0.95) -> PairedDifference:
    """Mean of first minus second over tasks and seeds, its interval and p value (Student's t) for other seeds.

    Seeds without a value on every task are left out. Fewer than LEAST_SEEDS have neither; nor have differences that are all the same
    but 0, of which a spread of nothing would claim too much.
    """
    values = np.asarray(differences, dtype=float)
    if values.ndim != 2:
        raise ValueError(f"differences are [tasks, seeds], not {list(values.shape)}")
    values = values[:, np.isfinite(values).all(axis=0)]
    seeds = values.shape[1]
    pairs = values.size
    if not pairs:
        return PairedDifference(None, Interval(None, None, "no seed has a value on every task"), None, 0)
    mean = float(values.mean())
    if seeds < LEAST_SEEDS:
        said = (
            f"no {level:.0%} interval from {seeds} seed{'s' * (seeds > 1)}: at least {LEAST_SEEDS} are needed"
        )
        return PairedDifference(mean, Interval(None, None, said), None, pairs, 1.0)
    square, freedom = _larger_square(values)
    if square < 1e-24:
        said = "no interval: all seeds and tasks have the same difference"
        return PairedDifference(
            mean, Interval(None, None, said), 1.0 if abs(mean) < 1e-12 else None, pairs, 0.0
        )
    error = math.sqrt(square / pairs)
    reach = float(student.ppf((1 + level) / 2, freedom)) * error
    p_value = float(2 * student.sf(abs(mean) / error, freedom))
    return PairedDifference(mean, Interval(mean - reach, mean + reach), p_value, pairs, 0.0)


def _larger_square(values: np.ndarray) -> tuple[float, int]:
    """The larger mean square of that between seeds and that within tasks and seeds, with its degrees of freedom."""
    tasks, seeds = values.shape
    of_seeds = values.mean(axis=0) - values.mean()
    between = tasks * float((of_seeds**2).sum()) / (seeds - 1)
    if tasks < 2:
        return between, seeds - 1
    rest = values - values.mean(axis=1, keepdims=True) - of_seeds
    within = float((rest**2).sum()) / ((tasks - 1) * (seeds - 1))
    return (between, seeds - 1) if between >= within else (within, (tasks - 1) * (seeds - 1))
