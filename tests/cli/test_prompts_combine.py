"""`prompts add | subtract | scale | average | interpolate | merge | fold | landscape`, and starts out of a library."""

import json

import pytest
import torch
from toys import adapted, changed, label_task, prompt_on

from prompttransfer.adaptations.artifacts import load_adaptation, save_adaptation
from prompttransfer.cli import main


def call(capsys, *arguments):
    with pytest.raises(SystemExit) as stopped:
        main(list(map(str, arguments)))
    return stopped.value.code, *capsys.readouterr()


@pytest.fixture
def folder(tiny, tmp_path):
    backbone = tiny("roberta")
    for seed in (0, 1):
        prompt = prompt_on(backbone, seed=seed)
        save_adaptation(changed(prompt, initial=prompt.vectors - 1, name=f"p{seed}"), tmp_path / f"p{seed}")
        low = adapted(backbone, "lora:rank=2", seed=seed, task=label_task(f"toy{seed}"), name=f"l{seed}")
        save_adaptation(low, tmp_path / f"l{seed}")
    return tmp_path


def vectors(place):
    return load_adaptation(place).vectors


@pytest.mark.parametrize(
    ("arguments", "wanted"),
    [
        (("add", "p0", "p1"), lambda a, b: a + 1),  # every tau is 1
        (("subtract", "p0", "p1"), lambda a, b: a - 1),
        (("scale", "p0", "--by", -1), lambda a, b: a - 2),
        (("average", "p0", "p1"), lambda a, b: a),
        (("average", "p0", "p1", "--onto", "p1"), lambda a, b: b),
        (("interpolate", "p0", "p1", "--at", 0.25), lambda a, b: 0.75 * a + 0.25 * b),
        (("merge", "p0=0.5", "p1=0.25"), lambda a, b: 0.5 * a + 0.25 * b),
        (("merge", "p0=1", "p1=0"), lambda a, b: a),
    ],
)
def test_a_new_prompt_out_of_others(folder, capsys, monkeypatch, arguments, wanted):
    monkeypatch.chdir(folder)
    code, out, _ = call(capsys, "prompts", *arguments, "--output", "made", "--json")
    assert code == 0 and json.loads(out)["made_of"][0]["name"] == "p0"
    torch.testing.assert_close(vectors("made"), wanted(vectors("p0"), vectors("p1")))
    assert "made of:" in (folder / "made" / "README.md").read_text()
    again, *_ = call(capsys, "prompts", *arguments, "--output", "made")
    assert again == 0  # the same is no conflict


@pytest.mark.parametrize("how", ["sum", "ties", "dare"])
def test_loras_are_merged_by_their_products(folder, capsys, how):
    arguments = (folder / "l0", folder / "l1", "--how", how, "-o", folder / how)
    assert call(capsys, "prompts", "merge", *arguments)[0] == 0
    made = load_adaptation(folder / how)
    assert made.method.rank == 4 and made.task == "toy0+toy1" and made.origin.start == f"made:{how}"


def test_a_folded_lora_is_a_backbone(folder, capsys):
    code, out, _ = call(capsys, "prompts", "fold", folder / "l0", "-o", folder / "model", "--json")
    assert code == 0 and json.loads(out)["adaptation"] == "l0"
    assert {"config.json", "model.safetensors", "tokenizer.json", "folded.json"} <= {
        path.name for path in (folder / "model").iterdir()
    }


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("merge", "p0=-1", "p1=1"), "a weight is a number from 0 on"),
        (("merge", "p0", "l0"), "cannot be composed with each other"),
        (("merge", "p0", "p1", "--how", "tie"), "did you mean 'ties'"),
        (("merge", "p0", "p1", "--task", "sst2"), "give both --how lorahub and --task"),
        (("merge", "p0=1", "p1", "--how", "lorahub", "--task", "sst2"), "lorahub finds the weights"),
        (("add", "p0"), "takes at least 2 adaptations; given 1"),
        (("add", "l0", "l1", "--onto", "l0"), "--onto is for prompts"),
        (("fold", "p0"), "is a soft prompt, which is in front of the text"),
    ],
)
def test_a_mistake_is_one_line(folder, capsys, monkeypatch, arguments, message):
    monkeypatch.chdir(folder)
    code, out, error = call(capsys, "prompts", *arguments, "-o", "made")
    assert (code, out) == (2, "") and message in error and error.count("\n") == 1
    assert not (folder / "made").exists()


def test_where_no_weighting_is_better_than_none_nothing_is_written(folder, capsys):
    few = ("--task", "microworld-sst2", "--rows", 4, "--rounds", 1, "--candidates", 5)
    dear = ("--l1", 1e6)  # any weight costs more than it can gain
    arguments = (folder / "l0", folder / "l1", "--how", "lorahub", *few, *dear)
    code, _, error = call(capsys, "prompts", "merge", *arguments, "-o", folder / "made")
    assert code == 2 and error.count("\n") == 1 and not (folder / "made").exists()
    assert (
        "on 4 rows of microworld-sst2 no adaptation at all is better than any weighting of these 2" in error
    )


@pytest.mark.parametrize(
    ("start", "message"),
    [
        ("retrieve:nowhere", "there is no library at nowhere"),
        ("retrieve:library,top=9", "fewer than top=9"),
        ("mixture:p0=-1,p1=2", "with a weight of 0 or more"),
    ],
)
def test_a_start_that_cannot_be_is_one_line_before_a_model_is_loaded(
    folder, capsys, monkeypatch, start, message
):
    monkeypatch.chdir(folder)
    save_adaptation(load_adaptation(folder / "p0"), folder / "library" / "p0")
    code, _, error = call(capsys, "train", "--task", "microworld-sst2", "--start", start, "-o", "made")
    assert code == 2 and message in error and error.count("\n") == 1
