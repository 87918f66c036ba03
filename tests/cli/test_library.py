"""`transfer --from-library` and `train --mixture` as they are typed."""

import json
import re

import pytest
from toys import changed, prompt_on

from prompttransfer.adaptations.artifacts import load_adaptation, save_adaptation
from prompttransfer.cli import main

SHORT = (
    "--limit-train",
    "16",
    "--limit-test",
    "8",
    "--steps",
    "2",
    "--evaluate-every",
    "1",
    "--precision",
    "fp32",
)


def call(capsys, *arguments):
    with pytest.raises(SystemExit) as stopped:
        main(list(map(str, arguments)))
    return stopped.value.code, *capsys.readouterr()


@pytest.fixture
def library(tiny, tmp_path):
    """Three prompts of a library, and in another folder one of the target."""
    for seed, task in enumerate(("microworld-imdb", "microworld-snli", "microworld-mrpc")):
        own = prompt_on(tiny("roberta"), task=task, seed=seed, name=task)
        save_adaptation(own, tmp_path / "library" / task)
    own = prompt_on(tiny("roberta"), task="microworld-sst2", seed=1, name="own")
    save_adaptation(changed(own, recipe={"steps": 7}), tmp_path / "own")
    return tmp_path


def test_a_target_is_trained_from_what_a_library_has_for_it(library, capsys):
    asked = (
        *(
            "transfer",
            "--from-library",
            library / "library",
            "--retrieve",
            "top-2",
            "--to",
            "microworld-sst2",
        ),
        *(
            "--target-prompt",
            library / "own",
            "--by",
            "C_average-token",
            "--how",
            "both",
            "--output",
            library / "out",
            *SHORT,
        ),
    )
    code, out, error = call(capsys, *asked)
    assert code == 0, error
    assert re.search(
        r"retrieved for microworld-sst2, seed 0: microworld-snli \S+\s\(similarity 1\.000\)", out
    )
    rows = [line for line in out.splitlines() if line.startswith("microworld-sst2")]
    steps = {line.split("  ")[1].strip(): line.split()[-3:] for line in rows}
    assert steps == {
        "scratch": ["2", "2", "2"],
        "scratch, all steps": ["11", "11", "11"],  # the target's own prompt took 7, and 2 runs 2 each
        "best of top-k": ["2", "11", "11"],
        "weighted average": ["2", "9", "9"],
    }
    record = json.loads((library / "out" / "library.json").read_text())
    best = next(each for each in record["outcomes"] if each["way"] == "best of top-k")
    kept = load_adaptation(library / "out" / "prompts" / best["adaptation"])
    assert kept.scores["test"]["accuracy"] == best["test"]
    code, again, _ = call(capsys, *asked)
    assert code == 0 and "nothing is left to do" in again
    assert [line for line in again.splitlines() if line.startswith("microworld-sst2")] == rows
    code, _, error = call(capsys, *asked[:4], "top-1", *asked[5:])
    assert code == 2 and "--overwrite" in error


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            ("--from-library", "library", "--retrieve", "best"),
            "--retrieve best: write how many sources to take",
        ),
        (
            ("--from-library", "library", "--retrieve", "top-4"),
            "there are 3 sources in library, fewer than top=4",
        ),
        (("--from-library", "empty"), "there is no library at empty"),
        (("library", "--from-library", "library"), "leave other sources out"),
        (("library", "--by", "ON"), "--by is about --from-library"),
        (("--from-library", "library", "--tune"), "--tune is about a matrix of sources"),
        (("--from-library", "library", "--by", "C_averag"), "did you mean 'C_average'?"),
        (
            ("--from-library", "library", "--target-prompt", "library/microworld-imdb"),
            "was trained on microworld-imdb, not on microworld-sst2",
        ),
        ((), "no source given"),
    ],
)
def test_what_cannot_be_is_one_line_before_any_work(library, monkeypatch, capsys, given, message):
    monkeypatch.chdir(library)
    code, out, error = call(capsys, "transfer", *given, "--to", "microworld-sst2")
    assert code == 2 and out == "" and error.count("\n") == 1
    assert message in error


def test_one_prompt_is_trained_for_several_tasks(tiny, library, capsys):
    backbone = load_adaptation(library / "own").backbone
    asked = ("train", "--task", "microworld-sst2", "microworld-snli", "--mixture", "--backbone", backbone)
    code, out, error = call(capsys, *asked, *SHORT, "--length", "3", "--output", library / "mixed")
    assert code == 0, error
    assert "microworld-sst2 0.500, microworld-snli 0.500" in out
    own = load_adaptation(library / "mixed" / "microworld-sst2+microworld-snli")
    assert own.scores["test"]["tasks"].keys() == {"microworld-sst2", "microworld-snli"}
    code, out, error = call(capsys, *asked[:3], "--mixture")
    assert code == 2 and "--mixture is of several tasks" in error
