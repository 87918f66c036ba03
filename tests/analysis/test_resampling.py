"""How sure one may be of a mean rank correlation: by hand, against the plain way, and by small simulations."""

from itertools import permutations

import numpy as np
import pandas as pd
import pytest
from scipy.stats import spearmanr

from analysis.matrices import Aligned
from analysis.resampling import bootstrap_difference, jackknife_interval, permutation_test
from analysis.statistics import correlate_targets, mean_rho


def aligned(transfer, indicator):
    tasks = [f"t{i}" for i in range(len(transfer))]
    return Aligned(*(pd.DataFrame(v, index=tasks, columns=tasks, dtype=float) for v in (transfer, indicator)))


def random_pair(count=5, seed=0, agree=1.0):
    rng = np.random.default_rng(seed)
    transfer = rng.random((count, count))
    return aligned(transfer, agree * transfer + (1 - agree) * rng.random((count, count)))


def blocks(count, kinds):
    kind = np.arange(count) % kinds
    return (kind[:, None] == kind).astype(float)


def hubs(rng, count, strength):
    """A table whose sources differ from one another, whatever the target."""
    return rng.normal(size=(count, count)) + strength * rng.normal(size=count)[:, None]


def mean_of(pair):
    return mean_rho(correlate_targets(pair))


# The jackknife ---------------------------------------------------------------------------------------------------


def test_the_interval_of_a_perfect_indicator_is_one_at_both_ends():
    interval = jackknife_interval(random_pair(8))
    assert (interval.low, interval.high) == (pytest.approx(1), pytest.approx(1))


def test_the_interval_holds_the_mean_and_stays_within_minus_one_and_one():
    for seed in range(20):
        pair = random_pair(6, seed=seed, agree=0.7)
        interval = jackknife_interval(pair)
        assert -1 <= interval.low < mean_of(pair) < interval.high <= 1


def test_the_jackknife_is_that_of_tables_without_the_task_and_without_the_pair():
    pair, count = random_pair(6, seed=3, agree=0.5), 6
    transfer, indicator = pair.transfer.to_numpy(), pair.indicator.to_numpy()

    def rho(target, left_out):
        rows = [i for i in range(count) if i != target and i != left_out]
        return spearmanr(transfer[rows, target], indicator[rows, target]).statistic

    whole = [rho(t, None) for t in range(count)]
    tasks = np.array([np.mean([rho(t, k) for t in range(count) if t != k]) for k in range(count)])
    by_task = (count - 1) / count * ((tasks - tasks.mean()) ** 2).sum()
    pairs = np.array(
        [
            (rho(j, i) - whole[j] + rho(i, j) - whole[i]) / count
            for i in range(count)
            for j in range(i + 1, count)
        ]
    )
    by_pair = (len(pairs) - 1) / len(pairs) * ((pairs - pairs.mean()) ** 2).sum()
    mean = np.mean(whole)
    error = np.sqrt(max(by_task - by_pair, by_pair)) / (1 - mean**2)
    expected = np.tanh(np.arctanh(mean) + np.array([-1, 1]) * 2.570582 * error)  # Student's t, 5 degrees
    interval = jackknife_interval(pair)
    assert (interval.low, interval.high) == pytest.approx(tuple(expected), abs=1e-6)


def test_fewer_than_four_tasks_get_no_interval_and_the_reason():
    interval = jackknife_interval(random_pair(3))
    assert interval.low is None and "3 tasks" in interval.reason and "4" in interval.reason
    assert permutation_test(random_pair(3)).p_value is None
    assert bootstrap_difference(random_pair(3), random_pair(3)).interval.low is None


@pytest.mark.parametrize(("count", "strength"), [(8, 0.0), (8, 1.5), (13, 1.5)])
def test_the_interval_of_a_mean_rho_covers_what_it_says(count, strength):
    rng = np.random.default_rng(count)
    held = 0
    for _ in range(120):
        interval = jackknife_interval(aligned(hubs(rng, count, strength), hubs(rng, count, strength)))
        held += interval.low <= 0 <= interval.high
    assert held / 120 >= 0.90


# The bootstrap of a difference -----------------------------------------------------------------------------------


def test_an_indicator_compared_with_itself_differs_by_nothing():
    pair = random_pair(8, agree=0.5)
    result = bootstrap_difference(pair, pair)
    assert (result.mean, result.p_value) == (0, 1) and result.interval.low == result.interval.high == 0


