"""Differences over tasks and seeds: which mean square counts, and what cannot be said."""

import numpy as np
import pytest
from scipy.stats import t as student
from scipy.stats import ttest_1samp

from analysis.crossed import common_part, seed_difference


def test_where_seeds_go_together_it_is_students_t_over_their_means():
    seeds = np.array([0.01, 0.05, 0.02, 0.04, 0.09])
    values = seeds + np.array([[0.1], [-0.1], [0.0]]) + 1e-6 * np.arange(15).reshape(3, 5)
    found = seed_difference(values)
    theirs = ttest_1samp(values.mean(axis=0), 0)
    low, high = theirs.confidence_interval(0.95)
    assert found.mean == pytest.approx(values.mean())
    assert (found.p_value, found.interval.low, found.interval.high) == pytest.approx(
        (theirs.pvalue, low, high)
    )


def test_where_seeds_have_nothing_in_common_the_single_differences_count():
    # Means of seeds are all 0.1; two of three tasks have a variance of 0.01 over seeds, so 2 x 2 degrees of freedom.
    values = np.array([[0.1, 0.1, 0.1], [0.2, 0.0, 0.1], [0.0, 0.2, 0.1]]) + np.array([[0.3], [0.0], [-0.3]])
    found = seed_difference(values)
    reach = student.ppf(0.975, 4) * np.sqrt(0.02 / 3 / 9)
    assert found.mean == pytest.approx(0.1)
    assert (found.interval.low, found.interval.high) == pytest.approx((0.1 - reach, 0.1 + reach))
    assert found.p_value == pytest.approx(2 * student.sf(0.1 / np.sqrt(0.02 / 3 / 9), 4))


def test_that_tasks_differ_is_no_doubt_about_their_mean():
    noise = np.random.default_rng(0).normal(size=(6, 5)) * 0.01
    same, other = seed_difference(noise), seed_difference(noise + np.linspace(-0.3, 0.3, 6)[:, None])
    assert same.interval.high == pytest.approx(other.interval.high) and same.p_value == pytest.approx(
        other.p_value
    )


def test_a_seed_without_a_value_on_every_task_is_left_out():
    values = np.random.default_rng(0).normal(size=(3, 5))
    holed = np.column_stack([values, [np.nan, 1.0, 1.0]])
    assert seed_difference(holed) == seed_difference(values)


def test_two_seeds_have_no_interval_and_no_p_value():
    found = seed_difference([[0.1, 0.2], [0.3, 0.4]])
    assert found.mean == pytest.approx(0.25) and found.p_value is None
    assert found.interval.reason == "no 95% interval from 2 seeds: at least 3 are needed"


def test_equal_differences_are_no_evidence():
    assert seed_difference(np.zeros((2, 4))).p_value == 1.0
    found = seed_difference(np.full((2, 4), 0.5))
    assert (
        found.p_value is None and found.interval.low is None and "same differences" in found.interval.reason
    )


def test_nothing_is_said_of_no_value():
    assert seed_difference(np.full((2, 3), np.nan)).mean is None


def test_what_seeds_have_in_common_is_learned_from_all_comparisons():
    apart = np.array([[0.1, 0.1, 0.1], [0.2, 0.0, 0.1], [0.0, 0.2, 0.1]])  # between 0, within 0.02 / 3
    as_one = np.array([[0.1, 0.2, 0.3]] * 3)  # between 3 x 0.01, within 0.01
    assert common_part([apart]) == 1.0
    assert common_part([apart, as_one, [[0.5, 0.1]], np.zeros((0, 0))]) == pytest.approx(
        0.03 / (0.02 / 3 + 0.01)
    )
    alone, among = seed_difference(apart), seed_difference(apart, common=4.0)
    assert among.interval.high - 0.1 == pytest.approx(2 * (alone.interval.high - 0.1))


@pytest.mark.parametrize("share", [0.0, 0.3])
def test_the_test_errs_about_as_often_as_it_says(share):
    generator = np.random.default_rng(1)
    errs = []
    for _ in range(400):
        seeds = generator.normal(size=(1, 5)) * np.sqrt(share)
        values = seeds + generator.normal(size=(6, 5)) * np.sqrt(1 - share)
        errs.append(seed_difference(values).p_value <= 0.05)
    assert 0.01 <= np.mean(errs) <= 0.09
