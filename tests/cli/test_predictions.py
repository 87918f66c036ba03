"""`--predictions` of train, evaluate and transfer, `compare-predictions` and `plot confusion`."""

from __future__ import annotations

import json

import pytest
from calls import call, lines
from calls import output_of as run

from prompttransfer.adaptations.artifacts import load_adaptation
from tasks.errors import UserError

SMALL = ("--limit-test", 40, "--precision", "fp32")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Two prompts chosen by Matthews' correlation, and what they say to 40 test rows of their tasks."""
    root = tmp_path_factory.mktemp("said")
    run("train", "--task", "microworld-imdb", "microworld-tweet", "--metric", "mcc", "--steps", 8, "--evaluate-every", 4,
        "--limit-train", 64, "--logger", "none", "--output", root / "prompts", "--predictions", root / "own.jsonl", *SMALL)  # fmt: skip
    run(
        "evaluate", root / "prompts", "--task", "microworld-imdb", "--predictions", root / "all.jsonl", *SMALL
    )
    return root


def test_the_metric_chooses_the_checkpoint_and_stands_in_the_scores(place):
    prompt = load_adaptation(place / "prompts" / "microworld-imdb")
    best = max(point.score for point in prompt.curve)
    assert prompt.scores["validation"] == {"mcc": best, "step": prompt.scores["validation"]["step"]}
    assert {"mcc", "accuracy", "macro-f1"} <= set(prompt.scores["test"])
    assert prompt.scores["test"]["chance"] == 0


def test_predictions_are_the_scores_row_by_row(place):
    said = [line for line in lines(place / "own.jsonl") if line["task"] == "microworld-tweet"]
    scores = load_adaptation(place / "prompts" / "microworld-tweet").scores["test"]
    assert len(said) == 40 and [line["row"] for line in said] == list(range(40))
    assert sum(line["right"] for line in said) / 40 == pytest.approx(scores["accuracy"])
    for line in said:
        assert line["predicted"] == max(line["probabilities"], key=line["probabilities"].get)
        assert sum(line["probabilities"].values()) == pytest.approx(1, abs=1e-4)
        assert line["right"] == (line["gold"] == line["predicted"]) and line["text"]


def test_evaluate_says_the_same_with_the_metric_that_chose(place):
    records = json.loads(run("evaluate", place / "prompts", "--task", "microworld-imdb", "--json", *SMALL))
    assert {record["metric"] for record in records} == {"mcc"}, "the prompts' own"
    own = [line for line in lines(place / "own.jsonl") if line["task"] == "microworld-imdb"]
    again = [line for line in lines(place / "all.jsonl") if line["prompt"] == "microworld-imdb"]
    assert [line["predicted"] for line in again] == [line["predicted"] for line in own]
    other = json.loads(run("evaluate", place / "prompts", "--task", "microworld-imdb", "--metric", "f1:positive", "--json", *SMALL))  # fmt: skip
    assert {record["metric"] for record in other} == {"f1:positive"}


def test_transfer_writes_those_of_its_zero_shot_matrix(place):
    run("transfer", place / "prompts", "--to", "microworld-sst2", "--metric", "accuracy", "--random-draws", 2,
        "--output", place / "transfer", "--predictions", place / "moved.jsonl", *SMALL)  # fmt: skip
    matrix = json.loads((place / "transfer" / "transfer.json").read_text())["raw"]
    said = lines(place / "moved.jsonl")
    for row, source in enumerate(("microworld-imdb", "microworld-tweet")):
        right = [line["right"] for line in said if line["prompt"] == source]
        assert sum(right) / 40 == pytest.approx(matrix["values"][matrix["sources"].index(source)][0]), row


def test_two_files_are_compared_row_by_row(place, tmp_path):
    (record,) = json.loads(run("compare-predictions", place / "own.jsonl", place / "all.jsonl", "--second",
                               "microworld-tweet", "--json", "--output", tmp_path / "d.jsonl"))  # fmt: skip
    assert record["rows"] == 40 == sum(record[k] for k in ("both", "only_first", "only_second", "neither"))
    assert record["difference"] == pytest.approx((record["only_first"] - record["only_second"]) / 40)
    assert record["low"] <= record["difference"] <= record["high"] and 0 < record["p_mcnemar"] <= 1
    divided = lines(tmp_path / "d.jsonl")
    assert len(divided) == record["only_first"] + record["only_second"]
    assert all((line["first"] == line["gold"]) == (line["right"] == "first") for line in divided)


def test_a_confusion_matrix_is_drawn_of_one_task(place):
    run("plot", "confusion", place / "own.jsonl", "--task", "microworld-tweet", "--output", place / "c.png")
    assert (place / "c.png").read_bytes().startswith(b"\x89PNG") and (place / "c.svg").exists()
    with pytest.raises(UserError, match="has predictions on microworld-imdb, microworld-tweet: draw one"):
        raise call("plot", "confusion", place / "own.jsonl").exception


def prediction(**change):
    return {"prompt": "a", "task": "t", "row": 0, "text": "x", "gold": "g", "predicted": "g", "right": True, "score": 1.0} | change  # fmt: skip


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        ([prediction()], [prediction(text="y")], "row 0 of a and row 0 of a on t are not the same"),
        ([prediction()], [prediction(), prediction(row=1)], "a has 1 rows of t, a 2"),
        ([prediction()], [prediction(task="u")], "they share no task"),
        ([prediction()], [prediction(), prediction(prompt="b")], "has several adaptations on t: choose one with --second, of a, b"),
        ([prediction()], [{"row": 0}], r"two.jsonl:1 is damaged: prompt"),
        ([prediction()], [], "holds no predictions"),
    ],
)  # fmt: skip
def test_files_that_cannot_be_compared_are_one_clear_line(tmp_path, first, second, message):
    for name, rows in (("one", first), ("two", second)):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(UserError, match=message):
        raise call("compare-predictions", tmp_path / "one.jsonl", tmp_path / "two.jsonl").exception
