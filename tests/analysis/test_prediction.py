"""One answer per indicator, the same-type flag beside it."""

import numpy as np
import pandas as pd
import pytest

from analysis.prediction import (
    BASELINE,
    PREDICTION_COLUMNS,
    per_target_table,
    predict_transfer,
    prediction_table,
    smallest_p_values,
)

TASKS = ["s1", "s2", "s3", "n1", "n2", "n3"]
TYPES = {t: {"s": "sentiment", "n": "nli"}[t[0]] for t in TASKS}
SAME = np.array([[TYPES[a] == TYPES[b] for b in TASKS] for a in TASKS], dtype=float)


def table(values):
    return pd.DataFrame(values, index=TASKS, columns=TASKS)


TRANSFER = table(0.4 + 0.4 * SAME + np.random.default_rng(0).random((6, 6)) * 0.1)


def test_the_same_type_flag_is_always_answered_where_types_are_known():
    answers = predict_transfer(TRANSFER, {"noise": table(np.random.default_rng(1).random((6, 6)))}, TYPES)
    assert [a.indicator for a in answers] == [BASELINE, "noise"]
    assert answers[1].against_baseline.mean == pytest.approx(answers[1].mean - answers[0].mean)
    assert answers[1].against_holm.p_value is not None


def test_without_types_only_the_given_indicators_are_answered():
    answers = predict_transfer(TRANSFER, {"itself": TRANSFER})
    assert [a.indicator for a in answers] == ["itself"]
    assert answers[0].mean == pytest.approx(1) and answers[0].choice.regret == 0


def test_a_constant_indicator_has_no_mean_and_says_so():
    (answer,) = predict_transfer(TRANSFER, {"flat": table(1.0)})
    assert answer.mean is None and len(answer.unranked) == 6
    assert "indicator is the same for all 5 sources" in answer.unranked[0].reason
    assert np.isnan(prediction_table((answer,)).loc["flat", "mean_spearman"])


def test_tables_have_a_row_an_indicator():
    answers = predict_transfer(TRANSFER, {"itself": TRANSFER}, TYPES)
    assert list(prediction_table(answers).index) == ["itself", BASELINE]
    assert per_target_table(answers).loc["itself"].tolist() == pytest.approx([1.0] * 6)


def test_a_constant_flag_has_no_part_in_the_correction():
    rng = np.random.default_rng(2)
    tables = {f"noise {i}": table(rng.random((6, 6))) for i in range(3)}
    answers = {a.indicator: a for a in predict_transfer(TRANSFER, tables, TYPES, draws=199)}
    assert answers[BASELINE].test_holm is None and answers[BASELINE].within is None
    for part in ("test_holm", "within_holm", "against_holm"):
        assert {getattr(answers[name], part).family for name in tables} == {3}
    # 3! x 3! orders within the two types
    assert answers["noise 0"].within.shuffles == 36
    assert answers["noise 0"].within_holm.smallest == pytest.approx(3 / 36)
    assert not answers["noise 0"].within_holm.can_be_significant


def test_a_table_that_cannot_come_out_significant_says_so():
    rng = np.random.default_rng(2)
    tables = {f"noise {i}": table(rng.random((6, 6))) for i in range(3)}
    lines = smallest_p_values(predict_transfer(TRANSFER, tables, TYPES, draws=199))
    within = next(line for line in lines if "within types" in line)
    assert "36 orders of 6 tasks can give is 0.028, 0.083 corrected over 3 indicators" in within
    assert "cannot come out significant" in within
    others = [line for line in lines if line is not within]
    assert len(others) == 2 and not any("cannot" in line for line in others)


def test_the_smallest_p_of_the_table_is_that_of_a_perfect_indicator():
    (answer,) = predict_transfer(TRANSFER, {"itself": TRANSFER}, draws=2000)
    row = prediction_table((answer,)).loc["itself"]
    assert row["p_permutation"] == row["p_permutation_holm"] == row["smallest_p_permutation_holm"] == 1 / 720


def test_one_seed_has_intervals_and_no_p_values():
    noise = {"noise": table(np.random.default_rng(1).random((6, 6)))}
    one, two = (
        prediction_table(predict_transfer(TRANSFER, noise, TYPES, seeds=n, draws=199)) for n in (1, 2)
    )
    values = [name for name in PREDICTION_COLUMNS if name.startswith("p_")]
    assert len(values) == 6
    assert one.loc["noise", values].isna().all() and two.loc["noise", values].notna().all()
    assert one.loc["noise", "low"] == two.loc["noise", "low"]
    (answer, _) = sorted(predict_transfer(TRANSFER, noise, TYPES, seeds=1), key=lambda a: a.indicator)
    assert "one seed" in answer.test.reason and answer.predicts is None


def test_targets_of_different_metrics_have_a_choice_each_and_no_common_mean():
    metrics = dict.fromkeys(TASKS, "accuracy") | {"n3": "token-f1"}
    (answer,) = predict_transfer(TRANSFER, {"itself": TRANSFER}, metrics=metrics, draws=50)
    assert answer.choice is None
    assert answer.choice_by_metric["accuracy"].targets == 5
    assert answer.choice_by_metric["token-f1"].targets == 1
    assert np.isnan(prediction_table((answer,)).loc["itself", "regret"])
