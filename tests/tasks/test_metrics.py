"""Metrics against values worked by hand."""

from __future__ import annotations

import pytest

from tasks.catalog import TASKS
from tasks.errors import UserError
from tasks.metrics import METRICS, chance, first_sentence, ignorant_predictions, normalise, score
from tasks.task import METRICS_OF, Example


def labelled(*labels: int) -> list[Example]:
    return [Example("x", label=label) for label in labels]


def answered(*references: tuple[str, ...]) -> list[Example]:
    return [Example("q", references=texts) for texts in references]


def test_accuracy_is_the_share_of_right_labels():
    assert score("accuracy", [0, 1, 1, 0], labelled(0, 1, 0, 1))["accuracy"] == 0.5


def test_macro_f1_is_the_mean_over_labels():
    # label 0: tp 2, fp 0, fn 1 -> 4/5; label 1: tp 1, fp 1, fn 0 -> 2/3; label 2: tp 0, fp 0, fn 0 does not occur
    value = score("macro-f1", [0, 0, 1, 1], labelled(0, 0, 0, 1))["macro-f1"]
    assert value == pytest.approx((4 / 5 + 2 / 3) / 2)


def test_macro_f1_counts_a_label_that_is_only_predicted():
    # label 0: tp 1, fp 0, fn 1 -> 2/3; label 2: tp 0, fp 1 -> 0
    assert score("macro-f1", [0, 2], labelled(0, 0))["macro-f1"] == pytest.approx(1 / 3)


def test_normalisation_drops_case_punctuation_and_articles():
    assert normalise(" The Eiffel-Tower,  in a Park! ") == "eiffeltower in park"


def test_exact_match_takes_the_best_reference_after_normalisation():
    examples = answered(("Paris", "the city of Paris"), ("1999",))
    assert score("exact-match", ["City of paris.", "1998"], examples)["exact-match"] == 0.5


def test_token_f1_counts_shared_words():
    # "cat sat mat" against "cat sat on mat today" (articles gone): 3 shared, precision 3/3, recall 3/5 -> 0.75
    examples = answered(("a cat sat on the mat today",))
    assert score("token-f1", ["the cat sat mat"], examples)["token-f1"] == pytest.approx(0.75)


def test_token_f1_counts_a_repeated_word_as_often_as_both_have_it():
    # bags {a1: 2} vs {a1: 1, b1: 1}: 1 shared of 2 and 2 -> 0.5
    assert score("token-f1", ["a1 a1"], answered(("a1 b1",)))["token-f1"] == pytest.approx(0.5)


def test_an_empty_answer_scores_nothing_unless_the_reference_is_as_empty():
    assert score("token-f1", [""], answered(("paris",)))["token-f1"] == 0
    assert score("token-f1", ["the"], answered(("a",)))["token-f1"] == 1


def test_rouge_l_is_the_f_measure_of_the_longest_common_subsequence():
    # police killed the gunman / police kill the gunman: LCS police the gunman = 3, precision 3/4, recall 3/4
    value = score("rouge-l", ["police kill the gunman"], answered(("police killed the gunman",)))["rouge-l"]
    assert value == pytest.approx(0.75)
    # LCS of "a1 b1 c1 d1 e1" and "c1 d1" is 2: precision 2/5, recall 1 -> 4/7; and the better reference counts
    value = score("rouge-l", ["a1 b1 c1 d1 e1"], answered(("zz", "c1 d1")))["rouge-l"]
    assert value == pytest.approx(4 / 7)


def test_the_metric_asked_for_stands_first_and_its_companions_follow():
    assert list(score("macro-f1", [0], labelled(0))) == ["macro-f1", "accuracy"]
    assert list(score("exact-match", ["a"], answered(("a",)))) == ["exact-match", "token-f1"]


def test_the_metrics_of_the_kinds_are_those_that_exist():
    assert {name for names in METRICS_OF.values() for name in names} == set(METRICS)


@pytest.mark.parametrize(
    ("metric", "predictions", "examples", "message"),
    [
        ("acuracy", [0], labelled(0), "did you mean 'accuracy'"),
        ("accuracy", [0, 1], labelled(0), "2 predictions for 1 rows"),
        ("accuracy", [], [], "no rows to score"),
        ("accuracy", ["positive"], labelled(0), "accuracy scores label indices, not 'positive'"),
        ("rouge-l", [1], answered(("a",)), "rouge-l scores texts, not 1"),
    ],
)
def test_a_wrong_call_is_one_clear_line(metric, predictions, examples, message):
    with pytest.raises(UserError, match=message):
        score(metric, predictions, examples)


def test_chance_of_a_label_task_is_the_majority_share():
    assert chance(TASKS["sst2"], labelled(1, 1, 0, 1)) == 0.75


def test_chance_of_a_question_task_is_the_commonest_answer():
    examples = answered(("Paris",), ("paris", "Lyon"), ("Rome",))
    assert ignorant_predictions(TASKS["nq_open"], examples) == ["paris"] * 3
    assert chance(TASKS["nq_open"], examples) == pytest.approx(2 / 3)


def test_chance_of_a_summary_is_the_first_sentence():
    document = Example("a1 b1 c1 d1. e1 f1.", references=("c1 d1",))
    # first sentence a1 b1 c1 d1, LCS 2, precision 1/2, recall 1 -> 2/3
    assert chance(TASKS["samsum"], [document]) == pytest.approx(2 / 3)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("One two. Three.", "One two."),
        ("3.5 is more! Yes", "3.5 is more!"),
        ("no stop", "no stop"),
        ("a\nb. c", "a"),
    ],
)
def test_the_first_sentence_ends_at_a_stop_before_a_space(text, sentence):
    assert first_sentence(text) == sentence
