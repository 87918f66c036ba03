"""Rank correlation of an indicator with transfer; paired differences; what may be said of one seed.

For every target task the sources are ranked twice, by transfer and by the indicator; Spearman's rho of the two ranks
is averaged over targets (Su et al. 2022, section 6.2). The source that is the target itself is left out, since one
may not choose it; the paper keeps it in. A column without two different values has no rank; it is named, never
counted as 0 or NaN. How sure one may be of such a mean is in analysis/resampling.py.

Paired differences (of scores over tasks, or over seeds) have an interval and a p value from flips of their signs.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import rankdata

from analysis.matrices import Aligned

Floats = NDArray[np.float64]

FLIPS = 10_000
"""Flips of signs that are drawn where there are more than so many."""


@dataclass(frozen=True)
class TargetCorrelation:
    """Spearman's rho over the sources of one target, or the reason why there is none."""

    target: str
    rho: float | None
    reason: str = ""


@dataclass(frozen=True)
class Interval:
    """A confidence interval, or the reason why there is none."""

    low: float | None
    high: float | None
    reason: str = ""


def spearman(first: ArrayLike, second: ArrayLike) -> float | None:
    """Spearman's rho with mid-ranks for ties; None if either side has no two different values."""
    ranks = [rankdata(np.asarray(values, dtype=float)) for values in (first, second)]
    return _pearson(ranks[0], ranks[1])


def _pearson(first: Floats, second: Floats) -> float | None:
    a, b = first - first.mean(), second - second.mean()
    scale = math.sqrt(float(a @ a) * float(b @ b))
    return float(a @ b) / scale if scale > 0 else None


def usable_sources(pair: Aligned, target: int, *, include_self: bool) -> NDArray[np.intp]:
    """Which rows can be ranked for a target: both tables have a number there, and (by default) not the target itself."""
    usable = np.isfinite(pair.transfer.to_numpy()[:, target]) & np.isfinite(
        pair.indicator.to_numpy()[:, target]
    )
    if not include_self:
        usable[target] = False
    return np.flatnonzero(usable)


def correlate_targets(pair: Aligned, *, include_self: bool = False) -> tuple[TargetCorrelation, ...]:
    """Spearman's rho of the indicator with transfer, one value a target."""
    transfer, indicator = pair.transfer.to_numpy(), pair.indicator.to_numpy()
    found = []
    for t, target in enumerate(pair.transfer.columns):
        rows = usable_sources(pair, t, include_self=include_self)
        if len(rows) < 3:
            found.append(TargetCorrelation(target, None, f"only {len(rows)} sources to rank, 3 are needed"))
            continue
        rho = spearman(transfer[rows, t], indicator[rows, t])
        flat = "transfer" if len(set(transfer[rows, t])) < 2 else "indicator"
        reason = "" if rho is not None else f"no rank: the {flat} is the same for all {len(rows)} sources"
        found.append(TargetCorrelation(target, rho, reason))
    return tuple(found)


def mean_rho(correlations: tuple[TargetCorrelation, ...]) -> float | None:
    """Mean over the targets that have a rank; None if none has."""
    values = [c.rho for c in correlations if c.rho is not None]
    return float(np.mean(values)) if values else None


def weighted_spearman(first: Floats, second: Floats, weights: NDArray[np.integer]) -> Floats:
    """Spearman's rho of n values repeated `weights` times, [draws, n] -> [draws]; NaN where a side is constant."""
    centred = []
    mass = weights.sum(1, keepdims=True)
    for values in (first, second):
        below = (values[None, :] < values[:, None]) + 0.5 * (values[None, :] == values[:, None])
        ranks = weights @ below.T  # mid-rank less one half, which centring removes
        centred.append(ranks - (weights * ranks).sum(1, keepdims=True) / np.maximum(mass, 1))
    a, b = centred
    scale = np.sqrt((weights * a * a).sum(1) * (weights * b * b).sum(1))
    return np.divide((weights * a * b).sum(1), scale, out=np.full(len(weights), np.nan), where=scale > 1e-12)


@dataclass(frozen=True)
class PairedDifference:
    """Mean of first minus second over the same tasks (None without any), its interval, a two-sided sign-flip p value."""

    mean: float | None
    interval: Interval
    p_value: float | None
    pairs: int
    smallest_p: float | None = None
    """The smallest p value that so many pairs could give, whatever they are; by their number where it is not given."""

    def __post_init__(self) -> None:
        if self.smallest_p is None and self.pairs:
            object.__setattr__(self, "smallest_p", smallest_p(self.pairs))


