"""`neurons`, `recommend` and `report` from end to end on a tiny backbone."""

import json

import pandas as pd
import pytest
from calls import output_of as run

from prompttransfer.adaptations.artifacts import load_adaptation, save_adaptation
from prompttransfer.adaptations.prompts import soft_prompt
from prompttransfer.cli.tables import read_matrix
from tasks.errors import UserError

TASKS = ("one", "two", "three")


@pytest.fixture(scope="module")
def place(tmp_path_factory, backbone_folder):
    """Prompts of three tasks on a tiny RoBERTa, and the rows of a fourth."""
    import torch

    from prompttransfer.backbones.loading import load_backbone

    root = tmp_path_factory.mktemp("explaining")
    backbone = load_backbone(str(backbone_folder("roberta")), precision="fp32", device="cpu")
    for seed, task in enumerate(TASKS):
        vectors = torch.randn(3, 16, generator=torch.Generator().manual_seed(seed))
        prompt = soft_prompt(
            vectors, task=task, backbone=backbone.name, revision=backbone.revision, seed=seed
        )
        save_adaptation(prompt, root / "prompts" / task)
    (root / "new.yaml").write_text(
        "name: new\ntype: sentiment\nkind: sentence\nwords:\n  negative: terrible\n  positive: great\n"
    )
    rows = [
        {"text": f"the {noun} was {word}", "label": label}
        for noun in ("film", "food", "plot")
        for word, label in (
            ("dull", "negative"),
            ("cold", "negative"),
            ("fresh", "positive"),
            ("kind", "positive"),
        )
    ]
    (root / "data" / "new").mkdir(parents=True)
    for split in ("train", "validation"):
        (root / "data" / "new" / f"{split}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return root


def states(place):
    path = place / "states.safetensors"
    if not path.exists():
        run("neurons", place / "prompts", "--output", path, "--precision", "fp32")
    return path


def test_neurons_captures_without_being_told_to_and_says_what_was_read(place, tmp_path):
    output = run("neurons", place / "prompts", "--output", tmp_path / "s.safetensors", "--precision", "fp32")
    assert "intermediate, after gelu" in output and "P1 .. PL <s> <mask> </s>" in output
    record = json.loads(
        run(
            "neurons",
            "capture",
            place / "prompts",
            "--output",
            tmp_path / "s.safetensors",
            "--precision",
            "fp32",
            "--json",
        )
    )
    assert record["layers"] == 2 and set(record["active_share"]) == set(TASKS)


def test_neurons_averages_over_rows_of_a_task(place, tmp_path):
    output = run("neurons", place / "prompts", "--task", place / "new.yaml", "--data", place / "data", "--rows", 4,
                 "--rule", "top", "--share", 0.25, "--output", tmp_path / "s.safetensors")  # fmt: skip
    assert "most often among the largest 25 % of a layer; 4 rows of new" in " ".join(output.split())


def test_overlap_needs_no_model_and_writes_a_csv_a_span_for_correlate(place, tmp_path):
    run("neurons", "overlap", states(place), "--window", 1, "--layers", "0-1", "--output", tmp_path)
    names = {path.name for path in tmp_path.iterdir()}
    assert {"similarity_ON.csv", "similarity_jaccard.csv", "similarity_ON_layers-0.csv"} <= names
    whole, same = (read_matrix(tmp_path / f"similarity_ON{end}.csv") for end in ("", "_layers-0-1"))
    pd.testing.assert_frame_equal(whole, same)
    assert sorted(whole.columns) == sorted(TASKS) and whole.loc["one", "one"] == 1


@pytest.mark.parametrize("text", ["1-0", "0-2", "x", "-1"])
def test_layers_that_do_not_exist_are_named(place, tmp_path, text):
    with pytest.raises(UserError, match="within 0-1"):
        run("neurons", "overlap", states(place), f"--layers={text}", "--output", tmp_path)


def test_neuron_figures_are_drawn_from_the_states(place, tmp_path):
    run("plot", "neurons", states(place), "--types", "one=nli", "--output", tmp_path / "n.png")
    run("plot", "layers", states(place), "--measure", "jaccard", "--output", tmp_path / "l.png")
    assert (tmp_path / "n.svg").stat().st_size > 1000 and (tmp_path / "l.png").stat().st_size > 1000


def test_mask_writes_the_curve_and_its_figure(place, tmp_path):
    output = run("neurons", "mask", place / "prompts" / "one", "--others", place / "prompts", "--task", place / "new.yaml",
                 "--data", place / "data", "--shares", 0, 0.5, "--draws", 2, "--output", tmp_path / "m.csv")  # fmt: skip
    table = pd.read_csv(tmp_path / "m.csv")
    assert list(table.columns) == ["share", "kind", "draw", "neurons", "score"] and len(table) == 10
    assert table[table["share"] == 0.5]["neurons"].tolist() == [32] * 5
    assert "random active" in output and (tmp_path / "m.svg").exists()


def test_mask_without_another_prompt_says_what_is_missing(place, tmp_path):
    with pytest.raises(UserError, match="--others"):
        run("neurons", "mask", place / "prompts" / "one", "--others", place / "prompts" / "one",
            "--task", place / "new.yaml", "--data", place / "data")  # fmt: skip


def test_recommend_ranks_writes_indicators_and_gives_a_command_that_runs(place, tmp_path):
    import shlex

    record = json.loads(
        run("recommend", "--task", place / "new.yaml", "--prompts", place / "prompts", "--rows", 8, "--probe-steps", 3,
            "--data", place / "data", "--precision", "fp32", "--output", tmp_path / "out", "--json")
    )  # fmt: skip
    found = record["recommendations"][0]
    assert {c["source"] for c in found["candidates"]} == set(TASKS) and found["rows"] == 8
    best = found["candidates"][0]["source"]
    assert f"--init from:{place / 'prompts' / best}" in found["command"]
    assert sorted(read_matrix(tmp_path / "out" / "few-shot.csv").index) == sorted(TASKS)
    run(
        *shlex.split(found["command"])[1:],
        "--steps",
        2,
        "--batch",
        4,
        "--output",
        tmp_path / "made",
        "--logger",
        "none",
    )
    assert load_adaptation(tmp_path / "made" / "new").origin.start == f"from:{place / 'prompts' / best}"


def test_recommend_draws_the_same_rows_from_the_command_and_from_python(place):
    from prompttransfer.adaptations.artifacts import find_adaptations
    from prompttransfer.backbones.loading import load_backbone
    from prompttransfer.cli.common import load_targets, resolve_tasks
    from prompttransfer.transfers.recommendation import recommend

    record = json.loads(
        run("recommend", "--task", place / "new.yaml", "--prompts", place / "prompts", "--rows", 5, "--probe-steps", 0,
            "--data", place / "data", "--precision", "fp32", "--device", "cpu", "--json")
    )  # fmt: skip
    prompts = [load_adaptation(folder) for folder in find_adaptations(place / "prompts")]
    backbone = load_backbone(prompts[0].backbone, precision="fp32", device="cpu")
    targets = load_targets(resolve_tasks([str(place / "new.yaml")]), data=place / "data")
    found = recommend(backbone, prompts, targets, {}, rows=5, probe_steps=0)[0]
    given = record["recommendations"][0]["candidates"]
    assert [(c["source"], c["score"], c["loss"]) for c in given] == [
        (c.source, c.score, c.loss) for c in found.candidates
    ]


def test_recommend_prints_reasons_costs_and_the_command(place):
    output = run("recommend", "--task", place / "new.yaml", "--prompts", place / "prompts", "--rows", 8,
                 "--probe-steps", 0, "--data", place / "data")  # fmt: skip
    for words in ("on 8 rows, loss", "3 prompts x 8 rows forward", "majority", "prompttransfer train --task"):
        assert words in output


def test_recommend_without_prompts_is_one_line(place, tmp_path):
    with pytest.raises(UserError, match="no folder of prompts at"):
        run("recommend", "--task", place / "new.yaml", "--prompts", tmp_path / "none")


def test_report_writes_the_page_and_says_where(tmp_path):
    (tmp_path / "transfer.csv").write_text(",sst2,imdb\nsst2,0.9,0.7\nimdb,0.8,0.9\n")
    record = json.loads(run("report", tmp_path, "--title", "Mine", "--json"))
    assert record["files"] == [str(tmp_path / "report.html")] and record["bytes"] > 5000
    assert "<h1>Mine</h1>" in (tmp_path / "report.html").read_text()


def test_report_of_a_folder_without_a_matrix_is_one_line(tmp_path):
    with pytest.raises(UserError, match="no transfer matrix"):
        run("report", tmp_path)
