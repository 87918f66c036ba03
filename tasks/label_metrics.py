"""Metrics of labels beside accuracy, by scikit-learn where it has them; the larger, the better, for each.

f1:LABEL            F1 of one label, 2 tp / (2 tp + fp + fn); 0 where it neither occurs nor is predicted
balanced-accuracy   mean over the labels that occur of the share of their rows that is right
mcc                 Matthews' correlation of truth and prediction, -1 to 1 (Gorodkin 2004 for several labels)
micro-f1            of rows with any number of labels: 2 tp / (2 tp + fp + fn) over all labels and rows together
subset-accuracy     of the same: the share of rows whose labels are exactly those
1-ece               one less the expected calibration error (Guo et al. 2017, arXiv 1706.04599, equation 3): rows in 15
                    bins by the probability of what was predicted, the gap between mean probability and share that is
                    right, weighted by rows; it looks at probabilities, so a model that knows nothing can have 1
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np

BINS = 15

Labels = Sequence[int]
Probabilities = Sequence[Sequence[float]]
"""[rows, labels]"""


def f1_of_label(predicted: Labels, truth: Labels, label: int) -> float:
    """F1 of one label."""
    from sklearn.metrics import f1_score

    return float(f1_score(truth, predicted, labels=[label], average="macro", zero_division=0))


def balanced_accuracy(predicted: Labels, truth: Labels) -> float:
    """The mean recall over the labels that occur."""
    from sklearn.metrics import balanced_accuracy_score

    with warnings.catch_warnings():  # a label that is predicted and does not occur is no news here
        warnings.simplefilter("ignore")
        return float(balanced_accuracy_score(truth, predicted))


def mcc(predicted: Labels, truth: Labels) -> float:
    """Matthews' correlation; 0 where one of the two is constant."""
    from sklearn.metrics import matthews_corrcoef

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return float(matthews_corrcoef(truth, predicted))


def calibration_error(predicted: Labels, truth: Labels, probabilities: Probabilities) -> float:
    """The expected calibration error of the probability that each row's predicted label was given, 0 to 1."""
    confidence = np.array([row[label] for row, label in zip(probabilities, predicted, strict=True)])
    right = np.array(predicted) == np.array(truth)
    bins = np.clip(np.ceil(confidence * BINS).astype(int) - 1, 0, BINS - 1)
    gaps = [abs(float(confidence[bins == b].sum() - right[bins == b].sum())) for b in np.unique(bins)]
    return sum(gaps) / len(right)


Sets = Sequence[Sequence[int]]
"""The indices of all labels of each row."""


def of_sets(metric: str, predicted: Sets, truth: Sets, labels: int) -> float:
    """A metric of rows with any number of `labels` labels: micro-f1, macro-f1 (over all labels) or subset-accuracy.

    F1 of a label that neither occurs nor is predicted is 0.
    """
    from sklearn.metrics import accuracy_score, f1_score

    given, wanted = (_indicators(sets, labels) for sets in (predicted, truth))
    if metric == "subset-accuracy":
        return float(accuracy_score(wanted, given))
    return float(f1_score(wanted, given, average=metric.removesuffix("-f1"), zero_division=0))


def f1_of_row(predicted: Sequence[int], truth: Sequence[int]) -> float:
    """2 |both| / (|predicted| + |truth|); 1 where both are empty."""
    together = len(predicted) + len(truth)
    return 2 * len(set(predicted) & set(truth)) / together if together else 1.0


def _indicators(sets: Sets, labels: int) -> np.ndarray:
    """[rows, labels] of 0 and 1."""
    found = np.zeros((len(sets), labels), dtype=int)
    for row, own in enumerate(sets):
        found[row, list(own)] = 1
    return found
