"""What is finished is shown as it was shown first: the same command again prints the same tables."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from prompttransfer.cli import main

SHORT = ("--batch", "4", "--precision", "fp32", "--data", "data")


@pytest.fixture
def world(tmp_path: Path, backbone_folder, monkeypatch) -> Path:
    """Two tasks with rows and two backbones in the current folder."""
    for name in ("film", "room"):
        folder = tmp_path / "data" / name
        folder.mkdir(parents=True)
        (tmp_path / f"{name}.yaml").write_text(
            f"name: {name}\ntype: sentiment\nkind: sentence\nwords:\n  negative: terrible\n  positive: great\n"
        )
        lines = [
            json.dumps({"text": f"the {name} was {word}", "label": label})
            for word, label in (("bad", "negative"), ("good", "positive"))
            for _ in range(8)
        ]
        for split in ("train", "validation"):
            (folder / f"{split}.jsonl").write_text("\n".join(lines))
    (tmp_path / "model").symlink_to(backbone_folder("roberta"))
    (tmp_path / "wide").symlink_to(backbone_folder("roberta", 24))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def said(capsys, *arguments: object) -> list[str]:
    """What a command prints; it must not fail."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        main([str(argument) for argument in arguments])
    printed = capsys.readouterr()
    assert not ended.value.code, printed.err
    return printed.out.splitlines()


def train(capsys, *more: object) -> list[str]:
    return said(capsys, "train", "--task", "film.yaml", "--backbone", "model", "--length", 3, *SHORT, *more)


def from_line(lines: list[str], begun: str, end: str) -> list[str]:
    """The lines from the one that begins so to before the one that holds `end`."""
    first = next(place for place, line in enumerate(lines) if line.startswith(begun))
    last = next(place for place, line in enumerate(lines) if place > first and end in line)
    return lines[first:last]


def test_a_transfer_with_its_spread_its_runs_and_its_students(world, capsys) -> None:
    train(capsys, "--steps", 4, "--evaluate-every", 2, "-o", "p")
    again = ("transfer", "p", "--to", "room.yaml", "film.yaml", "--tune", "--distil", "--seeds", 0, 1, "--steps", 2,
             "--evaluate-every", 1, *SHORT, "-o", "t", "--predictions", "said.jsonl", "--calibrate", "train-mean")  # fmt: skip
    first = from_line(said(capsys, *again), "zero-shot transfer", "written to")
    second = from_line(said(capsys, *again), "zero-shot transfer", "made before")
    assert second == first
    text = "\n".join(first)
    for part in ("its spread", "calibrated", "TPT_task", "distilled", "another split", "mean over seeds"):
        assert part in text


def test_predictions_are_of_the_tuned_runs_too(world, capsys) -> None:
    train(capsys, "--steps", 4, "--evaluate-every", 2, "-o", "p")
    said(capsys, "transfer", "p", "--to", "room.yaml", "--tune", "--steps", 2, "--evaluate-every", 1, *SHORT,
         "-o", "t", "--predictions", "said.jsonl")  # fmt: skip
    lines = [json.loads(line) for line in (world / "said.jsonl").read_text().splitlines()]
    assert {line["prompt"] for line in lines} == {"film", "room-scratch-s0", "film-to-room-s0"}
    right = [line["right"] for line in lines if line["prompt"] == "film-to-room-s0"]
    pair = json.loads((world / "t" / "transfer.json").read_text())["tuned"][0]
    assert sum(right) / len(right) == pytest.approx(pair["test_from_source"]) and len(right) == 16


def test_the_settings_of_a_sweep(world, capsys) -> None:
    again = ("--sweep", "lr=0.01,0.1,0.3", "--steps", 4, "--evaluate-every", 1, "--seeds", 0, 1, "-o", "s")
    first, second = train(capsys, *again), train(capsys, *again)
    assert any("trained before" in line for line in second)
    assert from_line(second, "settings tried", "written:") == from_line(first, "settings tried", "written:")
    records = [json.loads("\n".join(train(capsys, *again, "--json"))) for _ in range(2)]
    assert records[0] == records[1] and "lr" in json.dumps(records[0])


def test_a_fit(world, capsys) -> None:
    for model in ("model", "wide"):
        said(capsys, "train", "--task", "film.yaml", "room.yaml", "--backbone", model, "--length", 3, "--steps", 2,
             "--seeds", 0, *SHORT, "-o", f"{model}-prompts")  # fmt: skip
    again = ("project", "fit", "--tasks", "film.yaml", "room.yaml", "--source-backbone", "model", "--target-backbone", "wide",
             "--source-prompts", "model-prompts", "--target-prompts", "wide-prompts", "--steps", 2, "--seeds", 0,
             "--precision", "fp32", "--data", "data", "-o", "fit")  # fmt: skip
    first, second = said(capsys, *again), said(capsys, *again)
    table = from_line(first, "tasks", "it lies in")
    assert from_line(second, "tasks", "it lies in") == table
    assert any(line.startswith("input sensitivity") for line in table)
