"""A user's own task from a YAML file: what may be said, and how mistakes are answered."""

from __future__ import annotations

from pathlib import Path

import pytest

from tasks.custom import read_task_file
from tasks.errors import UserError
from tasks.loading import load_splits

GOOD = """name: my_reviews
type: sentiment
kind: sentence
words:
  bad: [terrible, awful]
  good: great
"""


def write(folder: Path, text: str | bytes) -> Path:
    path = folder / "task.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_six_lines_make_a_task(tmp_path):
    task = read_task_file(write(tmp_path, GOOD))
    assert (task.name, task.labels, task.metric) == ("my_reviews", ("bad", "good"), "accuracy")
    for family in ("masked-lm", "t5"):
        assert task.words[family] == {"bad": ("terrible", "awful"), "good": ("great",)}


def test_words_may_differ_by_backbone_family(tmp_path):
    text = GOOD.split("words:")[0] + 'words: {masked-lm: {a: no, b: ["yes"]}, t5: {a: x, b: y}}'.replace(
        "no", '"no"'
    )
    task = read_task_file(write(tmp_path, text))
    assert task.words == {"masked-lm": {"a": ("no",), "b": ("yes",)}, "t5": {"a": ("x",), "b": ("y",)}}


def test_a_task_that_generates_needs_no_words(tmp_path):
    task = read_task_file(
        write(tmp_path, "name: trivia\ntype: qa\nkind: closed-book-qa\nmetric: exact-match\n")
    )
    assert task.generates and task.metric == "exact-match"


def test_its_folder_is_beside_the_file_and_its_columns_are_its_own(tmp_path):
    (tmp_path / "rows").mkdir()
    for name in ("train", "validation"):
        (tmp_path / "rows" / f"{name}.jsonl").write_text(
            '{"review": "a b", "label": "bad"}\n{"review": "c", "label": "good"}\n'
        )
    task = read_task_file(write(tmp_path, GOOD + "folder: rows\ncolumns: {text: review}\n"))
    splits = load_splits(task)
    assert [example.first for example in splits.test] == ["a b", "c"]
    assert splits.source == f"folder {tmp_path / 'rows'}"


def test_one_file_its_label_values_and_its_empty_rows(tmp_path):
    (tmp_path / "all.csv").write_text("body,stars\n" + "".join(f"film {i},{i % 2}\n,1\n" for i in range(20)))
    text = (
        GOOD
        + "file: all.csv\ncolumns: {text: body, label: stars}\nlabels: {0: bad, 1: good}\nskip_empty: true\n"
    )
    task = read_task_file(write(tmp_path, text))
    splits = load_splits(task)
    assert (len(splits.train) + len(splits.validation), len(splits.test), splits.empty) == (16, 4, 20)
    assert {(row.first, row.label) for row in splits.test} <= {(f"film {i}", i % 2) for i in range(20)}


def test_its_hub_source_is_read_with_label_values(tmp_path):
    task = read_task_file(
        write(tmp_path, GOOD + "hub: {repo: me/mine, test: test, labels: {0: bad, 1: good, -1: null}}\n")
    )
    assert task.hub is not None
    assert (task.hub.repo, task.hub.test, task.hub.labels) == (
        "me/mine",
        "test",
        {0: "bad", 1: "good", -1: None},
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (GOOD + "metrc: accuracy\n", "unknown key 'metrc': did you mean 'metric'"),
        (GOOD + "hub: {repo: a/b, colums: {}}\n", "unknown key 'colums': did you mean 'columns'"),
        (GOOD.replace("name: my_reviews\n", ""), "no 'name'"),
        (GOOD.replace("kind: sentence\n", ""), "no 'kind'.*closed-book-qa"),
        (GOOD.replace("kind: sentence", "kind: sentnce"), "unknown kind of task 'sentnce': did you mean 'sentence'"),
        (GOOD.replace("my_reviews", "../x"), "task name '../x' cannot be used"),
        (GOOD.replace("my_reviews", "sst2"), "belongs to a shipped task"),
        (GOOD.replace("my_reviews", "12"), "name is 12: "),
        (GOOD.split("words:")[0], "no label words: a task with labels needs `words`"),
        (GOOD.split("  good")[0], "at least 2 labels, 1 given"),
        (GOOD.replace("great", "[]"), "label 'good' has no word"),
        (GOOD.replace("  good: great", "  yes: great"), "read by YAML as True .bool.; put it in quotes"),
        (GOOD.replace("great", "[great, no]"), "read by YAML as False"),
        (GOOD.replace("  good: great", "  1: great"), "read by YAML as 1"),
        (GOOD.replace("great", ""), "words.good"),
        (GOOD.split("words:")[0] + "words: {t5: {a: x, b: y}}", "given for t5 but not for masked-lm"),
        (GOOD.split("words:")[0] + "words: {t5: {a: x, b: y}, masked-lm: {a: x, c: y}}", "different labels"),
        (GOOD.split("words:")[0] + "words: &a {bad: *a}", "stands inside what it names"),
        (GOOD + "kind2", "not YAML"),
        (GOOD + "note: 2026-02-30\n", "'2026-02-30' cannot be read"),
        (GOOD.replace("  good: great", "  good: great\n  good: fine"), "key 'good' stands here a second time"),
        ("- a\n- b\n", "a task file is a YAML mapping"),
        ("", "a task file is a YAML mapping"),
        (b"\xff\xfe\x00", "not UTF-8"),
        (GOOD + "folder: a\nhub: {repo: a/b}\n", "both folder and hub"),
        (GOOD + "folder: a\nfile: b.csv\n", "both folder and file"),
        (GOOD + "labels: {0: bad}\nhub: {repo: a/b}\n", "labels is about files of rows"),
        (GOOD + "labels: {0: worse}\n", "unknown label in the labels of task 'my_reviews': 'worse'"),
        (GOOD + "splits: {dev: b.csv}\n", "unknown split in the splits of task 'my_reviews': 'dev'"),
        (GOOD + "columns: {txt: review}\n", "did you mean 'text'"),
        (GOOD + "hub: {repo: a/b, labels: {0: bat}}\n", "did you mean 'bad'"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_line_that_names_the_file(tmp_path, text, message):
    path = write(tmp_path, text)
    with pytest.raises(UserError, match=message) as caught:
        read_task_file(path)
    assert str(caught.value).startswith(str(path)) and "\n" not in str(caught.value)


def test_a_missing_file_and_a_folder_are_named(tmp_path):
    with pytest.raises(UserError, match="no task file"):
        read_task_file(tmp_path / "none.yaml")
    with pytest.raises(UserError, match="is a folder"):
        read_task_file(tmp_path)
