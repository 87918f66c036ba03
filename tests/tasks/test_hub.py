"""Rows from the hub: columns and labels of real tables, the caches without a network, a hub out of reach."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tasks import hub
from tasks.catalog import TASKS
from tasks.errors import MachineError, UserError
from tasks.hub import HubRows, hub_trouble, neutral_row, read_hub
from tasks.task import Example, HubSource

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def row_of(name: str, row: dict) -> dict | None:
    task = TASKS[name]
    assert task.hub is not None
    return neutral_row(task, task.hub, row, "here")


def test_columns_and_label_values_become_neutral():
    assert row_of("sst2", {"sentence": "a", "label": 1, "idx": 0}) == {"text": "a", "label": "positive"}
    assert row_of("qnli", {"question": "q", "sentence": "s", "label": 1}) == {
        "text_a": "q",
        "text_b": "s",
        "label": "not_entailment",
    }
    assert row_of("mnli", {"premise": "p", "hypothesis": "h", "label": 2}) == {
        "text_a": "p",
        "text_b": "h",
        "label": "contradiction",
    }


def test_a_nested_column_and_a_document_of_sentences_are_read():
    squad = {"question": "q", "context": "c", "answers": {"text": ["a", "b"], "answer_start": [0, 1]}}
    assert row_of("squad", squad) == {"question": "q", "context": "c", "answers": ["a", "b"]}
    scitldr = {"source": ["One.", "Two."], "target": ["S.", "T."]}
    assert row_of("scitldr", scitldr) == {"document": "One. Two.", "summary": ["S.", "T."]}


def test_a_nested_column_that_is_not_there_names_what_is():
    broken = {"question": "q", "context": "c"}
    assert row_of("squad", {**broken, "answers": None}) is None
    with pytest.raises(UserError, match=r"here: no 'text' of column 'answers.text', only answer_start"):
        row_of("squad", {**broken, "answers": {"answer_start": [0]}})
    with pytest.raises(UserError, match="only list"):
        row_of("squad", {**broken, "answers": [{"text": "a"}]})
    with pytest.raises(UserError, match=r"label \[1\] is not one of"):
        row_of("sst2", {"sentence": "a", "label": [1]})
    with pytest.raises(UserError, match="other things than text"):
        row_of("scitldr", {"source": ["One.", 2], "target": ["S."]})


def test_rows_without_a_gold_label_of_a_foreign_class_or_without_text_are_left_out():
    assert row_of("snli", {"premise": "p", "hypothesis": "h", "label": -1}) is None
    assert row_of("laptop", {"text": "t", "span": "s", "label": "conflict"}) is None
    assert row_of("qqp", {"question1": "", "question2": "q", "label": 0}) is None


def test_a_label_value_that_the_record_does_not_know_is_an_error():
    with pytest.raises(UserError, match="here: label 7 is not one of those known for task 'sst2': 0, 1"):
        row_of("sst2", {"sentence": "a", "label": 7})


class Table:
    """What `HubRows` asks of a `datasets.Dataset`."""

    def __init__(self, rows: list[dict]) -> None:
        self.rows = rows
        self.column_names = list(rows[0])

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict:
        return self.rows[index]


def test_a_table_without_the_column_says_which_it_has():
    task = TASKS["sst2"]
    assert task.hub is not None
    with pytest.raises(UserError, match="no column 'sentence' for 'text' of task 'sst2', only txt, label"):
        HubRows(task, task.hub, Table([{"txt": "a", "label": 0}]), "hub x")
    assert HubRows(task, task.hub, Table([{"sentence": "a", "label": 0}]), "hub x")[0] == Example(
        "a", label=0
    )


def test_a_hub_that_does_not_answer_is_given_up_in_time(monkeypatch):
    import huggingface_hub

    monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", lambda *_, **__: time.sleep(3))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    begun = time.monotonic()
    assert hub_trouble(HubSource("a/b"), patience=0.2) == "no answer within 0 seconds"
    assert time.monotonic() - begun < 2


def test_a_data_set_that_the_hub_does_not_have_is_the_users_mistake(monkeypatch):
    import huggingface_hub
    from huggingface_hub.errors import RepositoryNotFoundError

    def absent(*_, **__):
        raise RepositoryNotFoundError.__new__(RepositoryNotFoundError)

    monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", absent)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    with pytest.raises(UserError, match="the hub has no data set 'a/b'"):
        hub_trouble(HubSource("a/b"))


def test_a_task_without_a_hub_source_says_how_to_give_rows():
    from dataclasses import replace

    with pytest.raises(UserError, match=r"--data DIR \(DIR/sst2/train\.jsonl"):
        read_hub(replace(TASKS["sst2"], hub=None))


def run(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """A fresh interpreter, because the libraries read their environment when they are imported."""
    return subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "HF_HUB_OFFLINE": "", **environment},
        capture_output=True,
        text=True,
        check=False,
    )


LOAD = """
from tasks.catalog import find_task
from tasks.loading import load_splits
try:
    splits = load_splits(find_task({name!r}))
    print(len(splits.train), len(splits.validation), len(splits.test), splits.revision)
