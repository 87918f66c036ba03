"""Tasks whose answer is a number: bounds, rows, metrics."""

from __future__ import annotations

import pytest

from tasks.custom import read_task_file
from tasks.errors import UserError
from tasks.loading import load_splits
from tasks.metrics import chance, score
from tasks.proposing import scale_of, see_files
from tasks.reading import Reading
from tasks.records import task_of_record, task_record
from tasks.rows import digest_rows, example_of, question_of
from tasks.task import Example, Scale, Task, with_metric

YAML = """name: stars
type: sentiment
kind: sentence
file: rows.csv
regression: {low: 1, high: 5}
words: {low: terrible, high: great}
"""


def task(**changes) -> Task:
    words = {"low": ("terrible",), "high": ("great",)}
    given = dict(labels=("low", "high"), words={"masked-lm": words, "t5": words}, scale=Scale(1, 5))
    return Task("stars", "sentiment", "sentence", **{**given, **changes})


def numbered(*values: float) -> list[Example]:
    return [Example("x", value=value) for value in values]


def read(tmp_path, rows: str, yaml: str = YAML):
    (tmp_path / "rows.csv").write_text("text,label\n" + rows)
    (tmp_path / "stars.yaml").write_text(yaml)
    return load_splits(read_task_file(tmp_path / "stars.yaml"))


def test_a_value_is_a_share_of_each_end():
    scale = Scale(1, 5)
    assert scale.shares(2) == (0.75, 0.25)
    assert scale.value((0.75, 0.25)) == 1 * 0.75 + 5 * 0.25 == 2
    assert task().shares(Example("x", value=5)) == (0, 1)


def test_numbers_are_read_from_a_table(tmp_path):
    splits = read(tmp_path, "".join(f"film {n},{1 + n % 9 / 2}\n" for n in range(40)))
    values = [row.value for row in (*splits.train, *splits.validation, *splits.test)]
    assert sorted(set(values)) == [1, 1.5, 2, 2.5, 3, 3.5, 4, 4.5, 5]
    assert all(row.label is None for row in splits.train)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("ok,4\nfilm,6\n", r"rows.csv:3: label 6 is outside of 1 to 5, the bounds of task 'stars'"),
        ('ok,4\nfilm,"3,5"\n', r"rows.csv:3: label is '3,5' \(text\).*a number from 1 to 5"),
        ("ok,4\nfilm,great\n", r"rows.csv:3: label is 'great' \(text\)"),
        ("ok,4\nfilm,nan\n", r"rows.csv:3: label is 'nan' \(text\)"),
    ],
)
def test_a_row_without_a_number_in_the_bounds_is_one_line(tmp_path, row, message):
    with pytest.raises(UserError, match=message):
        read(tmp_path, row)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("{low: 1, high: 5}", "{low: 5, high: 1}"), "a regression from 5 to 1: low must be below high"),
        (("{low: 1, high: 5}", "{low: 1}"), "regression needs both ends"),
        (("{low: 1, high: 5}", "{low: 1, high: 5, middle: 3}"), "'middle'"),
        (("{low: terrible, high: great}", "{a: bad, b: fine, c: great}"), "a regression has two labels"),
        (("kind: sentence", "kind: sentence\nmetric: accuracy"), "metric for a regression: 'accuracy'"),
        (("kind: sentence", "kind: sentence\nlabels: {1: low}"), "a regression reads numbers"),
        (
            ("kind: sentence", "kind: sentence\nhead: true"),
            "regression and head: true are both given: .*leave one of the two out",
        ),
        (("words: {low: terrible, high: great}", "head: true"), "regression and head: true are both given"),
    ],
)
def test_a_regression_that_cannot_be_is_one_line(tmp_path, change, message):
    with pytest.raises(UserError, match=message):
        read(tmp_path, "film,3\n", YAML.replace(*change))


@pytest.mark.parametrize(
    ("rows", "columns", "message"),
    [
        ("a,1\nb,good\n", {}, r"rows.csv:3: label is 'good' \(text\), and a regression needs a number"),
        ("a,1\nb,\nc,2\n", {}, r"rows.csv:3: label is '' \(text\)"),
        (
            'a,1\nb,"3,5"\n',
            {},
            "a point for its fraction: mend it, leave the row out, or name another column",
        ),
        (
            "a,1\nb,2\n",
            {"label": "stars"},
            "rows.csv has no column 'stars', only text, label: say which it is",
        ),
        ("a,1\nb,2\n", {"label": "text"}, r"rows.csv:2: text is 'a' \(text\)"),
    ],
)
def test_what_is_no_number_is_told_with_its_line_where_a_scale_is_looked_for(
    tmp_path, rows, columns, message
):
    (tmp_path / "rows.csv").write_text("text,label\n" + rows)
    with pytest.raises(UserError, match=message) as caught:
        scale_of(see_files(tmp_path / "rows.csv"), Reading(columns), None, None)
    assert "\n" not in str(caught.value)


def test_pearson_and_spearman_by_hand():
    # deviations -1 0 1 and -3 0 3 lie on a line; ranks 1 2 3 against 1 3 2: 1 - 6 * 2 / (3 * 8) = 0.5
    assert score("pearson", [2.0, 3.0, 4.0], numbered(1, 4, 7)) == {
        "pearson": pytest.approx(1),
        "spearman": pytest.approx(1),
    }
    assert score("spearman", [1.0, 9.0, 2.0], numbered(1, 2, 3))["spearman"] == pytest.approx(0.5)


def test_what_is_constant_correlates_with_nothing():
    for metric in ("pearson", "spearman"):
        assert score(metric, [3.0, 3.0, 3.0], numbered(1, 2, 3))[metric] == 0
        assert score(metric, [1.0, 2.0, 3.0], numbered(2, 2, 2))[metric] == 0
        assert score(metric, [1.0], numbered(2))[metric] == 0
        assert chance(with_metric(task(), metric), numbered(1, 2, 5)) == 0


def test_the_record_of_a_task_keeps_its_bounds_and_others_are_as_they_were():
    assert task_of_record(task_record(task()), "prompt") == task()
    assert "scale" not in task_record(task(scale=None))


def test_a_row_to_answer_needs_no_number_and_values_count_for_the_digest():
    assert question_of(task(), {"text": "a film"}, "rows:1") == Example("a film")
    rows = [example_of(task(), {"text": "x", "label": label}, "rows:1") for label in (1, "1.0", 2)]
    assert rows[0] == rows[1] != rows[2]
    assert digest_rows(([rows[0]],)) != digest_rows(([rows[2]],))
