"""Estimates of how well a source serves a target, from one pass over labelled rows of the target; nothing is trained.

Two kinds of input, of n rows whose labels `labels` [n] are numbers from 0: features [n, width], the state that the
answer is read from with the source in place, and probabilities [n, classes of the source], what the source says of its
own label words. Each gives one number, where more is better, and only numbers of the same rows can be compared.

Few rows are the usual case (n < width): whatever divides by a covariance shrinks or reduces it first. Rows of one class
say nothing of a target and are refused; features that are the same for all rows give what knowing nothing gives.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import minimize_scalar
from scipy.stats import spearmanr

from tasks.errors import UserError

Floats = NDArray[np.float64]
Labels = NDArray[np.int64]

TRANSRATE_EPSILON = 1e-4
GBC_DIMENSIONS = 64
LEAST_VARIANCE = 1e-4
"""Of a class in GBC, as in the authors' code: a class of one row has none."""


def leep(probabilities: ArrayLike, labels: ArrayLike) -> float:
    """LEEP: mean log of sum_z P(y|z) p(z|x), P(y|z) the empirical conditional (Nguyen et al. 2020, arXiv 2002.12462, eq. 2).

    At most 0, where the source's words tell the target's labels apart for sure.
    """
    given, y = _checked(probabilities, labels, "probabilities")
    if (given < 0).any() or not np.allclose(given.sum(1), 1, atol=1e-4):
        raise UserError("probabilities must be positive and sum to 1 in every row: give softmax outputs")
    joint = _one_hot(y).T @ given / len(y)  # [classes, source classes]
    conditional = joint / _not_zero(joint.sum(0))
    return float(np.log((conditional[y] * given).sum(1)).mean())


def nce(probabilities: ArrayLike, labels: ArrayLike) -> float:
    """NCE: -H(Y|Z) with Z the source's most probable word (Tran et al. 2019, arXiv 1908.08142, eq. 8); LEEP with hard Z."""
    given, y = _checked(probabilities, labels, "probabilities")
    joint = _one_hot(y).T @ np.eye(given.shape[1])[given.argmax(1)] / len(y)
    conditional = joint / _not_zero(joint.sum(0))
    seen = joint > 0
    return float((joint[seen] * np.log(conditional[seen])).sum())


def logme(features: ArrayLike, labels: ArrayLike) -> float:
    """LogME: max over alpha, beta of log p(y | F, alpha, beta) / n, mean over one-hot y (You et al. 2021, arXiv 2102.11005).

    y ~ N(0, F F^T / alpha + 1 / beta). For a given ratio alpha / beta the best alpha has a closed form, so what is left
    is one number to search, which finds the maximum where the fixed point of the paper's algorithm may not converge.
    """
    given, y = _checked(features, labels, "features")
    left, values, _ = np.linalg.svd(given, full_matrices=False)
    if values[0] == 0:
        left, values = left[:, :0], values[:0]
    return float(np.mean([_evidence(left, values**2, column) for column in _one_hot(y).T])) / len(y)


def _evidence(left: Floats, values: Floats, y: Floats) -> float:
    """The largest log evidence of y [n], from the singular vectors [n, k] and squared values [k] of the features."""
    n, k = left.shape
    inside = (left.T @ y) ** 2
    outside = max(float(y @ y - inside.sum()), 0.0)
    scale = float(values.max(initial=0.0)) or 1.0

    def lost(log_ratio: float) -> float:
        ratio = scale * np.exp(log_ratio)
        fitted = (inside / (values + ratio)).sum() + outside / ratio  # y^T (F F^T + ratio)^-1 y
        spread = np.log(values + ratio).sum() + (n - k) * np.log(ratio)
        return float(0.5 * (n * np.log(2 * np.pi * fitted / n) + spread + n))

    grid = np.linspace(-24, 24, 97)
    best = float(grid[np.argmin([lost(point) for point in grid])])
    found = minimize_scalar(lost, bounds=(best - 0.5, best + 0.5), method="bounded", options={"xatol": 1e-8})
    return -min(float(found.fun), lost(best))


def h_score(features: ArrayLike, labels: ArrayLike) -> float:
    """H-score: tr(cov(F)^-1 cov(E[F|y])) (Bao et al. 2019), with cov(F) shrunk (Ibrahim et al. 2021, arXiv 2110.06893, eq. 4).

    The shrinkage a is Ledoit and Wolf's, and the covariance of the means is taken (1 - a) times.
    """
    from sklearn.covariance import ledoit_wolf

    given, y = _checked(features, labels, "features")
    centred = given - given.mean(0)
    if not centred.any():
        return 0.0
    covariance, shrinkage = ledoit_wolf(centred, assume_centered=True)
    means = _class_means(centred, y)[y]
    between = means.T @ means / len(y)
    return float((1 - shrinkage) * np.trace(np.linalg.lstsq(covariance, between, rcond=None)[0]))


