"""Metrics of labels beside accuracy, by scikit-learn where it has them; the larger, the better, for each.

f1:LABEL            F1 of one label, 2 tp / (2 tp + fp + fn); 0 where it neither occurs nor is predicted
balanced-accuracy   mean over the labels that occur of the share of their rows that is right
mcc                 Matthews' correlation of truth and prediction, -1 to 1 (Gorodkin 2004 for several labels)
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