except Exception as error:
    print(type(error).__name__, error)
"""


def test_a_hub_out_of_reach_is_one_line_within_five_seconds(tmp_path):
    begun = time.monotonic()
    done = run(LOAD.format(name="imdb"), HF_ENDPOINT="http://127.0.0.1:9", HF_HOME=str(tmp_path))
    assert time.monotonic() - begun < 5
    assert done.stdout.startswith("MachineError cannot load data set 'stanfordnlp/imdb' for task 'imdb'")
    assert "--data DIR" in done.stdout and done.stdout.count("\n") == 1


def parquet(folder: Path, rows: list[dict]) -> Path:
    import pandas

    folder.mkdir(parents=True)
    pandas.DataFrame(rows).to_parquet(folder / "0000.parquet")
    return folder / "0000.parquet"


@pytest.fixture
def hub_cache(tmp_path) -> Path:
    """The hub library's cache with the parquet files of one configuration of ETHICS."""
    repository = tmp_path / "hub" / "datasets--EleutherAI--hendrycks_ethics"
    for split in ("train", "test"):
        rows = [{"label": i % 2, "scenario": f"{split} {i}"} for i in range(20)]
        parquet(repository / "snapshots" / COMMIT / "justice" / split, rows)
    (repository / "refs" / "refs" / "convert").mkdir(parents=True)
    (repository / "refs" / "refs" / "convert" / "parquet").write_text(COMMIT)
    return tmp_path


def test_named_files_are_taken_from_the_cache_with_their_commit_when_the_hub_is_out_of_reach(hub_cache):
    done = run(LOAD.format(name="ethics_justice"), HF_ENDPOINT="http://127.0.0.1:9", HF_HOME=str(hub_cache))
    assert done.stdout == f"18 2 20 {COMMIT}\n"


def test_files_that_the_cache_lacks_are_not_replaced_by_others(hub_cache):
    done = run(
        LOAD.format(name="ethics_deontology"), HF_ENDPOINT="http://127.0.0.1:9", HF_HOME=str(hub_cache)
    )
    assert done.stdout.startswith("MachineError cannot load data set 'EleutherAI/hendrycks_ethics'")


@pytest.fixture
def datasets_cache(tmp_path) -> Path:
    """The `datasets` library's cache with one prepared configuration, as a run with a network would leave it."""
    import datasets

    path = parquet(tmp_path / "made", [{"text": f"row {i}", "label": i % 2} for i in range(30)])
    files = {"train": str(path), "test": str(path)}
    builder = datasets.load_dataset_builder("parquet", data_files=files, cache_dir=str(tmp_path / "datasets"))
    builder.download_and_prepare()
    folder = tmp_path / "datasets" / "stanfordnlp___imdb" / "plain_text" / "0.0.0" / COMMIT
    folder.parent.mkdir(parents=True)
    Path(builder.cache_dir).rename(folder)
    for split in files:
        (folder / f"parquet-{split}.arrow").rename(folder / f"imdb-{split}.arrow")
    info = json.loads((folder / "dataset_info.json").read_text())
    (folder / "dataset_info.json").write_text(
        json.dumps(info | {"dataset_name": "imdb", "config_name": "plain_text"})
    )
    return tmp_path


def test_a_prepared_data_set_is_taken_from_the_cache_with_its_commit(datasets_cache):
    done = run(LOAD.format(name="imdb"), HF_ENDPOINT="http://127.0.0.1:9", HF_HOME=str(datasets_cache))
    assert done.stdout == f"27 3 30 {COMMIT}\n"


def test_another_commit_than_the_pinned_one_is_not_taken_for_it(monkeypatch):
    pinned = HubSource("a/b", revision="f" * 40)
    monkeypatch.setattr(hub, "_load_config", lambda _: ({}, COMMIT))
    with pytest.raises(MachineError, match=f"the cache holds another commit, {COMMIT}"):
        hub._load(pinned, "for task 'imdb'", "no network")