def transrate(features: ArrayLike, labels: ArrayLike) -> float:
    """TransRate: R(F) - mean over classes of R(F of the class) (Huang et al. 2022, arXiv 2106.09362, listing 1).

    R(Z) = 1/2 logdet(1 + Z^T Z / (n eps)), after centring over all rows.
    """
    given, y = _checked(features, labels, "features")
    centred = given - given.mean(0)
    classes = [_coding_rate(centred[y == label]) for label in np.unique(y)]
    return _coding_rate(centred) - float(np.mean(classes))


def _coding_rate(centred: Floats) -> float:
    values = np.linalg.svd(centred, compute_uv=False) ** 2
    return 0.5 * float(np.log1p(values / (len(centred) * TRANSRATE_EPSILON)).sum())


def gbc(features: ArrayLike, labels: ArrayLike) -> float:
    """GBC: - sum over pairs of classes of exp(-Bhattacharyya distance) (Pandy et al. 2022, arXiv 2111.12780, eq. 3 and 4).

    Classes are spherical Gaussians on the first principal components, as the paper has them for classification.
    """
    given, y = _checked(features, labels, "features")
    reduced = _principal(given, GBC_DIMENSIONS)
    parts = [reduced[y == label] for label in np.unique(y)]
    means = [part.mean(0) for part in parts]
    variances = [max(float(part.var(0).mean()), LEAST_VARIANCE) for part in parts]
    total = 0.0
    for one, other in combinations(range(len(parts)), 2):
        between = (variances[one] + variances[other]) / 2
        apart = float(((means[one] - means[other]) ** 2).sum()) / between / 8
        unlike = np.log(between) - 0.5 * (np.log(variances[one]) + np.log(variances[other]))
        total -= float(np.exp(-apart - 0.5 * reduced.shape[1] * unlike))
    return total


def parc(features: ArrayLike, labels: ArrayLike) -> float:
    """PARC: Spearman of 1 - correlation of two rows' features with 1 - correlation of their labels, over all pairs of rows.

    Features are standardised first (Bolya et al. 2021, arXiv 2111.06977, section 4 and code). One-hot labels are as far
    apart as any others or not at all, which is what is ranked here: rounding would break ties. A row without a direction
    correlates with none; 0 where the pairs cannot be ranked.
    """
    given, y = _checked(features, labels, "features")
    centred = given - given.mean(0)
    upper = np.triu_indices(len(y), k=1)
    apart = (1 - _row_correlations(centred / _not_zero(centred.std(0))))[upper]
    other = (y[:, None] != y[None, :])[upper]
    if np.ptp(apart) < 1e-12 or other.all():
        return 0.0
    return float(spearmanr(apart, other).statistic)


def _row_correlations(rows: Floats) -> Floats:
    """Pearson's correlation of every two rows, 0 with a row that is constant, [n, n]."""
    centred = rows - rows.mean(1, keepdims=True)
    norms = np.sqrt((centred**2).sum(1))
    units = centred / _not_zero(norms)[:, None]
    return np.asarray(units @ units.T)


def _principal(features: Floats, dimensions: int) -> Floats:
    """The rows on their first principal components, [n, at most `dimensions`]."""
    left, values, _ = np.linalg.svd(features - features.mean(0), full_matrices=False)
    return np.asarray(left[:, :dimensions] * values[:dimensions])


def _class_means(features: Floats, labels: Labels) -> Floats:
    """[classes, width]; of a class without a row 0, which no row asks for."""
    hot = _one_hot(labels)
    return np.asarray(hot.T @ features / _not_zero(hot.sum(0))[:, None])


def _one_hot(labels: Labels) -> Floats:
    """[n, classes that occur up to the largest]."""
    return np.eye(int(labels.max()) + 1)[labels]


def _not_zero(values: Floats) -> Floats:
    return np.where(values == 0, 1.0, values)


def _checked(values: ArrayLike, labels: ArrayLike, what: str) -> tuple[Floats, Labels]:
    """Rows of finite numbers with a label each, and at least two classes; UserError for anything else."""
    rows, given = np.asarray(values, dtype=np.float64), np.asarray(labels)
    if rows.ndim != 2 or 0 in rows.shape or given.shape != rows.shape[:1]:
        raise UserError(
            f"{what} must be [rows, size] with a label a row; given {list(rows.shape)} and {list(given.shape)} labels"
        )
    if not np.isfinite(rows).all():
        raise UserError(f"{what} hold values that are not finite: train the source again")
    if not np.issubdtype(given.dtype, np.integer) or given.min() < 0:
        raise UserError(
            "labels must be whole numbers from 0: give the place of each row's label among the task's"
        )
    if len(np.unique(given)) < 2:
        raise UserError(
            f"all {len(rows)} rows are of one class, which tells no source from another: give more rows"
        )
    _, numbered = np.unique(given, return_inverse=True)
    return rows, numbered.astype(np.int64)


Estimate = Callable[[ArrayLike, ArrayLike], float]

OF_PROBABILITIES: dict[str, Estimate] = {"LEEP": leep, "NCE": nce}
"""Name -> estimate from what a source says of its own label words."""
OF_FEATURES: dict[str, Estimate] = {
    "LogME": logme,
    "H-score": h_score,
    "TransRate": transrate,
    "GBC": gbc,
    "PARC": parc,
}
"""Name -> estimate from the states that answers are read from."""
