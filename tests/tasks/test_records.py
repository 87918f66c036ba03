"""Tasks as JSON values: every field comes back, and what is damaged is one line."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from tasks.catalog import TASKS, all_tasks
from tasks.errors import UserError
from tasks.loading import load_splits
from tasks.records import is_of_catalogue, own_task, task_of_record, task_record
from tasks.task import HubSource, Task, with_words

OWN = Task(
    "reviews",
    "sentiment",
    "sentence",
    metric="macro-f1",
    labels=("bad", "good"),
    words={family: {"bad": ("poor", "awful"), "good": ("great",)} for family in ("masked-lm", "t5")},
    hub=HubSource("a/b", "c", labels={0: "bad", 1: "good", "x": None}, columns={"text": "body"}),
    columns={"text": "body"},
    aspect=True,
    note="mine",
    template="{text}\nIs it good?",
)
OF_FILES = replace(OWN, label_values={0: "bad", "x": None}, splits={"train": "learn"}, skip_empty=True)


@pytest.mark.parametrize(
    "task", [OWN, OF_FILES, replace(OWN, hub=None, folder="/rows"), *all_tasks().values()], ids=str
)
def test_every_field_of_a_task_comes_back_through_json(task):
    assert task_of_record(json.loads(json.dumps(task_record(task))), "here") == task


def test_a_record_of_before_there_were_templates_takes_the_usual_one():
    old = {key: value for key, value in task_record(OWN).items() if key != "template"}
    assert task_of_record(old, "here").template == "Review: {text}\nSentiment:"


def test_a_record_says_nothing_of_fields_that_came_later_where_a_task_has_none():
    assert not {"label_values", "splits", "skip_empty"} & set(task_record(TASKS["sst2"]))
    assert {"label_values", "splits", "skip_empty"} <= set(task_record(OF_FILES))


def test_a_task_of_the_catalogue_stays_one_with_other_label_words():
    assert is_of_catalogue(TASKS["sst2"]) and is_of_catalogue(with_words(TASKS["sst2"], {"negative": "bad"}))
    assert not is_of_catalogue(OWN) and not is_of_catalogue(replace(TASKS["sst2"], metric="macro-f1"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "sentense"}, "here: unknown kind of task 'sentense': did you mean 'sentence'"),
        ({"labels": None}, "here: its task is damaged at labels"),
        ({"name": "../out"}, "here: task name '../out' cannot be used"),
        ({"extra": 1}, "here: its task is damaged at extra"),
        ({"hub": {**task_record(OWN)["hub"], "labels": [[0]]}}, "no pair of value and label"),
    ],
)
def test_a_damaged_record_is_one_clear_line(change, message):
    with pytest.raises(UserError, match=message):
        task_of_record({**task_record(OWN), **change}, "here")


def test_an_own_task_is_found_by_name_and_two_different_ones_are_refused():
    other = replace(OWN, metric="accuracy")
    assert own_task("reviews", {"a": None, "b": task_record(OWN), "c": task_record(OWN)}) == OWN
    assert own_task("films", {"a": None, "b": task_record(OWN)}) is None
    with pytest.raises(UserError, match="b and c keep different tasks of the name 'reviews'"):
        own_task("reviews", {"b": task_record(OWN), "c": task_record(other)})


def test_a_folder_of_the_tasks_own_goes_before_data_where_it_is_there(tmp_path):
    for name, word in (("mine", "own"), ("data/reviews", "given")):
        (tmp_path / name).mkdir(parents=True)
        line = json.dumps({"text": word, "label": "bad"}) + "\n"
        for file in ("train.jsonl", "validation.jsonl"):
            (tmp_path / name / file).write_text(line * 3)
    task = replace(OWN, hub=None, aspect=False, columns={}, folder=str(tmp_path / "mine"))
    assert load_splits(task, data=tmp_path / "data").test[0].first == "own"
    elsewhere = replace(task, folder=str(tmp_path / "gone"))
    assert load_splits(elsewhere, data=tmp_path / "data").test[0].first == "given"
