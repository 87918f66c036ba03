"""Metrics against values worked by hand."""

from __future__ import annotations

import pytest

from tasks.catalog import TASKS
from tasks.errors import UserError
from tasks.metrics import METRICS, RARER, chance, ignorant_predictions, score
from tasks.task import METRICS_OF, VALUE_METRICS, Example
from tasks.texts import first_sentence, normalise, unicode_words


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
    known = {name for names in METRICS_OF.values() for name in names} | {*VALUE_METRICS, "f1:LABEL"}
    assert known == {*METRICS, *RARER}


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


# Other scripts ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "reference", "f1", "rouge"),
    [
        # by character: 2 shared of 2 and 4
        ("北京", "北京大学", 2 * 2 / 6, 2 * 2 / 6),
        # 3 shared of 3 and 5; full-width digits are digits, and punctuation is none
        ("東京タ", "東京タワー。", 2 * 3 / 8, 2 * 3 / 8),
        ("１９９８年", "1998 年", 1, 1),
        # words: 1 shared of 2 and 2
        ("Красная площадь", "красная река!", 0.5, 0.5),
        # a vowel sign belongs to its letter: 1 shared of 1 and 2
        ("हिन्दी", "हिन्दी भाषा।", 2 / 3, 2 / 3),
        ("اللغة العربية", "العربية؟", 2 / 3, 2 / 3),
        # Hangul by character, as in KorQuAD: 2 shared of 2 and 3
        ("서울", "서울은", 2 * 2 / 5, 2 * 2 / 5),
        ("Ää", "ää", 1, 1),
    ],
)
def test_text_of_other_scripts_is_scored_by_its_words_or_characters(answer, reference, f1, rouge):
    examples = answered((reference,))
    assert score("token-f1", [answer], examples)["token-f1"] == pytest.approx(f1)
    assert score("exact-match", [answer], examples)["exact-match"] == float(f1 == 1)
    assert score("rouge-l", [answer], examples)["rouge-l"] == pytest.approx(rouge)


@pytest.mark.parametrize(
    "text", ["Café “Noir”, 5 µm² at the Łódź river: don't", "x₂ ℓ ½ naïve", "a b", "", "..."]
)
def test_latin_text_is_scored_by_the_rules_for_english(text):
    from rouge_score.rouge_scorer import RougeScorer

    other = "cafe noir at naïve łódź don"
    known = RougeScorer(["rougeL"]).score(other, text)["rougeL"].fmeasure
    assert score("rouge-l", [text], answered((other,)))["rouge-l"] == known
    assert normalise("The “Ärzte”, naïve don't") == "“ärzte” naïve dont"


def test_answers_that_normalise_to_nothing_agree_with_their_like_alone():
    for answer, reference, value in (("", "!", 1), ("the", "।", 1), ("", "北", 0), ("北", "the", 0)):
        assert score("token-f1", [answer], answered((reference,)))["token-f1"] == value
        assert score("exact-match", [answer], answered((reference,)))["exact-match"] == value


def test_words_of_several_scripts_are_told_apart():
    text = "Windows-10 は東京で العربيّة می\u200cخواهم"
    assert unicode_words(text) == ["windows", "10", "は", "東", "京", "で", "العربيّة", "میخواهم"]


@pytest.mark.parametrize(
    "sentence",
    [
        "Dr. Smith met J. R. R. Tolkien in the U.S. Army.",
        "Use tools, e.g. a saw, i.e. this one.",
        "It cost 3.5 million at No. 5 in St. Louis.",
        "He works for Acme Inc. as Mr. Roe said.",
        'He said "Go."',
        '"Go!" he said.',
        "At 5 p.m. they left ... and ran.",
        "А. С. Пушкин жил в 1820 г. на юге.",
    ],
)
def test_an_abbreviation_an_initial_or_a_decimal_ends_no_sentence(sentence):
    assert first_sentence(f"{sentence} Then more. And more.") == sentence


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("He lives in the U.S. He works there.", "He lives in the U.S."),
        ("We left at 5 p.m. They did not.", "We left at 5 p.m."),
        ("That is a no. Next.", "That is a no."),
        ("北京很大。人很多。", "北京很大。"),
        ("「行け！」と言った。", "「行け！」"),
        ("今日は３．５度。寒い。", "今日は３．５度。"),
        ("यह अच्छा है। वह गया।", "यह अच्छा है।"),
        ("یہ اچھا ہے۔ وہ گیا۔", "یہ اچھا ہے۔"),
        ("هل ذهبت؟ نعم.", "هل ذهبت؟"),
    ],
)
def test_the_first_sentence_of_other_scripts_ends_at_their_full_stops(text, sentence):
    assert first_sentence(text) == sentence


