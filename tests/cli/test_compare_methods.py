"""`compare` of adaptations that are no prompts: by layer, what is printed, and what is refused in one line."""

import json

import pandas as pd
import pytest
from toys import adapted, label_task
from typer.testing import CliRunner

from prompttransfer.adaptations.artifacts import save_adaptation
from prompttransfer.cli import app
from tasks.errors import UserError

TASKS = ("imdb", "sst2", "mnli")


@pytest.fixture
def loras(tiny, tmp_path):
    """Folders of three LoRAs."""
    folders = []
    for seed, task in enumerate(TASKS):
        made = adapted(tiny("roberta"), "lora:rank=2", task=label_task(task), seed=seed, name=task)
        folders.append(tmp_path / task)
        save_adaptation(made, folders[-1])
    return list(map(str, folders))


def run(*arguments):
    return CliRunner().invoke(app, list(map(str, arguments)))


def test_each_linear_map_has_a_column_and_a_row_of_means(loras, tmp_path):
    found = run("compare", *loras, "--metric", "BA-cosine", "--per-layer", "--output", tmp_path / "out")
    assert found.exit_code == 0, found.output
    table = pd.read_csv(tmp_path / "out" / "layers_BA-cosine.csv", index_col=0)
    assert list(table.index)[:2] == ["imdb > imdb", "imdb > sst2"] and len(table) == 9
    assert all(name.endswith(("query", "value")) for name in table.columns)
    assert "BA-cosine by layer, mean over pairs" in found.output and "another type" in found.output
    assert "nearest other adaptation" in found.output and "prompt" not in found.output.replace(
        "prompttransfer", ""
    )


def test_a_machine_gets_each_layer_too(loras, tmp_path):
    found = run(
        "compare", *loras, "--metric", "A-overlap", "--per-layer", "--json", "--output", tmp_path / "o"
    )
    record = json.loads(found.output)
    sites = record["layers"]["A-overlap"]
    assert all(values[0][0] == pytest.approx(1) for values in sites.values())
    assert record["cost"] == record["notes"] == []


@pytest.mark.parametrize(
    ("metric", "words"),
    [
        ("LEEPP", "unknown indicator 'LEEPP': did you mean 'LEEP'?"),
        ("keys-concat", "keys-concat compares keys and values of prefixes"),
        ("ON", "indicator ON is not one of single linear maps or attentions"),
        (
            "gradient-cosine",
            "gradient-cosine needs a known start and parameters that train, and 'imdb' (lora:rank=2) has none",
        ),
    ],
)
def test_what_cannot_be_is_one_line(loras, metric, words):
    found = run("compare", *loras, "--metric", metric, "--per-layer")
    assert isinstance(found.exception, UserError) and words in str(found.exception)
