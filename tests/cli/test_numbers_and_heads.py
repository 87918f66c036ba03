"""Numbers, classes of a head and several labels a row, as a user has them: tables, train, evaluate, transfer, predict, compare."""

from __future__ import annotations

import json
import random

import pytest
from calls import call, lines
from calls import output_of as run

from prompttransfer.adaptations.artifacts import load_adaptation
from prompttransfer.cli.common import resolve_tasks
from tasks.custom import read_task_file
from tasks.errors import UserError

NOUNS = ("film", "food", "plot", "room", "actor", "song", "book", "phone")
WORDS = ("dull", "cold", "slow", "fresh", "warm", "kind")


@pytest.fixture(scope="module")
def place(tmp_path_factory, backbone_folder):
    """Three tables, their task files, and a prompt for each."""
    root, draw = tmp_path_factory.mktemp("kinds"), random.Random(0)
    texts = [f"the {noun} was {word} and the {draw.choice(NOUNS)} too" for noun in NOUNS for word in WORDS]
    stars = [f"{text},{WORDS.index(text.split()[3])}" for text in texts]
    topic = [f"{text},{text.split()[1]}" for text in texts]
    topics = [
        f'{text},"{text.split()[1]}|{text.split()[6]}"' if i % 5 else f"{text},"
        for i, text in enumerate(texts)
    ]
    for name, rows in (("stars", stars), ("topic", topic), ("topics", topics)):
        (root / f"{name}.csv").write_text("\n".join(["text,label", *rows]))
    for name, *kind in (("stars", "regression"), ("topic", "head"), ("topics", "multi-label")):
        words = ("--label-words", "low=terrible", "high=great") if name == "stars" else ()
        run(
            "tasks",
            "new",
            name,
            "--data",
            root / f"{name}.csv",
            "--kind",
            *kind,
            *words,
            "--output",
            root / f"{name}.yaml",
        )
    run("train", "--task", *(root / f"{n}.yaml" for n in ("stars", "topic", "topics")), "--backbone", backbone_folder("roberta"),
        "--steps", 40, "--batch", 8, "--length", 3, "--evaluate-every", 20, "--precision", "fp32", "--logger", "none",
        "--output", root / "prompts", "--predictions", root / "said.jsonl")  # fmt: skip
    return root


def test_what_tasks_new_writes_says_what_a_label_is(place):
    stars, topic, topics = (read_task_file(place / f"{name}.yaml") for name in ("stars", "topic", "topics"))
    assert str(stars.scale) == "0 to 5" and stars.metric == "pearson" and stars.labels == ("low", "high")
    assert topic.head and set(topic.labels) == set(NOUNS) and topic.metric == "accuracy"
    assert topics.separator == "|" and topics.metric == "micro-f1" and set(topics.labels) == set(NOUNS)


def test_classes_that_no_file_lists_are_read_from_the_rows(place, tmp_path):
    text = "name: topic\ntype: topic\nkind: sentence\nhead: true\n"
    (tmp_path / "t.yaml").write_text(text)
    assert resolve_tasks([str(tmp_path / "t.yaml")], data=place / "topic.csv")[0].labels == tuple(
        sorted(NOUNS)
    )
    (data,) = resolve_tasks([str(place / "topic.csv")], head=True)
    assert data.head and data.labels == tuple(sorted(NOUNS)) and not data.words
    with pytest.raises(UserError, match=r"neither listed nor are there rows.*--data"):
        read_task_file(tmp_path / "t.yaml")
    (tmp_path / "t.yaml").write_text(text + "classes: [film, food]\n")
    assert read_task_file(tmp_path / "t.yaml").labels == ("film", "food")
    result = call("tasks", "check", tmp_path / "t.yaml", "--data", place / "topic.csv")
    assert result.exit_code != 0 and "label for task 'topic'" in str(result.exception)


