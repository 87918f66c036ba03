"""Estimates of transferability against values by hand and independent solvers, and what few or flat rows give."""

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.stats import multivariate_normal, spearmanr
from sklearn.covariance import LedoitWolf
from sklearn.metrics import log_loss, mutual_info_score

from analysis.transferability import (
    OF_FEATURES,
    OF_PROBABILITIES,
    gbc,
    h_score,
    leep,
    logme,
    nce,
    parc,
    transrate,
)
from tasks.errors import UserError

RNG = np.random.default_rng(0)
LABELS = np.array([0, 1, 2, 0, 1, 2, 0, 1, 2, 0, 1, 1])
FEATURES = RNG.normal(size=(12, 5)) + 1.5 * np.eye(5)[LABELS]
WIDE = RNG.normal(size=(12, 30)) + 2 * np.eye(30)[LABELS]
HALVES = np.array([0, 0, 1, 1])


def test_leep_by_hand():
    given = np.array([[0.8, 0.2], [0.6, 0.4], [0.1, 0.9], [0.3, 0.7]])
    # P(y, z): y=0 [.35, .15], y=1 [.1, .4]; P(z) = .45, .55
    first, second = np.array([0.35 / 0.45, 0.15 / 0.55]), np.array([0.1 / 0.45, 0.4 / 0.55])
    by_hand = np.log([first @ given[0], first @ given[1], second @ given[2], second @ given[3]]).mean()
    assert leep(given, HALVES) == pytest.approx(by_hand)


def test_leep_is_zero_for_words_that_are_sure_and_nce_is_its_hard_form():
    sure = np.eye(2)[[1, 1, 0, 0]]
    assert leep(sure, HALVES) == nce(sure, HALVES) == 0
    hard = np.eye(3)[RNG.integers(3, size=12)]
    assert leep(hard, LABELS) == pytest.approx(nce(hard, LABELS))


def test_nce_is_mutual_information_minus_entropy():
    given = RNG.dirichlet(np.ones(4), size=12)
    shares = np.bincount(LABELS) / 12
    entropy = log_loss(LABELS, np.tile(shares, (12, 1)))
    assert nce(given, LABELS) == pytest.approx(mutual_info_score(LABELS, given.argmax(1)) - entropy)


@pytest.mark.parametrize("features", [FEATURES, WIDE])
def test_logme_is_the_largest_evidence_that_a_general_solver_finds(features):
    def lost(logs, y):
        alpha, beta = np.exp(np.clip(logs, -30, 30))
        covariance = features @ features.T / alpha + np.eye(12) / beta
        return -multivariate_normal.logpdf(y, np.zeros(12), covariance)

    best = []
    for label in range(3):
        y = (label == LABELS).astype(float)
        runs = [minimize(lost, start, args=(y,), method="Nelder-Mead", options={"xatol": 1e-8, "fatol": 1e-10}) for start in ([0, 0], [3, 3], [0, 4])]  # fmt: skip
        best.append(-min(run.fun for run in runs))
    assert logme(features, LABELS) == pytest.approx(np.mean(best) / 12, abs=1e-5)


@pytest.mark.parametrize("features", [FEATURES, WIDE])
def test_h_score_by_the_shrunk_precision_of_scikit_learn(features):
    fitted = LedoitWolf().fit(features)
    means = np.stack([features[label == LABELS].mean(0) for label in LABELS])
    between = np.cov(means.T, bias=True)
    by_hand = (1 - fitted.shrinkage_) * np.trace(fitted.precision_ @ between)
    assert h_score(features, LABELS) == pytest.approx(by_hand)


@pytest.mark.parametrize("features", [FEATURES, WIDE])
def test_transrate_by_determinants(features):
    centred = features - features.mean(0)

    def rate(z):
        return 0.5 * np.linalg.slogdet(np.eye(z.shape[1]) + z.T @ z / (len(z) * 1e-4))[1]

    by_hand = rate(centred) - sum(rate(centred[label == LABELS]) for label in range(3)) / 3
    assert transrate(features, LABELS) == pytest.approx(by_hand)


