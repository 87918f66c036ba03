"""Rows with any number of labels: how they are written, and how sets are scored."""

from __future__ import annotations

import random
from itertools import combinations

import numpy as np
import pytest
from sklearn.metrics import f1_score

from tasks.custom import read_task_file
from tasks.errors import UserError
from tasks.hub import neutral_row
from tasks.label_metrics import f1_of_row
from tasks.loading import load_splits
from tasks.metrics import chance, ignorant_predictions, score
from tasks.records import task_of_record, task_record
from tasks.rows import example_of, mapped, question_of
from tasks.task import Example, HubSource, Task, with_metric

LABELS = ("art", "food", "sport")
TASK = Task("topics", "topic", "sentence", labels=LABELS, separator=";")


def rows(*sets: tuple[int, ...]) -> list[Example]:
    return [Example("x", labels=labels) for labels in sets]


@pytest.mark.parametrize(
    "cell", ["sport;art", " sport ; art;", '["sport", "art"]', ["sport", "art", "sport"]]
)
def test_labels_are_a_list_or_text_with_a_separator(cell):
    assert example_of(TASK, {"text": "x", "label": cell}, "rows:1") == rows((0, 2))[0]


@pytest.mark.parametrize("cell", ["", "[]", [], " ; "])
def test_a_row_may_have_no_label(cell):
    assert example_of(TASK, {"text": "x", "label": cell}, "rows:1").labels == ()
    assert TASK.shares(rows(())[0]) == (0, 0, 0)


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        ("sport;foot", r"rows:1: unknown label for task 'topics' 'foot': did you mean 'food'"),
        (3, r"rows:1: label is 3 \(a number\); write the labels of a row as a list, or as text with ';'"),
        ([["art"]], r"rows:1: label is"),
        ("[art", r"rows:1"),
    ],
)
def test_what_are_no_labels_is_one_line(cell, message):
    with pytest.raises(UserError, match=message):
        example_of(TASK, {"text": "x", "label": cell}, "rows:1")


def test_values_stand_for_labels_one_by_one_and_null_leaves_only_itself_out():
    task = Task(
        "topics",
        "topic",
        "sentence",
        labels=LABELS,
        separator="|",
        label_values={1: "art", 2: "food", 9: None, 3: "sport"},
    )
    assert mapped(task, {"text": "x", "label": "1|9|2"}, "rows:1")["label"] == ["art", "food"]
    source = HubSource("me/mine", labels={0: "art", 1: "food", 2: "sport", -1: None})
    found = neutral_row(TASK, source, {"text": "x", "label": [2, 0]}, "hub")
    assert example_of(TASK, found, "hub").labels == (0, 2)
    assert neutral_row(TASK, source, {"text": "x", "label": []}, "hub")["label"] == []
    assert neutral_row(TASK, source, {"text": " ", "label": [1]}, "hub") is None
    source = HubSource("me/mine", labels={"a": "art", "f": "food", "?": None})
    assert neutral_row(TASK, source, {"text": "x", "label": "f;?;a"}, "hub")["label"] == ["food", "art"]


def test_classes_and_separator_of_a_task_file(tmp_path):
    (tmp_path / "rows.csv").write_text(
        "text,label\n" + "".join(f"film {i},{'a|b' if i % 2 else 'c'}\n" for i in range(20))
    )
    text = 'name: t\ntype: topic\nkind: sentence\nfile: rows.csv\nmulti-label: "|"\n'
    (tmp_path / "t.yaml").write_text(text)
    task = read_task_file(tmp_path / "t.yaml")
    assert (task.labels, task.metric, task.head, task.one_label) == (("a", "b", "c"), "micro-f1", True, False)
    assert {row.labels for row in load_splits(task).train} == {(0, 1), (2,)}
    assert task_of_record(task_record(task), "prompt") == task
    (tmp_path / "t.yaml").write_text(text + "regression: {low: 0, high: 1}\n")
    with pytest.raises(UserError, match="a regression has two labels"):
        read_task_file(tmp_path / "t.yaml")
    (tmp_path / "t.yaml").write_text(text.replace('"|"', '""') + "head: true\n")
    with pytest.raises(UserError, match="multi-label: nothing stands between labels"):
        read_task_file(tmp_path / "t.yaml")
    (tmp_path / "t.yaml").write_text(text + "metric: accuracy\n")
    with pytest.raises(UserError, match="metric for a task of several labels"):
        read_task_file(tmp_path / "t.yaml")


def test_sets_are_scored_by_hand_and_by_scikit_learn():
    truth, said = rows((0, 1), (), (2,), (1,)), [(0,), (1,), (2,), (1,)]
    found = score("micro-f1", said, truth, labels=LABELS)
    # tp 3 (art, sport, food), fp 1 (food), fn 1 (food)
    assert found["micro-f1"] == pytest.approx(2 * 3 / (2 * 3 + 1 + 1))
    assert found["macro-f1"] == pytest.approx((1 + 2 * 1 / (2 + 1 + 1) + 1) / 3)
    assert found["subset-accuracy"] == 0.5 and next(iter(found)) == "micro-f1"
    dense = [
        np.array([[i in own for i in range(3)] for own in sets])
        for sets in ([row.labels for row in truth], said)
    ]
    assert found["macro-f1"] == pytest.approx(f1_score(*dense, average="macro"))
    assert score("f1:food", said, truth, labels=LABELS)["f1:food"] == pytest.approx(0.5)
    assert f1_of_row((0, 1), (1,)) == pytest.approx(2 / 3) and f1_of_row((), ()) == 1


def test_chance_is_the_best_constant_set():
    truth = rows((0,), (0, 1), (0,), ())
    assert set(ignorant_predictions(TASK, truth)) == {(0,)}
    assert chance(TASK, truth) == pytest.approx(2 * 3 / (2 * 3 + 1 + 1))
    assert chance(with_metric(TASK, "subset-accuracy"), truth) == 0.5
    assert chance(TASK, rows((), ())) == 0


@pytest.mark.parametrize("metric", ["micro-f1", "macro-f1", "subset-accuracy", "f1:food"])
def test_no_constant_set_is_better_than_chance(metric):
    draw = random.Random(0)
    for _ in range(5):
        truth = rows(*(tuple(i for i in range(3) if draw.random() < 0.25 * (i + 1)) for _ in range(9)))
        sets = [own for size in range(4) for own in combinations(range(3), size)]
        each = [score(metric, [own] * len(truth), truth, labels=LABELS)[metric] for own in sets]
        assert chance(with_metric(TASK, metric), truth) == pytest.approx(max(each))


@pytest.mark.parametrize(("metric", "said"), [("accuracy", (0,)), ("micro-f1", 0)])
def test_a_wrong_call_is_one_line(metric, said):
    with pytest.raises(UserError, match="any number"):
        score(metric, [said], rows((0,)), labels=LABELS)


def test_a_row_to_answer_needs_no_labels():
    assert question_of(TASK, {"text": "a film"}, "rows:1") == Example("a film")
