"""Teachers at the command line: `train --distil`, `transfer --tune --distil`, and parts of a shared prompt."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from test_core_loop import run, train, world  # noqa: F401

from prompttransfer.adaptations.adaptation import same_tensors
from prompttransfer.adaptations.artifacts import load_adaptation


@pytest.fixture
def taught(world: Path) -> Path:  # noqa: F811
    """The world of test_core_loop with a teacher in it."""
    assert train("--output", "teachers") == 0
    return world


def test_a_run_learns_from_the_teacher_of_its_task_and_says_so(taught: Path, capsys) -> None:
    more = ("--method", "mpt", "--distil", "teachers", "--distil-on", "both", "--output", "made")
    assert train(*more) == 0
    made = load_adaptation(taught / "made/toy-film")
    distil = made.origin.recipe["distil"]
    assert distil["digest"] == load_adaptation(taught / "teachers/toy-film").digest
    assert (distil["weight"], distil["on"], distil["distance"]) == (0.9, "both", "kl")
    capsys.readouterr()
    assert train(*more) == 0
    assert "nothing is left to do" in capsys.readouterr().out
    assert train(*more, "--distil-weight", "0.5") == 2
    assert "--overwrite" in capsys.readouterr().err

    assert run("prompts", "parts", "made", "--output", "parts") == 0
    assert run("prompts", "whole", "parts", "--output", "whole") == 0
    assert same_tensors(load_adaptation(taught / "whole/toy-film").tensors, made.tensors)


def test_a_transfer_has_a_distilled_run_beside_each_tuned_one(taught: Path, capsys) -> None:
    given = (
        "transfer",
        "teachers",
        "--to",
        "toy-room.yaml",
        "--data",
        "data",
        "--precision",
        "fp32",
        "--tune",
        "--distil",
    )
    short = ("--steps", "4", "--evaluate-every", "2", "--batch", "4", "--output", "moved")
    assert run(*given, *short) == 0
    said = capsys.readouterr().out
    assert "distilled from what was tuned from the source (PANDA)" in said
    (row,) = csv.DictReader((taught / "moved/distilled.csv").open())
    record = json.loads((taught / "moved/transfer.json").read_text())
    assert record["distilled"][0]["distilled_all_steps"] == int(row["distilled_all_steps"]) == 4 + 4 + 4
    student = load_adaptation(taught / "moved/prompts/toy-film-to-toy-room-distilled-s0")
    teacher = load_adaptation(taught / "moved/prompts/toy-film-to-toy-room-s0")
    assert student.origin.recipe["distil"]["digest"] == teacher.digest


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--distil-weight", "1"), "give --distil FOLDER"),
        (("--distil", "teachers", "--distil-weight", "-1"), "--distil-weight -1.0: give a number from 0 on"),
        (("--distil", "teachers", "--distil-on", "words"), "unknown part to distil 'words'"),
        (("--distil", "teachers", "--task", "toy-room.yaml"), "no teacher of task 'toy-room' in teachers"),
        (("--distil", "nowhere"), "nowhere"),
    ],
)
def test_mistakes_of_train_are_one_line(taught: Path, capsys, more, message) -> None:
    capsys.readouterr()
    assert train(*more, "--output", "other") == 2
    said = capsys.readouterr().err
    assert message in said and said.count("\n") == 1


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--distil",), "give them together"),
        (("--tune", "--distil-weight", "similarity"), "give them together"),
        (("--tune", "--distil", "--distil-weight", "much"), "give 'similarity' or a number of 0 or more"),
    ],
)
def test_mistakes_of_transfer_are_one_line(taught: Path, capsys, more, message) -> None:
    capsys.readouterr()
    assert run("transfer", "teachers", "--to", "toy-room.yaml", "--data", "data", *more) == 2
    said = capsys.readouterr().err
    assert message in said and said.count("\n") == 1