# truth and prediction of twelve rows over three labels, one of which is rare
TRUTH = [0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 2, 2]
SAID = [0, 0, 1, 2, 1, 1, 1, 1, 0, 2, 2, 1]


def value(metric: str, said=SAID, truth=TRUTH, **more) -> float:
    return score(metric, said, labelled(*truth), labels=("a", "b", "c"), **more)[metric]


def test_f1_of_one_label_is_that_of_its_own_hits_and_misses():
    # label a: tp 2, fp 1, fn 2 -> 4/7; label c: tp 1, fp 2, fn 1 -> 2/5
    assert value("f1:a") == pytest.approx(4 / 7) and value("f1:c") == pytest.approx(2 / 5)
    assert value("f1:c", [0, 1], [0, 1]) == 0


def test_balanced_accuracy_is_the_mean_share_that_is_right_over_the_labels_that_occur():
    assert value("balanced-accuracy") == pytest.approx((2 / 4 + 4 / 6 + 1 / 2) / 3)
    assert value("balanced-accuracy", [0, 2], [0, 0]) == pytest.approx(1 / 2)


def test_mcc_is_matthews_correlation_also_of_several_labels():
    # two labels: tp 3, tn 2, fp 1, fn 2 -> (3*2 - 1*2) / sqrt(4*5*3*4)
    said, truth = [1, 1, 1, 1, 0, 0, 0, 0], [1, 1, 1, 0, 0, 0, 1, 1]
    assert value("mcc", said, truth) == pytest.approx(4 / (4 * 5 * 3 * 4) ** 0.5)
    # Gorodkin: (c s - sum t p) / sqrt((s^2 - sum p^2)(s^2 - sum t^2)), c = 7 right of s = 12, t = (4, 6, 2), p = (3, 6, 3)
    assert value("mcc") == pytest.approx((7 * 12 - 54) / ((144 - 54) * (144 - 56)) ** 0.5)
    assert value("mcc", [1, 1], [0, 1]) == 0 and value("mcc", [0, 1], [1, 0]) == -1


def test_the_calibration_error_is_the_gap_of_confidence_and_rightness_over_bins():
    # .91 and .92 share the bin above .8667, one of two right: |1.83 - 1| / 4; .62 right and .55 wrong stand alone
    probabilities = [(0.91, 0.09), (0.08, 0.92), (0.62, 0.38), (0.45, 0.55)]
    error = (abs(1.83 - 1) + abs(0.62 - 1) + abs(0.55 - 0)) / 4
    assert value("1-ece", [0, 1, 0, 1], [0, 0, 0, 0], probabilities=probabilities) == pytest.approx(1 - error)
    assert value("1-ece", [0, 1], [0, 1], probabilities=[(1.0, 0.0), (0.0, 1.0)]) == 1


def test_accuracy_and_macro_f1_are_those_of_scikit_learn():
    from sklearn.metrics import accuracy_score, f1_score

    assert value("accuracy") == pytest.approx(accuracy_score(TRUTH, SAID))
    assert value("macro-f1") == pytest.approx(f1_score(TRUTH, SAID, average="macro"))


def test_a_rarer_metric_stands_first_and_the_usual_ones_beside_it():
    assert list(score("mcc", [0], labelled(0))) == ["mcc", "accuracy", "macro-f1"]
    with pytest.raises(UserError, match="1-ece needs the probabilities"):
        score("1-ece", [0], labelled(0))


def test_chance_of_the_rarer_metrics():
    from dataclasses import replace

    def of(metric: str) -> float:
        return chance(replace(TASKS["sst2"], metric=metric), labelled(1, 1, 0, 1))

    assert (of("mcc"), of("balanced-accuracy"), of("f1:negative")) == (0, 0.5, 0)
    assert of("f1:positive") == pytest.approx(6 / 7)
    assert of("1-ece") == 1, "the majority with its own share as probability is calibrated, and knows nothing"


def test_the_metric_of_a_task_is_one_of_its_kind_or_of_its_labels():
    from dataclasses import replace

    with pytest.raises(UserError, match="unknown label in the metric 'f1:good' of task 'sst2': 'good'"):
        replace(TASKS["sst2"], metric="f1:good")
    with pytest.raises(UserError, match=r"unknown metric for a task of kind 'sentence': 'mc'.*f1:LABEL"):
        replace(TASKS["sst2"], metric="mc")