def paired_difference(
    first: ArrayLike, second: ArrayLike, *, draws: int = FLIPS, level: float = 0.95, seed: int = 0
) -> PairedDifference:
    """Is `first` larger than `second` over the same tasks? Flips of the differences' signs, and the test inverted.

    The test's p value and `paired_interval` come from the same flips: 0 is outside the interval if and only if p is
    at most 1 - level. Pairs with a missing side are not counted.
    """
    difference = np.asarray(first, dtype=float) - np.asarray(second, dtype=float)
    difference = difference[np.isfinite(difference)]
    count = len(difference)
    if not count:
        return PairedDifference(None, paired_interval(difference, level=level), None, 0)
    mean = float(difference.mean())
    means = _flipped_means(difference, draws, seed)
    # Flipping a part of the signs takes the sum to or beyond its own size if the part's mean is not on our side of 0.
    beyond = means <= 0 if mean > 0 else means >= 0
    p_value = min(1.0, 2 * (1 + int(beyond.sum())) / (len(means) + 1))
    interval = paired_interval(difference, level=level, draws=draws, seed=seed)
    return PairedDifference(mean, interval, p_value, count, smallest_p(count, draws=draws))


def paired_interval(
    differences: ArrayLike, *, level: float = 0.95, draws: int = FLIPS, seed: int = 0
) -> Interval:
    """Interval of the mean of paired differences: every centre that a two-sided sign-flip test does not reject.

    Right for differences that are symmetric about their centre, near right for others (docs/statistics.md). The means
    of all subsets of the differences cut the line into parts of equal probability (Hartigan 1969), so the ends are two
    of them. Too few pairs for any centre to be rejected have no interval; the reason says how many are needed.
    """
    values = np.asarray(differences, dtype=float)
    values = values[np.isfinite(values)]
    count, alpha = len(values), 1 - level
    if count < pairs_needed(level):
        at_best = f"sign flips of {count} pairs cannot give a p below {smallest_p(count):.3g}"
        return Interval(
            None, None, f"no {level:.0%} interval: {at_best}, at least {pairs_needed(level)} pairs are needed"
        )
    means = np.sort(_flipped_means(values, draws, seed))
    cut = math.floor(alpha * (len(means) + 1) / 2 + 1e-9)  # so many means may lie beyond either end
    return Interval(float(means[cut - 1]), float(means[-cut]))


def smallest_p(pairs: int, *, draws: int = FLIPS) -> float:
    """The smallest two-sided p value that sign flips of so many pairs can give: .25 of 3, .125 of 4, .03125 of 6."""
    return max(2.0 ** (1 - pairs), 2 / (draws + draws % 2)) if pairs > 0 else 1.0


def pairs_needed(level: float = 0.95) -> int:
    """The fewest pairs whose sign flips can reject anything at 1 - level: 6 at 95 %."""
    return math.ceil(1 - math.log2(1 - level) - 1e-9)


def _flipped_means(differences: Floats, draws: int, seed: int) -> Floats:
    """Means of the subsets of n differences whose signs are flipped: all 2^n - 1, or `draws` drawn with their complements.

    The whole set is always one of them, the empty one (which flips nothing) never.
    """
    count = len(differences)
    if 2**count <= draws:
        members = ((np.arange(1, 2**count)[:, None] >> np.arange(count)) & 1).astype(bool)
    else:
        half = np.random.default_rng(seed).integers(0, 2, size=((draws + 1) // 2 - 1, count)).astype(bool)
        half = half[half.any(1) & ~half.all(1)]
        members = np.concatenate([half, ~half, np.ones((1, count), dtype=bool)])
    means: Floats = (members @ differences) / members.sum(1)
    return np.where(np.abs(means) < 1e-12, 0.0, means)  # what cancels is 0, however it was added up


def refused_claim(seeds: int | None) -> str:
    """Why no p value may be given for a table of so many seeds; empty where it may, and for None (the caller answers).

    The one policy for `correlate`, reports and studies. A p value over tasks says how far chance among the tasks could
    explain what the prompts of the table show. It knows nothing of what other seeds would have trained; from one seed
    it would be read as if it did, so from one seed none is given. Intervals stay: they are over tasks, and say so.
    """
    if seeds is None or seeds > 1:
        return ""
    return (
        "one seed: no p value is given and no significance is claimed, as another seed may reorder everything"
    )


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """P values corrected for their number (Holm 1979): the k-th smallest of m times m - k + 1, never falling."""
    corrected: dict[str, float] = {}
    largest = 0.0
    for position, (name, p_value) in enumerate(sorted(p_values.items(), key=lambda item: item[1])):
        largest = max(largest, min(1.0, p_value * (len(p_values) - position)))
        corrected[name] = largest
    return {name: corrected[name] for name in p_values}
