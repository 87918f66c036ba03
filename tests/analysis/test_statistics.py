"""Rank correlation, paired differences, Holm: by hand where a hand can do it, else against the plain way."""

import math
from itertools import product

import numpy as np
import pandas as pd
import pytest
from scipy.stats import spearmanr

from analysis.matrices import Aligned
from analysis.statistics import (
    correlate_targets,
    holm,
    mean_rho,
    paired_difference,
    paired_interval,
    refused_claim,
    smallest_p,
    spearman,
    weighted_spearman,
)

TASKS = ["a", "b", "c", "d", "e"]


def table(values, tasks=TASKS):
    return pd.DataFrame(np.array(values, dtype=float), index=tasks, columns=tasks)


def random_pair(count=5, seed=0, agree=1.0):
    rng = np.random.default_rng(seed)
    tasks = [f"t{i}" for i in range(count)]
    transfer = rng.random((count, count))
    return Aligned(
        table(transfer, tasks), table(agree * transfer + (1 - agree) * rng.random((count, count)), tasks)
    )


def test_spearman_by_hand():
    # ranks 1 2 3 4 and 2 1 4 3: differences all 1, rho = 1 - 6 * 4 / (4 * 15)
    assert spearman([1, 2, 3, 4], [20, 10, 40, 30]) == pytest.approx(0.6)


def test_spearman_gives_ties_their_mean_rank():
    # ranks 1 2.5 2.5 and 1 2 3: covariance 1.5, variances 1.5 and 2
    assert spearman([5, 7, 7], [1, 2, 3]) == pytest.approx(1.5 / math.sqrt(1.5 * 2))


def test_a_constant_side_has_no_rank():
    assert spearman([1, 1, 1], [1, 2, 3]) is None


def test_the_source_that_is_the_target_is_left_out_unless_asked_for():
    transfer = table(np.eye(5) * 10 + np.arange(5)[:, None])
    indicator = table(np.eye(5) * 10 - np.arange(5)[:, None])  # agrees on itself only
    out = correlate_targets(Aligned(transfer, indicator))
    kept = correlate_targets(Aligned(transfer, indicator), include_self=True)
    assert [t.rho for t in out] == [-1.0] * 5
    assert kept[0].rho == pytest.approx(spearman([10, 1, 2, 3, 4], [10, -1, -2, -3, -4]))


def test_a_constant_column_is_named_and_not_counted():
    pair = random_pair()
    pair.transfer.iloc[:, 2] = 7.0
    found = correlate_targets(pair)
    assert found[2].rho is None and "transfer is the same" in found[2].reason
    assert mean_rho(found) == pytest.approx(1.0)


def test_an_empty_cell_is_no_source():
    pair = random_pair(agree=0.5)
    pair.transfer.iloc[0, 1] = np.nan
    rho = spearmanr(pair.transfer.iloc[[2, 3, 4], 1], pair.indicator.iloc[[2, 3, 4], 1]).statistic
    assert correlate_targets(pair)[1].rho == pytest.approx(rho)


def test_weighted_spearman_is_spearman_of_the_repeated_values():
    rng = np.random.default_rng(1)
    first, second = rng.integers(0, 4, 7).astype(float), rng.random(7)
    weights = rng.integers(0, 4, (5, 7))
    expected = [spearmanr(np.repeat(first, w), np.repeat(second, w)).statistic for w in weights]
    np.testing.assert_allclose(weighted_spearman(first, second, weights), expected, atol=1e-12)


def test_one_seed_is_refused_a_p_value_and_several_are_not():
    assert "no p value is given" in refused_claim(1)
    assert refused_claim(2) == refused_claim(None) == ""


def test_holm_by_hand():
    corrected = holm({"a": 0.01, "b": 0.04, "c": 0.03})
    assert corrected == pytest.approx(
        {"a": 0.03, "b": 0.06, "c": 0.06}
    )  # 3 x .01, 2 x .03, then never falling
    assert holm({"a": 0.9, "b": 0.8}) == pytest.approx({"a": 1.0, "b": 1.0})


def test_a_paired_difference_flips_all_signs_of_few_pairs():
    # differences 1 2 3 4: only all plus and all minus reach a mean of 2.5, 2 of 16
    result = paired_difference([2, 4, 6, 8], [1, 2, 3, 4])
    assert result.mean == pytest.approx(2.5) and result.p_value == pytest.approx(2 / 16)


@pytest.mark.parametrize("count", [5, 7, 9])
def test_the_sign_flip_p_value_is_that_of_all_flips(count):
    difference = np.random.default_rng(count).normal(0.4, size=count).round(1)  # with ties
    flips = [abs(np.dot(signs, difference)) for signs in product([-1, 1], repeat=count)]
    expected = np.mean(np.array(flips) >= abs(difference.sum()) - 1e-12)
    assert paired_difference(difference, np.zeros(count)).p_value == pytest.approx(expected)


def test_six_pairs_have_the_interval_from_the_least_to_the_most():
    # 2 of 64 flips may be beyond: only a centre below (or above) all six is rejected
    interval = paired_interval([3, 1, 4, 1.5, 9, 2.6])
    assert (interval.low, interval.high) == (1, 9)


def test_fewer_than_six_pairs_have_no_interval_and_the_smallest_p_is_said():
    result = paired_difference([1, 2, 3, 4.5], [0, 0, 0, 0])
    assert result.interval.low is None and result.smallest_p == 0.125
    assert "4 pairs" in result.interval.reason and "0.125" in result.interval.reason
    assert "at least 6 pairs" in result.interval.reason


@pytest.mark.parametrize("count", [6, 8, 13, 14, 30])
def test_the_interval_excludes_zero_exactly_where_the_test_rejects(count):
    rng = np.random.default_rng(count)
    for _ in range(30):
        result = paired_difference(rng.normal(0.5, size=count), np.zeros(count))
        outside = not result.interval.low <= 0 <= result.interval.high
        assert outside == (result.p_value <= 0.05)


def test_the_smallest_p_is_reached_when_all_differences_have_one_sign():
    for count in (3, 4, 6, 40):
        result = paired_difference(np.arange(1, count + 1), np.zeros(count))
        assert result.p_value == pytest.approx(smallest_p(count)) == result.smallest_p
    assert [smallest_p(n) for n in (3, 4, 6)] == [0.25, 0.125, 0.03125]


@pytest.mark.parametrize(("shape", "true"), [("normal", 0.0), ("uniform", 0.5), ("gamma", 2.0)])
@pytest.mark.parametrize("count", [6, 8, 12])
def test_the_interval_of_a_paired_difference_covers_what_it_says(shape, true, count):
    rng = np.random.default_rng(count)
    draw = {"normal": rng.normal, "uniform": rng.random, "gamma": lambda size: rng.gamma(2.0, size=size)}[
        shape
    ]
    held = 0
    for _ in range(400):
        interval = paired_interval(draw(size=count))
        held += interval.low <= true <= interval.high
    assert 0.91 < held / 400 < 0.99


def test_pairs_with_a_missing_side_are_not_counted():
    assert paired_difference([1, 2, np.nan, 4, 5], [0, 0, 0, 0, 0]).pairs == 4
    assert paired_difference([np.nan], [0]).mean is None
    assert "3 pairs" in paired_difference([1, 2, 3], [0, 0, 0]).interval.reason
