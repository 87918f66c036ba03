"""How sure one may be of a mean rank correlation: tasks are taken out, drawn again, or given each other's names.

The cells of a table [tasks, tasks] are not independent: a task that is a good source for one target is one for all (a
hub), and an indicator may have hubs of its own. So whatever is resampled here is a task, as source and target at once:

jackknife_interval    of one mean rho: each task left out in turn
bootstrap_difference  of two indicators over the same tasks: tasks drawn with replacement, the same for both
permutation_test      of "no relation": the indicator's tasks change names (Mantel 1967), among all or within types

What each covers, and how often it errs, by simulation: docs/statistics.md.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import permutations, product

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata
from scipy.stats import t as student

from analysis.matrices import Aligned
from analysis.statistics import (
    Interval,
    correlate_targets,
    mean_rho,
    usable_sources,
    weighted_spearman,
)

Floats = NDArray[np.float64]
Orders = NDArray[np.intp]

MIN_TASKS = 4


@dataclass(frozen=True)
class PermutationTest:
    """Share of shuffles that reach the observed statistic (one-sided, the observed order counted), or a reason."""

    p_value: float | None
    shuffles: int
    reason: str = ""
    smallest_p: float | None = None
    """What p would be if no other order reached the observed statistic."""


@dataclass(frozen=True)
class Difference:
    """Mean over targets of one indicator's rho minus another's, its interval and two-sided bootstrap p value."""

    mean: float | None
    interval: Interval
    p_value: float | None
    targets: int
    smallest_p: float | None = None
    """What p would be if no draw lay on the other side of 0."""


def rank_correlations(pair: Aligned, weights: NDArray[np.integer], *, include_self: bool = False) -> Floats:
    """Rho of every target when source i is there weights[d, i] times, [draws, tasks]; NaN where nothing is ranked.

    A target is its own source once (if at all), however often its task was drawn.
    """
    transfer, indicator = pair.transfer.to_numpy(dtype=float), pair.indicator.to_numpy(dtype=float)
    found = np.full(weights.shape, np.nan)
    for t in range(len(transfer)):
        rows = usable_sources(pair, t, include_self=include_self)
        sources = weights.copy()
        sources[:, t] = 1
        if len(rows) > 2:
            found[:, t] = weighted_spearman(transfer[rows, t], indicator[rows, t], sources[:, rows])
    return found


# One indicator: the jackknife ------------------------------------------------------------------------------------


def jackknife_interval(pair: Aligned, *, include_self: bool = False, level: float = 0.95) -> Interval:
    """Interval of the mean rho over targets, for other tasks of the same kind.

    Each task is left out in turn, as source and target; the variance of the mean by this jackknife counts twice what
    belongs to a pair of tasks alone, so what leaving out single pairs shows is taken off once (the jackknife for
    dyadic data: Snijders and Borgatti 1999 name the two ends, Aronow, Samii and Assenova 2015 the correction), and is
    the least that it can be. The interval is Student's with tasks - 1 degrees of freedom, on Fisher's scale, so that
    it stays within -1 to 1.
    """
    count = len(pair.transfer)
    if count < MIN_TASKS:
        return Interval(None, None, f"no interval from {count} tasks: at least {MIN_TASKS} are needed")
    observed = mean_rho(correlate_targets(pair, include_self=include_self))
    if observed is None:
        return Interval(None, None, "no interval: no target has a rank")
    variance = _jackknife_variance(pair, include_self=include_self)
    if variance is None:
        return Interval(None, None, "no interval: without one of the tasks no target has a rank")
    if abs(observed) > 1 - 1e-9:
        return Interval(observed, observed)
    reach = float(student.ppf((1 + level) / 2, count - 1)) * math.sqrt(variance) / (1 - observed**2)
    centre = math.atanh(observed)
    return Interval(math.tanh(centre - reach), math.tanh(centre + reach))


def _jackknife_variance(pair: Aligned, *, include_self: bool) -> float | None:
    """Variance of the mean rho over tasks; None where it is not defined."""
    count = len(pair.transfer)
    whole = rank_correlations(pair, np.ones((1, count), dtype=np.int64), include_self=include_self)[0]
    without = rank_correlations(pair, 1 - np.eye(count, dtype=np.int64), include_self=include_self)
    np.fill_diagonal(without, np.nan)  # a task that is left out is no target either
    ranked = np.isfinite(without).sum(1)
    if not ranked.all():
        return None
    means = np.nansum(without, axis=1) / ranked
    by_task = (count - 1) / count * float(((means - means.mean()) ** 2).sum())
    # Leaving out the pair (i, j) takes source i from target j and source j from target i.
    change = np.nan_to_num(without - whole) / np.isfinite(whole).sum()
    pairs = (change + change.T)[np.triu_indices(count, 1)]
    by_pair = (len(pairs) - 1) / len(pairs) * float(((pairs - pairs.mean()) ** 2).sum())
    return max(by_task - by_pair, by_pair)


# Two indicators: the bootstrap -----------------------------------------------------------------------------------


def bootstrap_difference(
    first: Aligned,
    second: Aligned,
    *,
    include_self: bool = False,
    draws: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> Difference:
    """Mean of the first's rho minus the second's over the targets that both rank, when tasks are drawn again.

    Both indicators see the same draws. A task drawn twice counts twice, as source and as target. Draws with few
    different tasks have fewer ranks, which moves their mean away from the observed one; they are moved back, so that
    only their spread counts. The p value is two-sided and belongs to the interval: twice the share of draws (and one
    more) on the far side of 0, so that it is at most 1 - level where the interval leaves out 0.
    """
    if list(first.transfer.columns) != list(second.transfer.columns):
        raise ValueError("two indicators are compared over the same tasks in the same order")
    count = len(first.transfer)
    once = np.ones((1, count), dtype=np.int64)
    observed = _paired_means(first, second, once, include_self)[0]
    targets = int(np.isfinite(_paired_rhos(first, second, once, include_self)).sum())
    if not targets:
        return Difference(None, Interval(None, None, "no difference: no target has both ranks"), None, 0)
    mean = float(observed)
    if count < MIN_TASKS:
        reason = f"no interval from {count} tasks: at least {MIN_TASKS} are needed"
        return Difference(mean, Interval(None, None, reason), None, targets)
    weights = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), size=draws)
    means = _paired_means(first, second, weights, include_self)
    means = np.sort(means[np.isfinite(means)])
    means = means + (mean - means.mean())
    smallest = 2 / (len(means) + 1)
    p_value = min(1.0, smallest * (1 + min(int((means <= 0).sum()), int((means >= 0).sum()))))
    cut = math.floor((1 - level) * (len(means) + 1) / 2 + 1e-9)
    if cut < 1:
        reason = f"no {level:.0%} interval from {len(means)} draws: at least {math.ceil(2 / (1 - level)) - 1} are needed"
        return Difference(mean, Interval(None, None, reason), p_value, targets, smallest)
    interval = Interval(float(means[cut - 1]), float(means[-cut]))
    return Difference(mean, interval, p_value, targets, smallest)


def _paired_rhos(first: Aligned, second: Aligned, weights: NDArray[np.integer], include_self: bool) -> Floats:
    """First minus second, [draws, tasks]; NaN where either has no rank or the target was not drawn."""
    ours, theirs = (rank_correlations(p, weights, include_self=include_self) for p in (first, second))
    return np.where(weights > 0, ours - theirs, np.nan)


def _paired_means(
    first: Aligned, second: Aligned, weights: NDArray[np.integer], include_self: bool
) -> Floats:
    """Mean over targets as often as they were drawn, [draws]; NaN where none has both ranks."""
    difference = _paired_rhos(first, second, weights, include_self)
    counted = np.where(np.isfinite(difference), weights, 0)
    mass = counted.sum(1)
    total = (counted * np.nan_to_num(difference)).sum(1)
    means: Floats = np.divide(total, mass, out=np.full(len(weights), np.nan), where=mass > 0)
    return means


# No relation at all: permutations --------------------------------------------------------------------------------


def permutation_test(
    pair: Aligned,
    *,
    types: Mapping[str, str] | None = None,
    include_self: bool = False,
    shuffles: int = 2000,
    seed: int = 0,
) -> PermutationTest:
    """Mantel's scheme: the indicator's tasks are shuffled, rows and columns together, and the mean rho taken again.

    With `types` (task -> type) tasks change places within their type only: what is left is what the indicator tells
    beyond the types. The statistic is the mean rho that is reported, so that the level of a target does not count.
    All orders are taken when there are no more than `shuffles` of them.
    """
    tasks = [str(t) for t in pair.transfer.columns]
    if len(tasks) < MIN_TASKS:
        return PermutationTest(None, 0, f"no test from {len(tasks)} tasks: at least {MIN_TASKS} are needed")
    observed = mean_rho(correlate_targets(pair, include_self=include_self))
    if observed is None:
        return PermutationTest(None, 0, "no test: no target has a rank")
    blocks = _blocks([types[t] for t in tasks] if types is not None else [""] * len(tasks))
    orders, exact = _orders(blocks, shuffles, seed)
    if len(orders) == 1:
        return PermutationTest(None, 1, "no test within types: no type has two tasks")
    reached = int((_shuffled_means(pair, orders, include_self=include_self) >= observed - 1e-12).sum())
    p_value = reached / len(orders) if exact else (reached + 1) / (len(orders) + 1)
    return PermutationTest(p_value, len(orders), smallest_p=1 / (len(orders) + (not exact)))


def _blocks(kinds: Sequence[str]) -> list[Orders]:
    """Places of the tasks of each type."""
    return [np.flatnonzero(np.array(kinds) == kind) for kind in dict.fromkeys(kinds)]


def _orders(blocks: list[Orders], shuffles: int, seed: int) -> tuple[Orders, bool]:
    """Orders [shuffles, n] that shuffle within blocks, and whether they are all there are."""
    count = sum(map(len, blocks))
    exact = math.prod(math.factorial(len(block)) for block in blocks) <= shuffles
    rng = np.random.default_rng(seed)
    chosen = (
        list(product(*(permutations(block) for block in blocks)))
        if exact
        else [[rng.permutation(block) for block in blocks] for _ in range(shuffles)]
    )
    orders = np.empty((len(chosen), count), dtype=np.intp)
    orders[:, np.concatenate(blocks)] = [np.concatenate(parts) for parts in chosen]
    return orders, exact


def _shuffled_means(pair: Aligned, orders: Orders, *, include_self: bool) -> Floats:
    """Mean rho after relabelling the indicator by each order [orders, n]; -inf where nothing can be ranked."""
    transfer, indicator = pair.transfer.to_numpy(dtype=float), pair.indicator.to_numpy(dtype=float)
    total, ranked = np.zeros(len(orders)), np.zeros(len(orders))
    for t in range(len(transfer)):
        rows = np.flatnonzero(np.isfinite(transfer[:, t]))
        rows = rows if include_self else rows[rows != t]
        if len(rows) < 3:
            continue
        shuffled = indicator[orders[:, rows], orders[:, [t]]]
        ours = rankdata(transfer[rows, t])
        theirs = rankdata(shuffled, axis=1)
        a, b = ours - ours.mean(), theirs - theirs.mean(1, keepdims=True)
        scale = np.sqrt((a @ a) * (b * b).sum(1))
        counted = np.isfinite(shuffled).all(1) & (scale > 1e-12)
        total[counted] += (b @ a)[counted] / scale[counted]
        ranked += counted
    return np.divide(total, ranked, out=np.full(len(orders), -np.inf), where=ranked > 0)
