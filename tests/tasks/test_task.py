"""Task records: what cannot be built, label words for a run, the table."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys

import pytest

from tasks.catalog import TASKS, all_tasks, find_task
from tasks.errors import UserError
from tasks.task import FAMILIES, TYPES, Task, check_name, parse_label_words, task_table, with_words

WORDS = {"bad": ("awful",), "good": ("fine",)}
BOTH = {"masked-lm": WORDS, "t5": WORDS}
SU = {
    "imdb",
    "sst2",
    "laptop",
    "restaurant",
    "movie_rationales",
    "tweeteval_sentiment",
    "mnli",
    "qnli",
    "snli",
    "ethics_deontology",
    "ethics_justice",
    "qqp",
    "mrpc",
    "squad",
    "nq_open",
    "multi_news",
    "samsum",
}


def make(**changes) -> Task:
    return Task(
        **{"name": "mine", "type": "sentiment", "kind": "sentence", "labels": ("bad", "good"), "words": BOTH}
        | changes
    )


def test_the_catalogue_holds_the_17_tasks_of_the_paper_and_three_more():
    assert set(TASKS) == {*SU, "rotten_tomatoes", "paws", "scitldr"}


def test_every_shipped_task_is_found_by_its_name_and_has_a_type_of_the_paper():
    for name, task in all_tasks().items():
        assert find_task(name) is task and task.name == name and task.type in TYPES


@pytest.mark.parametrize("task", TASKS.values(), ids=lambda task: task.name)
def test_alternatives_of_a_shipped_task_stand_side_by_side(task):
    for words in task.words.values():
        assert len({len(alternatives) for alternatives in words.values()}) == 1


@pytest.mark.parametrize(
    ("name", "masked_lm", "t5"),
    [
        ("tweeteval_sentiment", ["negative", "moderate", "positive"], ["negative", "moderate", "positive"]),
        ("mnli", ["no", "neutral", "yes"], ["contradiction", "neutral", "entailment"]),
        ("qnli", ["no", "yes"], ["contradiction", "entailment"]),
        ("ethics_justice", ["unacceptable", "acceptable"], ["unacceptable", "acceptable"]),
        ("qqp", ["false", "true"], ["false", "true"]),
    ],
)
def test_first_words_and_label_order_are_those_of_the_paper(name, masked_lm, t5):
    task = find_task(name)
    assert [task.words["masked-lm"][label][0] for label in task.labels] == masked_lm
    assert [task.words["t5"][label][0] for label in task.labels] == t5


def test_an_unknown_task_is_answered_with_the_nearest_name():
    with pytest.raises(UserError, match=r"unknown task 'sst': did you mean 'sst2'\? available: .*squad"):
        find_task("sst")


def test_a_task_of_ones_own_is_found_beside_the_shipped_ones():
    own = make()
    assert find_task("mine", {"mine": own}) is own
    assert find_task("sst2", {"mine": own}) is TASKS["sst2"]


def test_the_metric_follows_the_kind_unless_it_is_given():
    assert make().metric == "accuracy"
    assert make(metric="macro-f1").metric == "macro-f1"
    assert Task("q", "qa", "closed-book-qa").metric == "token-f1"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kind": "sentnce"}, "did you mean 'sentence'"),
        ({"labels": ("bad",)}, "at least 2 labels, 1 given"),
        ({"labels": ("bad", "bad")}, "not all different"),
        ({"words": {}}, "label 'bad' has no word for masked-lm"),
        ({"words": {**BOTH, "t5": {"bad": ("awful",)}}}, "label 'good' has no word for t5"),
        ({"words": {**BOTH, "bert": WORDS}}, "unknown backbone family"),
        ({"words": {**BOTH, "t5": {**WORDS, "god": ("x",)}}}, "did you mean 'good'"),
        ({"words": {**BOTH, "t5": {**WORDS, "bad": (" ",)}}}, "label 'bad' has no word"),
        ({"kind": "pair", "aspect": True}, "only a sentence task can have an aspect"),
        ({"columns": {"txt": "review"}}, "did you mean 'text'"),
        ({"metric": "acuracy"}, "did you mean 'accuracy'"),
        (
            {"metric": "rouge-l"},
            "unknown metric for a task of kind 'sentence': 'rouge-l': .*accuracy, balanced-accuracy, f1:LABEL, macro-f1",
        ),
        ({"kind": "summarisation", "words": {}}, "generates its answer and has no labels"),
    ],
)
def test_a_task_cannot_be_built_wrong(changes, message):
    with pytest.raises(UserError, match=message):
        make(**changes)


@pytest.mark.parametrize(
    "name", ["../etc", "a/b", "a\\b", "", ".hidden", "a..b", "ä", "a b", "a\n", "x" * 101]
)
def test_a_name_that_could_leave_the_output_folder_is_refused(name):
    with pytest.raises(UserError, match="cannot be used"):
        make(name=name)
    with pytest.raises(UserError, match="prompt name"):
        check_name("prompt", name)


def test_a_sentence_task_with_an_aspect_needs_the_aspect_field():
    assert TASKS["laptop"].fields == ("text", "label", "aspect")
    assert TASKS["imdb"].fields == ("text", "label")


def test_with_words_changes_the_named_labels_on_every_family_and_keeps_the_others():
    task = with_words(TASKS["tweeteval_sentiment"], {"negative": " terrible ", "positive": "great"})
    for family in FAMILIES:
        assert task.words[family]["negative"] == ("terrible",)
        assert task.words[family]["positive"] == ("great",)
        assert task.words[family]["neutral"] == TASKS["tweeteval_sentiment"].words[family]["neutral"]
    assert TASKS["tweeteval_sentiment"].words["t5"]["negative"][0] == "negative", "the shipped record stays"


def test_with_words_asks_did_you_mean_for_an_unknown_label():
    with pytest.raises(UserError, match="did you mean 'positive'"):
        with_words(TASKS["sst2"], {"positve": "great"})


def test_with_words_refuses_tasks_without_labels_and_empty_words():
    with pytest.raises(UserError, match="generates text"):
        with_words(TASKS["squad"], {"negative": "bad"})
    with pytest.raises(UserError, match="is empty"):
        with_words(TASKS["sst2"], {"negative": " "})


def test_label_words_are_read_from_pairs():
    assert parse_label_words(["negative=terrible", "positive = great"]) == {
        "negative": "terrible",
        "positive": "great",
    }


@pytest.mark.parametrize("pairs", [["negative"], ["=x"], ["negative="], ["a=b", "a=c"]])
def test_label_words_that_are_not_pairs_are_refused(pairs):
    with pytest.raises(UserError, match="label"):
        parse_label_words(pairs)


def test_the_table_has_a_plain_row_a_task():
    rows = task_table([TASKS["sst2"], TASKS["squad"], make()])
    assert rows[0] == {
        "name": "sst2",
        "type": "sentiment",
        "kind": "sentence",
        "metric": "accuracy",
        "labels": "negative, positive",
        "source": "hub nyu-mll/glue (sst2)",
    }
    assert rows[1]["labels"] == "-" and rows[2]["source"] == "--data only"


def test_tasks_travel_between_processes():
    task = TASKS["laptop"]
    assert pickle.loads(pickle.dumps(task)) == task == copy.deepcopy(task)
    assert hash(task) == hash(copy.deepcopy(task))


def test_the_package_never_imports_torch():
    modules = "tasks.catalog, tasks.custom, tasks.loading, tasks.metrics, tasks.microworld"
    code = f"import sys, {modules}; sys.exit('torch' in sys.modules or 'datasets' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