def test_the_difference_is_the_mean_over_targets_that_both_rank():
    pair, flag = random_pair(6, agree=0.6), random_pair(6)
    flag = Aligned(pair.transfer, flag.indicator)
    flag.indicator.iloc[:, 2] = 1.0
    ours, theirs = correlate_targets(pair), correlate_targets(flag)
    both = [a.rho - b.rho for a, b in zip(ours, theirs, strict=True) if b.rho is not None]
    result = bootstrap_difference(pair, flag, draws=100)
    assert result.targets == len(both) == 5 and result.mean == pytest.approx(np.mean(both))


def test_the_interval_excludes_zero_exactly_where_the_p_value_is_at_most_five_per_cent():
    for seed in range(25):
        pair = random_pair(10, seed=seed, agree=0.7)
        other = aligned(pair.transfer.to_numpy(), np.random.default_rng(seed).random((10, 10)))
        result = bootstrap_difference(pair, other, draws=400, seed=seed)
        assert (result.p_value <= 0.05) == (not result.interval.low <= 0 <= result.interval.high)
        assert result.p_value >= result.smallest_p


def test_the_bootstrap_does_not_move_with_the_clock():
    pair, other = random_pair(7, agree=0.6), random_pair(7)
    other = Aligned(pair.transfer, other.indicator)
    assert bootstrap_difference(pair, other, seed=3) == bootstrap_difference(pair, other, seed=3)


@pytest.mark.parametrize("count", [8, 13])
def test_minus_same_type_keeps_its_level_where_indicators_have_hubs(count):
    # Neither the indicator nor the flag has to do with transfer, so the true difference is 0. Flips of the targets'
    # signs called a third to a half of such tables significant.
    rng, rejected, repeats = np.random.default_rng(count), 0, 80
    for _ in range(repeats):
        transfer = hubs(rng, count, 3.0)
        result = bootstrap_difference(
            aligned(transfer, hubs(rng, count, 3.0)), aligned(transfer, blocks(count, 3)), draws=199
        )
        rejected += result.p_value <= 0.05
    assert rejected / repeats <= 0.11


# Permutations ----------------------------------------------------------------------------------------------------


def test_the_permutation_test_takes_all_orders_of_few_tasks():
    pair = random_pair(4, agree=0.7)
    observed = mean_of(pair)
    reached = 0
    for order in permutations(range(4)):
        moved = pair.indicator.iloc[list(order), list(order)]
        moved.index = moved.columns = pair.transfer.columns
        reached += mean_of(Aligned(pair.transfer, moved)) >= observed - 1e-12
    test = permutation_test(pair)
    assert test.shuffles == 24 and test.p_value == pytest.approx(reached / 24)
    assert test.smallest_p == pytest.approx(1 / 24)


def test_within_types_only_tasks_of_a_type_change_places():
    pair = random_pair(5, agree=0.6)
    types = dict(zip(pair.transfer.columns, "ababa", strict=True))
    orders = [(a[0], b[0], a[1], b[1], a[2]) for a in permutations([0, 2, 4]) for b in permutations([1, 3])]
    reached = 0
    for order in orders:
        moved = pair.indicator.iloc[list(order), list(order)]
        moved.index = moved.columns = pair.transfer.columns
        reached += mean_of(Aligned(pair.transfer, moved)) >= mean_of(pair) - 1e-12
    test = permutation_test(pair, types=types)
    assert test.shuffles == 12 and test.p_value == pytest.approx(reached / 12)
    assert test.smallest_p == pytest.approx(1 / 12)


def test_types_of_one_task_each_have_no_shuffle_within():
    pair = random_pair(5, agree=0.6)
    test = permutation_test(pair, types={t: t for t in pair.transfer.columns})
    assert test.p_value is None and "no type has two tasks" in test.reason


def test_an_indicator_that_only_repeats_the_types_is_found_by_all_orders_and_not_within_types():
    rng = np.random.default_rng(0)
    types = {f"t{i}": str(i % 3) for i in range(9)}
    plain, within = [], []
    for _ in range(25):
        same = blocks(9, 3)
        pair = aligned(2 * same + rng.random((9, 9)), 2 * same + rng.random((9, 9)))
        plain.append(permutation_test(pair, shuffles=199).p_value)
        within.append(permutation_test(pair, types=types, shuffles=199).p_value)
    assert max(plain) < 0.05
    assert 0.3 < np.mean(within) < 0.7


def test_the_permutation_test_finds_agreement_and_not_noise():
    assert permutation_test(random_pair(9, agree=1.0)).p_value < 0.01
    noise = [permutation_test(random_pair(7, seed=s, agree=0.0), shuffles=300).p_value for s in range(40)]
    assert 0.3 < np.mean(noise) < 0.7
