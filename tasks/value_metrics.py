"""Metrics of numbers: correlations, by SciPy; the larger, the better, -1 to 1.

pearson    of what was predicted with what is right: whether they lie on a line
spearman   of their ranks: whether they stand in the same order (ties share a rank)

Where one of the two is the same number for every row (so also for one row) nothing correlates, and the score is 0 by
definition: what says the mean to everything knows nothing of the order. That is what `chance` is, too.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence

Values = Sequence[float]


def pearson(predicted: Values, truth: Values) -> float:
    """Pearson's correlation."""
    from scipy.stats import pearsonr

    return _unless_constant(pearsonr, predicted, truth)


def spearman(predicted: Values, truth: Values) -> float:
    """Spearman's rank correlation."""
    from scipy.stats import spearmanr

    return _unless_constant(spearmanr, predicted, truth)


def is_constant(values: Values) -> bool:
    """Whether all are the same number, which correlates with nothing."""
    return min(values) == max(values)


def _unless_constant(
    correlation: Callable[..., tuple[float, float]], predicted: Values, truth: Values
) -> float:
    if is_constant(predicted) or is_constant(truth):
        return 0.0
    with warnings.catch_warnings():  # of numbers that differ in their last bits alone
        warnings.simplefilter("ignore")
        found = float(correlation(predicted, truth)[0])
    return found if found == found else 0.0
