"""Label words: which are taken, how several pieces become one score, and what is refused."""

import math

import pytest
import torch
from toys import label_task

from prompttransfer.backbones.label_words import Answers, choose_answers
from prompttransfer.backbones.masked_lm import combine_pieces
from prompttransfer.backbones.rows import _candidates
from tasks.errors import UserError

VOCABULARY = {"great": 10, "terrible": 11, "good": 12, "bad": 13, "so": 14, "-": 15, "awful": 16, "fine": 17}


def pieces_of(word):
    """Splits at hyphens; None for a word with an unknown piece."""
    parts = [part for part in word.replace("-", " - ").split()]
    if not all(part in VOCABULARY for part in parts):
        return None
    return tuple(VOCABULARY[part] for part in parts), tuple(parts)


def choose(family="masked-lm", aggregation=None, **words):
    task = label_task(**words)
    return choose_answers(
        task, family=family, backbone="toy-lm", pieces_of=pieces_of, aggregation=aggregation
    )


def test_the_first_words_that_are_whole_are_taken():
    answers = choose(negative="terrible", positive="great")
    assert answers.mapping == {"negative": "terrible", "positive": "great"}
    assert answers.pieces == ((11,), (10,))


def test_alternatives_are_taken_as_a_set_so_that_words_belong_together():
    # "awful" is whole, but "superb" is unknown: the second pair is whole, so no pair is torn apart.
    answers = choose(negative=("awful", "bad"), positive=("superb", "good"))
    assert answers.words == ("bad", "good")


def test_without_a_whole_set_each_label_takes_its_own_first_whole_word():
    answers = choose(negative=("awful", "poor"), positive=("superb", "good"))
    assert answers.words == ("awful", "good")


def test_a_word_of_several_tokens_is_an_error_that_names_the_word_and_its_pieces():
    with pytest.raises(UserError) as caught:
        choose(negative="so-so", positive="great")
    for part in (
        "'so-so' = so + - + so",
        "toy-lm",
        "'negative'",
        "--label-words negative=WORD",
        "--aggregation",
    ):
        assert part in str(caught.value)


def test_a_word_outside_the_vocabulary_is_an_error_that_says_so():
    with pytest.raises(UserError, match="'abysmal' is not in its vocabulary"):
        choose(negative="abysmal", positive="great")


def test_an_aggregation_allows_several_tokens():
    answers = choose(aggregation="mean", negative="so-so", positive="great")
    assert answers.pieces == ((14, 15, 14), (10,))
    assert answers.aggregation == "mean"
    assert answers.scored == answers.pieces and len(answers.scored[0]) > 1
    first = choose(aggregation="first", negative="so-so", positive="great")
    assert [len(piece) for piece in first.scored] == [1, 1] and first.scored[0] == first.pieces[0][:1]


def test_an_unknown_aggregation_is_named():
    with pytest.raises(UserError, match="did you mean 'mean'"):
        choose(aggregation="maen", negative="so-so", positive="great")


def test_t5_takes_words_of_several_tokens_and_sums_them():
    answers = choose(family="t5", negative="so-so", positive="great")
    assert answers.pieces == ((14, 15, 14), (10,))
    assert answers.aggregation == "sum"


def test_two_labels_with_the_same_tokens_are_refused():
    with pytest.raises(UserError, match=r"'negative' and 'positive' .* cannot be told apart"):
        choose(negative="great", positive="great")


def test_t5_refuses_a_word_that_begins_another():
    with pytest.raises(UserError, match="'so' and 'so-so' begin with the same tokens"):
        choose(family="t5", neutral="so", negative="so-so")
    # A masked LM answers with one token, so there a shared beginning under `sum` is no tie.
    assert choose(aggregation="sum", neutral="so", negative="so-so").words == ("so", "so-so")


def test_pieces_are_combined_by_sum_or_mean():
    scores = torch.tensor([[[1.0, 2.0, 6.0], [4.0, 99.0, 99.0]]]).expand(2, -1, -1)
    candidates = torch.tensor([[[14, 15, 14], [10, -1, -1]]]).expand(2, -1, -1)
    combined = combine_pieces(scores, candidates, torch.tensor([0.0, 1.0]))
    assert combined.tolist() == [[9.0, 4.0], [3.0, 4.0]]


def test_a_label_that_a_row_does_not_have_scores_minus_infinity():
    combined = combine_pieces(torch.ones(1, 3, 1), torch.tensor([[[10], [11], [-1]]]), torch.tensor([0.0]))
    assert combined.tolist() == [[1.0, 1.0, -math.inf]]


def test_first_reads_only_the_first_piece():
    ids, averaged = _candidates([Answers(("a", "b"), ("so-so", "great"), ((14, 15, 14), (10,)), "first")])
    assert ids.tolist() == [[[14], [10]]]
    assert averaged.tolist() == [0.0]


def test_two_labels_that_share_their_first_piece_are_refused_under_first():
    # OpenPrompt keeps the first piece silently, so that such labels tie (default_config.py).
    with pytest.raises(UserError, match="cannot be told apart"):
        choose(aggregation="first", neutral="so", negative="so-so")


def test_words_are_looked_up_behind_a_space_on_a_real_tokenizer(tiny):
    assert tiny("roberta").word_pieces("great") == ((4,), ("great",))
    assert tiny("roberta").word_pieces("so-so")[1] == ("so", "-", "so")
    assert tiny("roberta").word_pieces("unheard") is None
