"""`train`, `evaluate` and `transfer` from the command line on a tiny backbone: what they leave, and one line for a mistake."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest
from calls import exit_code as run
from toys import toy_rows, write_toy

from prompttransfer.adaptations.artifacts import load_adaptation

ROWS = {
    "toy-film": ("dull film", "cold plot", "rude actor", "fresh film", "warm plot", "kind actor"),
    "toy-room": ("grim room", "slow song", "sour book", "bright room", "quick song", "sweet book"),
}
SHORT = ("--steps", "4", "--batch", "4", "--length", "3", "--evaluate-every", "2", "--precision", "fp32")


@pytest.fixture
def world(tmp_path: Path, backbone_folder, monkeypatch):
    """A data folder, two tasks in YAML files and a backbone; the current folder is empty."""
    for name, texts in ROWS.items():
        write_toy(tmp_path, name, toy_rows(texts))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model").symlink_to(backbone_folder("roberta"))
    return tmp_path


def train(*more: str) -> int:
    return run("train", "--task", "toy-film.yaml", "--backbone", "model", "--data", "data", *SHORT, *more)


def test_a_prompt_is_trained_evaluated_and_moved_to_another_task(world: Path, capsys) -> None:
    assert train("--output", "prompts", "--seeds", "0", "1") == 0
    assert {path.name for path in (world / "prompts").iterdir() if path.is_dir()} >= {
        "toy-film-s0",
        "toy-film-s1",
    }
    assert "written to prompts" in capsys.readouterr().out
    assert run("evaluate", "prompts", "--task", "toy-room.yaml", "--data", "data", "--precision", "fp32") == 0
    assert "toy-room" in capsys.readouterr().out
    moved = ("transfer", "prompts", "--to", "toy-room.yaml", "toy-film.yaml", "--data", "data")
    assert run(*moved, "--precision", "fp32", "--output", "moved") == 0
    matrix = pd.read_csv(world / "moved" / "transfer.csv", index_col=0)
    assert list(matrix.columns) == ["toy-room", "toy-film"]
    references = {"no prompt", "no prompt, calibrated", "random prompt", "majority"}
    assert {"toy-film-s0", "toy-film-s1", *references} == set(matrix.index)


def test_calibrated_scores_stand_beside_the_raw_ones(world: Path, capsys) -> None:

    assert train("--output", "prompts") == 0
    more = ("--data", "data", "--precision", "fp32", "--calibrate", "train-mean")
    assert run("transfer", "prompts", "--to", "toy-room.yaml", *more, "--output", "moved") == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "calibrated (train-mean, at most 128 training rows without labels, seed 0)" in said
    assert "transfer_calibrated.csv" in said and not (world / "moved" / "transfer_relative.csv").exists()
    record = json.loads((world / "moved" / "transfer.json").read_text())
    assert record["calibrated"]["meaning"] == "calibrated" and record["relative"] is None
    second = pd.read_csv(world / "moved" / "transfer_calibrated.csv", index_col=0)
    assert second.loc["toy-film", "toy-room"] == pytest.approx(record["calibrated"]["values"][0][0], abs=1e-6)

    assert run("evaluate", "prompts", "--task", "toy-room.yaml", *more, "--json") == 0
    score = json.loads(capsys.readouterr().out)[0]
    assert score["calibrated"] == pytest.approx(record["calibrated"]["values"][0][0])
    assert score["no_prompt_calibrated"] == pytest.approx(record["raw"]["values"][2][0])

    assert run("report", "moved", "--output", "page.html") == 0
    page = (world / "page.html").read_text()
    assert "once the bias of its label words is taken off" in page
    assert run("transfer", "prompts", "--to", "toy-room.yaml", "--calibrate", "maen", "--output", "x") == 2
    assert "unknown calibration 'maen'" in capsys.readouterr().err and not (world / "x").exists()


def test_the_label_words_of_a_run_are_stored_with_the_prompt(world: Path) -> None:
    assert train("--output", "prompts", "--label-words", "negative=bad", "positive=good") == 0
    assert load_adaptation(world / "prompts" / "toy-film").origin.words == {
        "negative": "bad",
        "positive": "good",
    }


def test_an_adaptation_that_is_read_with_other_words_than_it_learned_is_named(world: Path, capsys) -> None:
    learned = ("--label-words", "negative=bad", "positive=good")
    assert train("--output", "prompts", *learned) == 0
    rows = ("--data", "data", "--precision", "fp32")
    said = "'toy-film' learned toy-film with the label words negative=bad positive=good and is read with"
    evaluate = ("evaluate", "prompts", "--task", "toy-film.yaml", *rows)
    assert run(*evaluate) == 0 and said in capsys.readouterr().err
    assert run("transfer", "prompts", "--to", "toy-film.yaml", *rows, "--output", "moved") == 0
    assert said in capsys.readouterr().err
    assert run(*evaluate, *learned) == 0 and said not in capsys.readouterr().err
    fit = ("project", "fit", "--source-backbone", "model", "--target-backbone", "model", "--tasks", "toy-film.yaml", *rows, "--steps", "2",
           "--source-prompts", "prompts", "--target-prompts", "prompts", "--output")  # fmt: skip
    assert run(*fit, "one") == 0 and said in capsys.readouterr().out
    assert run(*fit, "two", *learned) == 0, capsys.readouterr().err
    assert said not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (("--task", "sst3"), "did you mean 'sst2'"),
        (("--layout", "prompt-frist"), "did you mean 'prompt-first'"),
        (("--init", "radnom"), "did you mean 'random'"),
        (("--optimizer", "adam"), "did you mean 'adamw'"),
        (("--backbone", "microworld-robert"), "did you mean 'microworld-roberta'"),
        (("--label-words", "postive=good"), "did you mean 'positive'"),
        (("--task", "data"), "unknown task"),
        (("--task", "data/toy-film"), "is a folder and no task"),
    ],
)
def test_a_mistake_is_one_line_and_leaves_nothing(world: Path, capsys, arguments, line) -> None:
    assert train("--output", "prompts", *arguments) == 2
    said = capsys.readouterr().err
    assert line in said.replace("\n", " ") and "Traceback" not in said
    assert not (world / "prompts").exists() or not any((world / "prompts").iterdir())


def test_a_bad_data_line_is_named_with_file_and_number(world: Path, capsys) -> None:
    with (world / "data" / "toy-film" / "train.jsonl").open("a") as file:
        file.write('\n{"text": "the film", "label": "good"}')
    assert train("--output", "prompts") == 2
    said = capsys.readouterr().err.replace("\n", "")
    assert "train.jsonl" in said and "25" in said and "good" in said


def test_an_output_folder_that_holds_something_else_is_left_alone(world: Path, capsys) -> None:
    held = world / "prompts" / "toy-film"
    held.mkdir(parents=True)
    (held / "diary.txt").write_text("mine")
    assert train("--output", "prompts") == 2
    assert (held / "diary.txt").read_text() == "mine" and list(held.iterdir()) == [held / "diary.txt"]
