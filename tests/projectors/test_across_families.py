"""Projectors between a decoder, a masked LM and a T5, whose tokenizers write the same words in different ways."""

from pathlib import Path

import pytest
from toys import label_task, prompt_on, sentences, write_toy
from typer.testing import CliRunner

from projectors.closed_form import whole_words
from prompttransfer.adaptations.artifacts import load_adaptation, save_adaptation
from prompttransfer.cli.project import project_app

TASKS = ("film", "food", "plot")
PAIRS = (("llama", "roberta"), ("roberta", "llama"), ("gpt2", "t5"), ("t5", "llama"))


def call(*arguments):
    return CliRunner().invoke(project_app, [str(argument) for argument in arguments])


@pytest.fixture
def world(tmp_path: Path, tiny):
    """Rows of three tasks, and prompts of each on every kind of backbone."""
    for kind in ("llama", "roberta", "gpt2", "t5"):
        backbone = tiny(kind, width=24 if kind == "roberta" else 16)
        for number, name in enumerate(TASKS):
            made = prompt_on(backbone, task=name, seed=number)
            save_adaptation(made, tmp_path / kind / made.name)
    for name in TASKS:
        rows = [(each.first, label_task().labels[each.label]) for each in sentences((name,))]
        write_toy(tmp_path, name, rows * 3)
    return tmp_path


@pytest.mark.parametrize("method", ["vocabulary", "task"])
@pytest.mark.parametrize(("source", "target"), PAIRS)
def test_a_projector_is_fitted_between_families_beside_its_controls(
    world, backbone_folder, source, target, method
):
    places = [backbone_folder(kind, 24 if kind == "roberta" else 16) for kind in (source, target)]
    given = ["fit", "--source-backbone", places[0], "--target-backbone", places[1], "--method", method]
    given += [
        "--source-prompts",
        world / source,
        "--target-prompts",
        world / target,
        "--data",
        world / "data",
    ]
    given += ["--tasks", world / "film.yaml", "--tasks", world / "food.yaml", "--unseen", world / "plot.yaml"]
    given += ["--steps", 2, "--precision", "fp32", "--output", world / "p"]
    result = call(*given)
    assert result.exit_code == 0, result.output + repr(result.exception)
    for row in ("own prompt", "projected", "random source", "no prompt"):
        assert row in result.output
    result = call("apply", world / "p", world / source, "--output", world / "carried")
    assert result.exit_code == 0, result.output
    (name,) = {path.name for path in (world / "carried").iterdir() if path.name.startswith("plot")}
    assert load_adaptation(world / "carried" / name).backbone == str(places[1])


def test_a_word_is_the_same_word_however_a_vocabulary_writes_its_space():
    bytes_, pieces = ({f"{mark}film": 0, f"{mark}a": 1, "ing": 2} for mark in ("Ġ", "▁"))
    assert whole_words(bytes_) == whole_words(pieces) == {"film": 0, "a": 1}
