"""What a newcomer begins with: a task from a CSV file, a study file, and what there is to choose from."""

from __future__ import annotations

import json
import re

import pytest
import yaml
from calls import call
from calls import output_of as run

from prompttransfer.cli.study_new import FIRST_TASKS
from prompttransfer.study.plan.reading import parse_study, read_study
from prompttransfer.study.plan.template import study_template
from tasks.catalog import all_tasks
from tasks.custom import read_task_file
from tasks.errors import UserError
from tasks.loading import load_splits


@pytest.fixture
def reviews(tmp_path):
    path = tmp_path / "rows.csv"
    lines = [f"{i};the film was {'fresh' if i % 2 else 'dull'} {i};{1 + 4 * (i % 2)}" for i in range(40)]
    path.write_text("\n".join(["id;review;stars", *lines, "40; ;5"]))
    return path


def test_a_task_file_is_written_from_the_data_and_read_back(reviews, tmp_path):
    place = tmp_path / "files" / "films.yaml"
    said = run("tasks", "new", "films", "--data", reviews, "--labels", "1=negative", "5=positive", "--skip-empty",
               "--output", place)  # fmt: skip
    assert "text: column review" in said and "label: column stars" in said, "what was guessed is said"
    task = read_task_file(place)
    assert (task.name, task.type, task.labels) == ("films", "sentiment", ("negative", "positive"))
    splits = load_splits(task)
    assert (len(splits.train) + len(splits.validation), len(splits.test), splits.empty) == (32, 8, 1)
    assert "# 20 training rows" in place.read_text(), "how often each label stands there"


def test_it_asks_for_what_is_not_given(reviews, tmp_path):
    place = tmp_path / "films.yaml"
    typed = f"{reviews}\nreview\nstars\nfilms\nterrible\ngreat\n"
    run("tasks", "new", "films", "--output", place, "--skip-empty", typed=typed)
    task = read_task_file(place)
    assert task.type == "films" and task.words["t5"] == {"1": ("terrible",), "5": ("great",)}
    assert isinstance(call("tasks", "new", "other", typed="").exception, UserError)


@pytest.mark.parametrize(
    "label", ["yes", "No", "on: fire", "#1", "a 'quoted' \"word\"", "null", "~", "ümlaut", "1.5e3"]
)
def test_labels_that_yaml_would_take_for_something_else_come_back(tmp_path, label):
    path = tmp_path / "rows.jsonl"
    path.write_text(
        "\n".join(json.dumps({"text": f"t {i}", "label": [label, "plain"][i % 2]}) for i in range(9))
    )
    run("tasks", "new", "odd", "--data", path, "--output", tmp_path / "odd.yaml")
    assert set(read_task_file(tmp_path / "odd.yaml").labels) == {label, "plain"}


def test_a_folder_is_named_beside_the_file_and_no_file_is_replaced(reviews, tmp_path):
    for name in ("train", "validation"):
        (tmp_path / "data" / f"{name}.csv").parent.mkdir(exist_ok=True)
        (tmp_path / "data" / f"{name}.csv").write_text(
            "premise,hypothesis,label\na,b,entailment\nc,d,neutral\n"
        )
    place = tmp_path / "mine.yaml"
    run("tasks", "new", "mine", "--data", tmp_path / "data", "--output", place)
    assert yaml.safe_load(place.read_text())["folder"] == "data"
    assert read_task_file(place).columns == {"text_a": "premise", "text_b": "hypothesis"}
    with pytest.raises(UserError, match="is there already"):
        raise call("tasks", "new", "mine", "--data", reviews, "--output", place).exception


def test_numbers_tell_no_words_and_it_says_so(reviews, tmp_path):
    said = run("tasks", "new", "films", "--data", reviews, "--output", tmp_path / "films.yaml")
    assert "the labels are numbers, which tell no words" in said


def test_tasks_list_has_the_embedded_world_too():
    rows = json.loads(run("tasks", "list", "--json"))
    assert [row["name"] for row in rows] == list(all_tasks()) and any(
        "world" in row["source"] for row in rows
    )


def test_a_study_file_to_begin_with_is_one_that_plan_accepts(tmp_path):
    file = tmp_path / "mine.yaml"
    run("study", "new", file)
    spec = read_study(file).spec
    assert (spec.study, tuple(spec.tasks), spec.seeds) == ("mine", FIRST_TASKS, [0, 1, 2])
    assert "cells are left to make" in run("study", "plan", file, "--output", tmp_path / "out")
    with pytest.raises(UserError, match="is there already"):
        raise call("study", "new", file).exception


def test_every_part_that_a_study_template_leaves_out_can_be_put_in():
    text = study_template("all", ["microworld-roberta", "microworld-roberta-wide"], FIRST_TASKS)
    whole = re.sub(r"^( *)# (?=(?:methods|limit-train|projectors|calibrate|initialisation|neurons|estimates):|  )", r"\1", text, flags=re.M)  # fmt: skip
    spec = parse_study(whole).spec
    assert spec.projectors[0].unseen == [FIRST_TASKS[-1]] and spec.transfers.initialisation is not None
    assert [method.name for method in spec.methods] == [
        "prompt",
        "lora",
    ] and spec.indicators.neurons is not None


def test_backbones_list_says_what_runs_here_and_what_a_package_needs(tmp_path, monkeypatch):
    import huggingface_hub.constants

    hub = tmp_path / "hub"
    for name, config, weights in (
        ("a--fine", "roberta", True),
        ("a--bare", "bert", False),
        ("a--odd", "vit", True),
    ):
        folder = hub / f"models--{name}" / "snapshots" / ("0" * 40)
        folder.mkdir(parents=True)
        (folder / "config.json").write_text(json.dumps({"model_type": config}))
        if weights:
            (folder / "model.safetensors").write_bytes(b"")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(hub))
    found = {each["name"]: each for each in json.loads(run("backbones", "list", "--json"))}
    assert found["microworld-t5"]["runs"] and found["microworld-t5"]["model_type"] == "t5"
    assert found["a/fine"]["runs"] and found["a/fine"]["revision"] == "0" * 40
    assert found["a/bare"]["note"] == "no safetensors of its weights"
    assert found["a/odd"]["note"] == "no model of type vit runs here"
