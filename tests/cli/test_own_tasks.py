"""A prompt of a user's own task keeps the task: no command needs its YAML file again."""

import json
from dataclasses import replace

import pytest
import torch
from calls import call
from calls import output_of as run
from toys import changed

from prompttransfer.adaptations.artifacts import load_adaptation, save_adaptation
from prompttransfer.adaptations.prompts import soft_prompt
from prompttransfer.cli.common import resolve_tasks
from tasks.catalog import TASKS
from tasks.errors import UserError
from tasks.reading import Reading
from tasks.records import kept_of, task_of_record
from tasks.task import with_metric


@pytest.fixture(scope="module")
def place(tmp_path_factory, backbone_folder):
    """Prompts of two own tasks with folders of their own, whose YAML files are gone."""
    root = tmp_path_factory.mktemp("own")
    for name, kind in (("films", "sentiment"), ("rooms", "taste")):
        (root / name).mkdir()
        rows = [
            json.dumps({"text": f"the {thing} was {word}", "label": label})
            for thing in ("film", "food", "plot")
            for word, label in (("dull", "bad"), ("cold", "bad"), ("fresh", "good"), ("kind", "good"))
        ]
        for split in ("train", "validation"):
            (root / name / f"{split}.jsonl").write_text("\n".join(rows))
        yaml = root / f"{name}.yaml"
        yaml.write_text(
            f"name: {name}\ntype: {kind}\nkind: sentence\nmetric: macro-f1\nfolder: {name}\n"
            "words:\n  bad: terrible\n  good: great\n"
        )
        run("train", "--task", yaml, "--backbone", backbone_folder("roberta"), "--steps", 2, "--batch", 4, "--length", 3,
            "--precision", "fp32", "--logger", "none", "--output", root / "prompts")  # fmt: skip
        yaml.unlink()
    return root


def test_the_prompt_keeps_every_field_of_its_task(place):
    task = task_of_record(load_adaptation(place / "prompts" / "films").origin.data["task"], "films")
    assert (task.type, task.metric, task.labels) == ("sentiment", "macro-f1", ("bad", "good"))
    assert task.folder == str(place / "films")


def test_evaluate_transfer_compare_recommend_and_mask_know_it(place, tmp_path):
    prompts = place / "prompts"
    scores = json.loads(run("evaluate", prompts, "--precision", "fp32", "--json"))
    assert {(s["task"], s["metric"]) for s in scores} == {("films", "macro-f1"), ("rooms", "macro-f1")}
    run(
        "transfer",
        prompts,
        "--to",
        "films",
        "rooms",
        "--output",
        tmp_path / "transfer",
        "--precision",
        "fp32",
    )
    assert json.loads((tmp_path / "transfer" / "transfer.json").read_text())["types"]["rooms"] == "taste"
    same = json.loads(run("compare", prompts, "--metric", "same-type", "--output", tmp_path / "c", "--json"))
    assert same["metrics"]["same-type"] == [[1, 0], [0, 1]]
    found = json.loads(
        run("recommend", "--task", "films", "--prompts", prompts, "--rows", 4, "--probe-steps", 0, "--json")
    )["recommendations"][0]
    assert {c["source"]: c["same_type"] for c in found["candidates"]} == {"films": True, "rooms": False}
    run("neurons", "mask", prompts / "films", "--by", "largest", "--shares", 0, "--draws", 1,
        "--output", tmp_path / "m.csv")  # fmt: skip


def test_correlate_reads_the_types_beside_the_matrix(place, tmp_path):
    prompts = place / "prompts"
    run(
        "transfer",
        prompts,
        "--to",
        "films",
        "rooms",
        "--output",
        tmp_path / "transfer",
        "--precision",
        "fp32",
    )
    run("compare", prompts, "--metric", "E_concat", "--output", tmp_path / "c")
    said = run("correlate", "--transfer", tmp_path / "transfer" / "transfer.csv",
               "--indicator", tmp_path / "c" / "similarity_E_concat.csv", "--json")  # fmt: skip
    assert not [note for note in json.loads(said)["notes"] if "no type known" in note]


def test_an_own_task_under_a_name_of_the_catalogue_is_said(place, tmp_path, capsys):

    prompt = load_adaptation(place / "prompts" / "films")
    record = {**prompt.origin.data["task"], "name": "microworld-imdb"}
    clash = changed(prompt, task="microworld-imdb", name="clash", data={**prompt.origin.data, "task": record})
    save_adaptation(clash, tmp_path / "clash")
    result = call("evaluate", tmp_path / "clash", "--limit-test", 4, "--json")
    assert "trained on another task than the catalogue's" in result.stderr
    assert json.loads(result.stdout)[0]["metric"] == "accuracy"


def test_a_damaged_task_in_a_prompt_is_one_line(place, tmp_path):

    prompt = load_adaptation(place / "prompts" / "films")
    record = {**prompt.origin.data["task"], "labels": "bad"}
    save_adaptation(changed(prompt, data={**prompt.origin.data, "task": record}), tmp_path / "films")
    with pytest.raises(UserError, match="prompt 'films': its task is damaged at labels"):
        run("evaluate", tmp_path / "films")


def test_a_task_of_the_catalogue_that_another_metric_chose_is_that_task_with_that_metric(capsys):
    bare = soft_prompt(vectors=torch.zeros(2, 4), task="sst2", backbone="b", name="sst2")
    kept = replace(bare, origin=replace(bare.origin, data=kept_of(with_metric(TASKS["sst2"], "mcc"))))
    assert resolve_tasks(["sst2"], prompts=[kept]) == [with_metric(TASKS["sst2"], "mcc")]
    assert resolve_tasks(["sst2"], prompts=[kept], metric="accuracy") == [TASKS["sst2"]]
    assert capsys.readouterr().err == "", "nothing to warn of"


def test_reading_options_need_files():
    with pytest.raises(UserError, match="the rows of microworld-imdb are in none: give files with --data"):
        resolve_tasks(["microworld-imdb"], reading=Reading({"text": "body"}))
