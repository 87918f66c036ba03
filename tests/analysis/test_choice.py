"""Choosing a source: regret and NDCG by hand."""

import math

import numpy as np
import pandas as pd
import pytest

from analysis.choice import choose_sources, ndcg, summarise
from analysis.matrices import Aligned

TASKS = ["a", "b", "c"]
TRANSFER = pd.DataFrame(
    [[100, 80, 10], [60, 100, 20], [90, 50, 100]], index=TASKS, columns=TASKS, dtype=float
)


def choices(indicator):
    return choose_sources(Aligned(TRANSFER, pd.DataFrame(indicator, index=TASKS, columns=TASKS, dtype=float)))


def test_regret_is_the_best_other_source_less_the_chosen_one():
    first = choices([[9, 0, 0], [2, 9, 0], [1, 0, 9]])[0]  # for a: b before c
    assert first.chosen == ("b",) and first.best == "c"
    assert first.regret == pytest.approx(90 - 60)
    assert first.random_regret == pytest.approx(90 - 75)


def test_the_target_itself_is_never_chosen():
    assert all(c.target not in c.chosen for c in choices(np.eye(3) * 9 + np.arange(3)[:, None]))


def test_sources_that_tie_are_taken_on_average():
    first = choices(np.ones((3, 3)))[0]
    assert first.chosen == ("b", "c") and first.chosen_score == pytest.approx(75)
    assert first.regret == pytest.approx(first.random_regret)


def test_ndcg_by_hand():
    gains, scores = np.array([3.0, 2.0, 1.0]), np.array([1.0, 3.0, 2.0])  # order by score: 2, 1, 3
    best = 3 + 2 / math.log2(3) + 1 / 2
    assert ndcg(gains, scores) == pytest.approx((2 + 1 / math.log2(3) + 3 / 2) / best)
    assert ndcg(gains, scores, first=1) == pytest.approx(2 / 3)
    assert ndcg(gains, gains) == pytest.approx(1)


def test_ndcg_of_ties_is_that_of_their_mean_gain():
    assert ndcg(np.array([4.0, 2.0]), np.array([1.0, 1.0]), first=1) == pytest.approx(3 / 4)


def test_ndcg_agrees_with_scikit_learn():
    from sklearn.metrics import ndcg_score

    rng = np.random.default_rng(0)
    gains, scores = rng.random(9), rng.integers(0, 4, 9).astype(float)
    assert ndcg(gains, scores) == pytest.approx(ndcg_score(gains[None], scores[None]))


def test_no_gain_above_zero_has_no_ndcg():
    assert ndcg(np.zeros(3), np.arange(3.0)) is None


def test_the_summary_is_the_mean_over_targets():
    made = choices([[9, 0, 0], [2, 9, 0], [1, 1, 9]])
    summary = summarise(made)
    assert summary.targets == 3
    assert summary.regret == pytest.approx(np.mean([c.regret for c in made]))
    assert summarise(()) is None