def test_gbc_of_two_gaussians_by_hand():
    line = np.array([[-1.0], [1.0], [4.0], [8.0]])  # means 0 and 6, variances 1 and 4
    distance = 36 / 2.5 / 8 + 0.5 * np.log(2.5 / np.sqrt(1 * 4))
    assert gbc(line, HALVES) == pytest.approx(-np.exp(-distance))


def test_gbc_of_several_dimensions_by_determinants():
    parts = [FEATURES[label == LABELS] for label in range(3)]
    spheres = [(part.mean(0), part.var(0).mean() * np.eye(5)) for part in parts]
    total = 0.0
    for i, j in ((0, 1), (0, 2), (1, 2)):
        (m1, s1), (m2, s2) = spheres[i], spheres[j]
        middle = (s1 + s2) / 2
        distance = (m1 - m2) @ np.linalg.solve(middle, m1 - m2) / 8
        distance += 0.5 * np.log(np.linalg.det(middle) / np.sqrt(np.linalg.det(s1) * np.linalg.det(s2)))
        total -= np.exp(-distance)
    assert gbc(FEATURES, LABELS) == pytest.approx(total)


def test_parc_by_numpy_and_scipy():
    scaled = (FEATURES - FEATURES.mean(0)) / FEATURES.std(0)
    upper = np.triu_indices(12, 1)
    pairs = [1 - np.corrcoef(rows)[upper].round(9) for rows in (scaled, np.eye(3)[LABELS])]
    assert parc(FEATURES, LABELS) == pytest.approx(spearmanr(*pairs).statistic)


@pytest.mark.parametrize("name", OF_FEATURES)
def test_features_that_tell_the_classes_apart_are_worth_more(name):
    labels = np.arange(60) % 3
    noise = np.random.default_rng(1).normal(size=(60, 20))
    told = [OF_FEATURES[name](noise + apart * np.eye(20)[labels], labels) for apart in (0.0, 2.0, 6.0)]
    assert told[0] < told[1] < told[2]


@pytest.mark.parametrize("name", OF_FEATURES)
def test_features_that_are_the_same_for_all_rows_are_worth_less(name):
    labels, estimate = np.arange(12) % 3, OF_FEATURES[name]
    flat = [estimate(np.full((12, 4), value), labels) for value in (0.0, 1.0)]
    told = estimate(6 * np.eye(4)[labels] + np.random.default_rng(2).normal(size=(12, 4)), labels)
    assert np.isfinite(flat).all() and max(flat) < told


@pytest.mark.parametrize("name", [*OF_FEATURES, *OF_PROBABILITIES])
def test_a_class_of_one_row_and_numbers_of_labels_without_rows_are_taken(name):
    estimate = {**OF_FEATURES, **OF_PROBABILITIES}[name]
    given = np.array([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4]])
    assert np.isfinite(estimate(given, [0, 1, 1]))
    assert estimate(given, [0, 5, 5]) == pytest.approx(estimate(given, [0, 1, 1]))
    assert np.isfinite(estimate(given[:2], [0, 1]))


@pytest.mark.parametrize("name", [*OF_FEATURES, *OF_PROBABILITIES])
def test_what_no_estimate_can_be_made_of_is_refused(name):
    estimate = {**OF_FEATURES, **OF_PROBABILITIES}[name]
    given = np.array([[0.9, 0.1], [0.2, 0.8]])
    for values, labels, words in (
        (given, [1, 1], "all 2 rows are of one class"),
        (given[:1], [0], "all 1 rows are of one class"),
        (given, [0], "with a label a row"),
        (given[0], [0, 1], "with a label a row"),
        (given * np.nan, [0, 1], "not finite"),
        (given, [-1, 1], "whole numbers from 0"),
    ):
        with pytest.raises(UserError, match=words):
            estimate(values, labels)


def test_leep_wants_probabilities():
    with pytest.raises(UserError, match="sum to 1"):
        leep([[0.5, 0.1], [0.2, 0.8]], [0, 1])
