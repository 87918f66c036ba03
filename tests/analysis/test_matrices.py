"""Tables from text, matching of two, order by type."""

import numpy as np
import pandas as pd
import pytest

from analysis.matrices import (
    align,
    is_reference,
    merge_seeds,
    order_by_type,
    parse_matrix,
    same_type,
    shared_prefix,
    split_references,
)
from tasks.errors import UserError

TEXT = ",a,b\na,1,0.5\nb,,2\nno prompt,0.1,0.2\n"


def square(labels, value=1.0):
    return pd.DataFrame(value, index=list(labels), columns=list(labels))


def test_an_empty_cell_is_missing_and_not_zero():
    table = parse_matrix(TEXT, "m.csv")
    assert np.isnan(table.loc["b", "a"]) and table.loc["b", "b"] == 2


def test_rows_for_reference_stand_apart():
    prompts, references = split_references(parse_matrix(TEXT, "m.csv"))
    assert list(prompts.index) == ["a", "b"] and list(references.index) == ["no prompt"]
    assert is_reference("random-prompt") and is_reference("Majority") and not is_reference("sst2")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (",a,b\na,1\n", "line 2: 2 cells"),
        (",a\na,x\n", "line 2, column 'a': 'x' is not a number"),
        (",a\na,inf\n", "not finite"),
        (",a\na,1\na,2\n", "row name used twice: a"),
        (",a,a\nb,1,2\n", "column name used twice: a"),
        ("", "not a matrix"),
    ],
)
def test_a_bad_file_is_named_with_line_and_reason(text, message):
    with pytest.raises(UserError, match=message):
        parse_matrix(text, "m.csv")


def test_labels_that_do_not_match_are_named_by_side():
    with pytest.raises(UserError, match=r"only in the transfer table: c; only in the indicator: x"):
        align(square("abc"), square("abx"), "ON")


def test_common_keeps_what_both_have_and_says_what_was_left_out():
    pair = align(square("abc"), square("bax"), "ON", common=True)
    assert list(pair.transfer.columns) == list(pair.indicator.index) == ["a", "b"]
    assert any("c" in note for note in pair.notes) and any("x" in note for note in pair.notes)


def test_nothing_in_common_is_an_error_even_when_asked():
    with pytest.raises(UserError, match="nothing is common"):
        align(square("ab"), square("xy"), "ON", common=True)


def test_tasks_that_only_the_indicator_knows_and_source_only_rows_are_left_out_with_a_note():
    transfer = pd.DataFrame(1.0, index=["b", "a", "extra", "random"], columns=["a", "b"])
    pair = align(transfer, square("abx"), "ON")
    assert list(pair.transfer.index) == ["a", "b"]
    assert pair.notes == (
        "left out, only in the indicator: x",
        "left out, source rows that are no target: extra",
    )


def test_the_indicator_is_brought_to_the_order_of_the_transfer():
    indicator = pd.DataFrame([[1.0, 2.0], [3.0, 4.0]], index=["b", "a"], columns=["b", "a"])
    assert align(square("ab"), indicator, "ON").indicator.loc["a", "b"] == 3
    assert align(square("ab"), indicator, "ON").indicator.iloc[0, 0] == 4


def test_types_come_in_the_papers_order_and_labels_keep_theirs_within_a_type():
    types = {"q": "qa", "m": "nli", "s2": "sentiment", "s1": "sentiment", "z": "own"}
    assert order_by_type(["q", "?", "z", "s2", "m", "s1"], types) == ["s2", "s1", "m", "q", "z", "?"]


def test_the_same_type_flag_is_one_within_a_type():
    flag = same_type(["s", "m", "t"], {"s": "x", "t": "x", "m": "y"})
    assert flag.to_numpy().tolist() == [[1, 0, 1], [0, 1, 0], [1, 0, 1]]


def test_a_task_without_type_cannot_be_flagged():
    with pytest.raises(UserError, match="no type is known for m"):
        same_type(["s", "m"], {"s": "x"})


@pytest.mark.parametrize(
    ("labels", "prefix"),
    [
        (["microworld-imdb", "microworld-mnli"], "microworld-"),
        (["sst2", "squad"], ""),  # a letter in common is no prefix
        (["org/one-a", "org/one-b"], "org/one-"),
        (["microworld-imdb"], ""),
        ([], ""),
    ],
)
def test_names_lose_what_all_of_them_begin_with(labels, prefix):
    assert shared_prefix(labels) == prefix


def test_rows_of_several_seeds_become_their_mean_and_are_counted():
    table = pd.DataFrame(
        [[1.0, 2.0], [3.0, 4.0], [5.0, 6.0], [0.0, 0.0]],
        index=["a-s0", "a-s1", "b-s0", "no prompt"],
        columns=["a", "b"],
    )
    merged, seeds = merge_seeds(table, ["a", "b"])
    assert merged.loc["a"].tolist() == [2, 3] and merged.loc["b"].tolist() == [5, 6]
    assert list(merged.index) == ["a", "b", "no prompt"] and seeds == 1
    indicator = pd.DataFrame(np.arange(9.0).reshape(3, 3), index=table.index[:3], columns=table.index[:3])
    square, _ = merge_seeds(indicator, ["a", "b"])
    assert square.loc["a", "a"] == np.mean([0, 1, 3, 4]) and square.loc["b", "a"] == np.mean([6, 7])
    plain, one = merge_seeds(merged, ["a", "b"])
    assert plain.equals(merged) and one == 1