def test_a_method_that_can_have_no_head_is_refused_before_a_model_is_loaded(place, backbone_folder):
    asked = ("train", "--task", place / "topic.yaml", "--method", "text-search:length=2", "--dry-run")
    result = call(*asked, "--backbone", backbone_folder("roberta"))
    assert result.exit_code != 0 and "follows no gradient that could train it" in str(result.exception)


def test_scores_stand_beside_what_they_must_be_compared_with(place):
    scores = {p: load_adaptation(place / "prompts" / p).scores["test"] for p in ("stars", "topic", "topics")}
    assert scores["stars"]["chance"] == 0 and {"pearson", "spearman"} <= set(scores["stars"])
    assert scores["stars"]["no_prompt"] is not None and scores["topic"]["no_prompt"] is None
    assert {"micro-f1", "macro-f1", "subset-accuracy"} <= set(scores["topics"]) and scores["topics"][
        "chance"
    ] > 0
    records = json.loads(run("evaluate", place / "prompts", "--precision", "fp32", "--json"))
    for record in (record for record in records if record["prompt"] == record["task"]):
        assert record["value"] == pytest.approx(scores[record["task"]][record["metric"]], abs=1e-9)
    assert "head.safetensors" in (place / "prompts" / "topic" / "README.md").read_text()
    f1 = json.loads(
        run("evaluate", place / "prompts" / "topics", "--metric", "f1:film", "--precision", "fp32", "--json")
    )
    assert 0 <= f1[0]["value"] <= 1 and f1[0]["metric"] == "f1:film"


def test_predictions_hold_numbers_and_sets(place):
    said = {
        name: [line for line in lines(place / "said.jsonl") if line["task"] == name]
        for name in ("stars", "topics")
    }
    for line in said["stars"]:
        assert 0 <= line["predicted"] <= 5 and line["right"] is None
        assert line["score"] == pytest.approx(1 - abs(line["predicted"] - line["gold"]) / 5, abs=1e-5)
    for line in said["topics"]:
        assert line["right"] == (line["gold"] == line["predicted"])
        assert line["predicted"] == [name for name, share in line["probabilities"].items() if share > 0.5]


def test_predict_prints_the_number_the_class_and_the_labels(place, tmp_path):
    rows = [{"task": name, "text": "the film was dull"} for name in ("stars", "topic", "topics")]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    run("predict", "--from", place / "prompts", "--input", tmp_path / "rows.jsonl", "--output", tmp_path / "out.jsonl",
        "--precision", "fp32")  # fmt: skip
    stars, topic, topics = (line["prediction"] for line in lines(tmp_path / "out.jsonl"))
    assert (
        stars["value"] == pytest.approx(5 * stars["probabilities"]["high"], abs=1e-5)
        and stars["label"] is None
    )
    assert topic["label"] in NOUNS and topic["text"] is None and "value" not in topic
    assert set(topics["labels"]) == {name for name, share in topics["probabilities"].items() if share > 0.5}


def test_transfer_moves_numbers_and_refuses_other_classes_in_one_line(place, tmp_path):
    said = run(
        "transfer",
        place / "prompts",
        "--to",
        "stars",
        "topic",
        "--precision",
        "fp32",
        "--output",
        tmp_path / "zero",
    )
    assert "the prompt has no head, and task 'topic' is answered by a head of 8 classes" in " ".join(
        said.split()
    )
    assert "topic: answered by a trained head" in said
    matrix = json.loads((tmp_path / "zero" / "transfer.json").read_text())["raw"]
    assert matrix["values"][matrix["sources"].index("topic")][0] is not None, (
        "by label words, without its head"
    )
    assert matrix["values"][matrix["sources"].index("stars")][1] is None
    run("transfer", place / "prompts" / "stars", "--to", place / "topic.yaml", "--tune", "--steps", 2, "--batch", 4, "--precision", "fp32",
        "--output", tmp_path / "tuned")  # fmt: skip
    tuned = load_adaptation(tmp_path / "tuned" / "prompts" / "stars-to-topic-s0")
    assert tuned.head is not None and set(tuned.head.labels) == set(NOUNS)


