"""One answer per indicator, the same-type flag beside it."""

import numpy as np
import pandas as pd
import pytest

from analysis.prediction import BASELINE, per_target_table, predict, prediction_table

TASKS = ["s1", "s2", "s3", "n1", "n2", "n3"]
TYPES = {t: {"s": "sentiment", "n": "nli"}[t[0]] for t in TASKS}
SAME = np.array([[TYPES[a] == TYPES[b] for b in TASKS] for a in TASKS], dtype=float)


def table(values):
    return pd.DataFrame(values, index=TASKS, columns=TASKS)


TRANSFER = table(0.4 + 0.4 * SAME + np.random.default_rng(0).random((6, 6)) * 0.1)


def test_the_same_type_flag_is_always_answered_where_types_are_known():
    answers = predict(TRANSFER, {"noise": table(np.random.default_rng(1).random((6, 6)))}, TYPES)
    assert [a.indicator for a in answers] == [BASELINE, "noise"]
    assert answers[1].against_baseline.mean == pytest.approx(answers[1].mean - answers[0].mean)
    assert answers[1].against_holm.p_value is not None


def test_without_types_only_the_given_indicators_are_answered():
    answers = predict(TRANSFER, {"itself": TRANSFER})
    assert [a.indicator for a in answers] == ["itself"]
    assert answers[0].mean == pytest.approx(1) and answers[0].choice.regret == 0


def test_a_constant_indicator_has_no_mean_and_says_so():
    (answer,) = predict(TRANSFER, {"flat": table(1.0)})
    assert answer.mean is None and len(answer.unranked) == 6
    assert "indicator is the same for all 5 sources" in answer.unranked[0].reason
    assert np.isnan(prediction_table((answer,)).loc["flat", "mean_spearman"])


def test_tables_have_a_row_an_indicator():
    answers = predict(TRANSFER, {"itself": TRANSFER}, TYPES)
    assert list(prediction_table(answers).index) == ["itself", BASELINE]
    assert per_target_table(answers).loc["itself"].tolist() == pytest.approx([1.0] * 6)
