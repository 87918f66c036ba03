"""Two that answer the same rows: the exact test by hand, the interval against its coverage."""

import numpy as np
import pytest
from scipy.stats import pearsonr

from analysis.figures import confusion, confusion_counts, figure_bytes
from analysis.paired import mcnemar, paired_bootstrap, paired_correlation

T, F = True, False


def test_mcnemar_is_a_binomial_test_of_the_rows_that_divide_the_two():
    found = mcnemar([T, T, T, T, T, T, F, T, F], [F, F, F, F, F, F, T, T, F])
    assert (found.only_first, found.only_second) == (6, 1)
    assert found.p_value == pytest.approx(2 * (1 + 7) / 2**7), "two tails of 6 or more of 7"
    assert mcnemar([T, F], [T, F]).p_value == 1


def test_the_interval_is_of_the_mean_difference_and_the_same_each_time():
    rng = np.random.default_rng(0)
    ours, theirs = rng.random(400) < 0.8, rng.random(400) < 0.6
    mean, interval = paired_bootstrap(ours, theirs)
    assert mean == pytest.approx(ours.mean() - theirs.mean())
    error = (ours.astype(float) - theirs).std() / 400**0.5
    assert (interval.low, interval.high) == pytest.approx(
        (mean - 1.96 * error, mean + 1.96 * error), abs=4e-3
    )
    assert paired_bootstrap(ours, theirs)[1] == interval


def test_the_interval_covers_what_it_says():
    rng = np.random.default_rng(1)
    covered = 0
    for _ in range(400):
        both = rng.random(100)
        ours, theirs = (both < 0.75).astype(float), (rng.random(100) < 0.65).astype(float)
        _, interval = paired_bootstrap(ours, theirs, draws=1000)
        covered += interval.low <= 0.1 <= interval.high
    assert 0.92 < covered / 400 < 0.98


def test_few_rows_give_no_interval():
    mean, interval = paired_bootstrap([1, 0], [0, 0])
    assert mean == 0.5 and interval.low is None and "at least 10" in interval.reason


def test_a_confusion_matrix_counts_true_labels_by_rows():
    counts = confusion_counts(["a", "a", "b"], ["a", "b", "b"], ["a", "b", "c"])
    assert counts.tolist() == [[1, 1, 0], [0, 1, 0], [0, 0, 0]]
    figure = confusion([counts, counts], ["a", "b", "c"], ["one", "two"])
    assert [axis.get_title(loc="left") for axis in figure.axes[:2]] == ["one", "two"]
    assert {text.get_text() for text in figure.axes[0].texts} == {"0", "1"}
    assert figure_bytes(figure, "png").startswith(b"\x89PNG")


def test_two_correlations_are_those_of_scipy_and_a_constant_has_none():
    rng = np.random.default_rng(2)
    truth = rng.random(50)
    ours, theirs = truth + 0.3 * rng.random(50), rng.random(50)
    first, second, interval = paired_correlation(ours, theirs, truth)
    assert (first, second) == pytest.approx((pearsonr(ours, truth)[0], pearsonr(theirs, truth)[0]))
    assert interval.low < first - second < interval.high
    assert paired_correlation(np.full(50, 2.5), theirs, truth)[0] == 0
    assert "at least 10" in paired_correlation([1, 2, 3], [3, 2, 1], [1, 2, 3])[2].reason


def test_the_interval_of_a_difference_of_correlations_covers_what_it_says():
    rng, covered = np.random.default_rng(3), 0
    right = 1 / 1.25**0.5 - 1 / 2**0.5  # truth plus noise of half and of its whole spread
    for _ in range(300):
        truth = rng.standard_normal(100)
        ours, theirs = truth + 0.5 * rng.standard_normal(100), truth + rng.standard_normal(100)
        interval = paired_correlation(ours, theirs, truth, draws=500)[2]
        covered += interval.low <= right <= interval.high
    assert 0.90 < covered / 300 < 0.98