def test_two_that_answer_numbers_are_compared_by_correlation(place, tmp_path):
    other = tmp_path / "other.jsonl"
    run(
        "evaluate",
        place / "prompts" / "topics",
        "--task",
        place / "stars.yaml",
        "--precision",
        "fp32",
        "--predictions",
        other,
    )
    (found,) = json.loads(
        run("compare-predictions", place / "said.jsonl", other, "--task", "stars", "--json")
    )
    scores = load_adaptation(place / "prompts" / "stars").scores["test"]
    assert found["score_first"] == pytest.approx(scores["pearson"], abs=1e-4) and found["p_mcnemar"] is None
    assert "numbers are neither right nor wrong" in run(
        "compare-predictions", place / "said.jsonl", other, "--task", "stars"
    )
    same = json.loads(
        run("compare-predictions", place / "said.jsonl", place / "said.jsonl", "--task", "topics", "--json")
    )
    assert same[0]["difference"] == 0 and same[0]["p_mcnemar"] == 1
    result = call("plot", "confusion", place / "said.jsonl", "--task", "stars")
    assert "numbers were answered" in str(result.exception)


def test_a_shipped_task_may_have_a_head_which_no_command_has_to_be_told_again(tmp_path):
    run("train", "--task", "microworld-sst2", "--head", "--steps", 2, "--batch", 4, "--limit-train", 16, "--limit-test", 8,
        "--precision", "fp32", "--logger", "none", "--output", tmp_path / "p")  # fmt: skip
    own = load_adaptation(tmp_path / "p" / "microworld-sst2")
    assert own.head.labels == ("negative", "positive") and not own.origin.words
    (record,) = json.loads(
        run("evaluate", tmp_path / "p", "--limit-test", 8, "--precision", "fp32", "--json")
    )
    assert record["no_prompt"] is None and record["value"] == own.scores["test"]["accuracy"]


def test_recommend_ranks_the_sources_with_the_classes_of_a_head_and_names_the_others(place, monkeypatch):
    monkeypatch.chdir(place)
    command = ("recommend", "--task", "topic.yaml", "--prompts", "prompts", "--rows", "8", "--probe-steps", "4", "--precision",
               "fp32")  # fmt: skip
    (found,) = json.loads(run(*command, "--json"))["recommendations"]
    assert [each["source"] for each in found["candidates"]] == ["topic"] and found["no_prompt"] is None
    assert any(
        "left out" in note and "stars" in note and "the prompt has no head" in note for note in found["notes"]
    )
    assert " --head" in found["command"]
    said = " ".join(run(*command, "--by", "LogME", "--by", "gradient-cosine").split())
    assert (
        "ranked by LogME" in said
        and "beside: majority" in said
        and "gradient-cosine has no value here" in said
    )


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (("export", "prompts/topic", "--format", "peft", "--output", "out"), "has no place and without which it answers nothing"),
        (("recommend", "--task", "topic.yaml", "--prompts", "prompts/stars", "--rows", "4"),
         "no source can be tried on topic: the prompt has no head, and task 'topic' is answered by a head of 8 classes"),
        (("tasks", "words", "stars.yaml", "--shots", "2"), "no one label a row"),
        (("train", "--task", "stars.yaml", "--shots", "2"), "no one label a row to draw shots of"),
        (("train", "--task", "topic.yaml", "--label-words", "film=great"), "trained head and no label words"),
        (("tasks", "new", "x", "--data", "topic.csv", "--kind", "regression"), "topic.csv:2: label is 'film' (text), and a regression needs a number"),
        (("tasks", "new", "x", "--data", "topic.csv", "--low", "1"), "bounds of a regression"),
        (("train", "--task", "stars.yaml", "--head", "--metric", "accuracy"), "metric for a regression"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_one_line(place, monkeypatch, command, message):
    monkeypatch.chdir(place)
    result = call(*command)
    assert result.exit_code != 0 and message in str(result.exception)
    assert "\n" not in str(result.exception)
