"""Projectors as values and on disk: what goes in, what comes out, what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from tiny import prompt, tiny_backbone
from toys import changed as with_other

from projectors.anchors import AnchorSettings
from projectors.architectures import Architecture, Shape
from projectors.artifacts import load_projector, save_projector
from projectors.fitting import FitSettings, Pair
from projectors.lessons import words_between
from projectors.methods import METHODS, FitPlan, Material
from projectors.projector import Projector, common_side, project, side_of_backbone
from prompttransfer.adaptations.artifacts import load_adaptation, save_adaptation
from tasks.errors import UserError

SOURCE, TARGET = tiny_backbone(16, 0, "small"), tiny_backbone(24, 1, "wide")
PLAN = FitPlan(
    Architecture("mlp", hidden=8, standardise=True),
    distance=FitSettings(steps=5),
    task=FitSettings(steps=5),
    per_token=3,
    anchors=AnchorSettings(steps=5),
)


def fitted(method: str = "distance") -> Projector:
    shape = Shape(4, 16, 4, 24)
    pairs = [Pair(t, prompt(SOURCE, t).vectors, prompt(TARGET, t).vectors) for t in ("a", "b")]
    made = METHODS[method](Material(shape, pairs, shared=words_between(SOURCE, TARGET)), PLAN)
    return Projector(
        made.module,
        side_of_backbone(SOURCE, length=4, layout="prompt-first"),
        side_of_backbone(TARGET, length=4, layout="prompt-first"),
        method,
        made.architecture,
        made.settings,
        tasks=("a", "b"),
        curve=made.curve,
        scores={"fitted": {"projected": {"mean": 0.9, "spread": 0.01, "seeds": 3, "tasks": 2}}},
        sensitivity={"relative": 0.5},
        collapsed=True,
        verdict="collapsed: it ignores its input",
    )


def test_a_projected_prompt_is_an_ordinary_prompt_of_the_target(tmp_path: Path) -> None:
    source = prompt(SOURCE, "a", seed=2)
    made = project(fitted(), source)
    assert (made.backbone, made.revision, made.width, made.task, made.seed) == ("wide", "wide-1", 24, "a", 2)
    assert made.origin.start == "projected:distance" and made.settings["source_digest"] == source.digest
    save_adaptation(made, tmp_path / "made")
    assert torch.equal(load_adaptation(tmp_path / "made").vectors, made.vectors)


@pytest.mark.parametrize(
    "method", ["distance", "vocabulary", "vocabulary-mlp", "combination", "procrustes", "anchors"]
)
def test_a_reloaded_projector_gives_the_same_prompt(method: str, tmp_path: Path) -> None:
    projector, source = fitted(method), prompt(SOURCE, "c")
    save_projector(projector, tmp_path / "p")
    again = load_projector(tmp_path / "p")
    assert torch.equal(project(again, source).vectors, project(projector, source).vectors)
    kept = ("source", "target", "method", "architecture", "tasks", "curve", "scores", "collapsed", "verdict")
    assert all(getattr(again, name) == getattr(projector, name) for name in kept)


def test_the_card_says_first_that_a_projector_is_collapsed(tmp_path: Path) -> None:
    save_projector(fitted(), tmp_path / "p")
    text = (tmp_path / "p" / "README.md").read_text()
    assert text.splitlines()[2] == "**Collapsed.** Collapsed: it ignores its input."
    assert "| projected | 0.900 | 0.010 |" in text


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"backbone": "other", "revision": "r"}, "backbone 'other'.*projector takes prompts of small"),
        ({"revision": "r"}, "backbone 'small' \\(revision r, not small-0\\)"),
        (
            {"vectors": torch.zeros(5, 16), "initial": None},
            "size 5 x 16: it is of small.*takes prompts of small \\(4 x 16",
        ),
        ({"layout": "after-bos"}, "layout 'after-bos'.*layout prompt-first"),
    ],
)
def test_a_prompt_of_another_side_is_one_error_that_names_both(changed: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        project(fitted(), with_other(prompt(SOURCE, "a"), **changed))


def test_the_same_weights_under_another_name_are_the_same_backbone() -> None:
    assert project(fitted(), with_other(prompt(SOURCE, "a"), backbone="/elsewhere/small")).width == 24


def test_prompts_of_two_backbones_are_not_one_side() -> None:
    with pytest.raises(UserError, match=r"source prompts must be of one backbone.*'a-s0'.*'b-s0'"):
        common_side([prompt(SOURCE, "a"), prompt(TARGET, "b")], "source")


def test_what_was_damaged_is_refused(tmp_path: Path) -> None:
    folder = save_projector(fitted(), tmp_path / "p")
    weights = folder / "projector.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-50])
    with pytest.raises(UserError, match="cut short"):
        load_projector(folder)
    weights.write_bytes(whole[:-4] + b"\0\0\0\1")
    with pytest.raises(UserError, match="digest differs"):
        load_projector(folder)
    weights.unlink()
    with pytest.raises(UserError, match="is missing"):
        load_projector(folder)
    record = json.loads((folder / "projector.json").read_text())
    (folder / "projector.json").write_text(json.dumps(record | {"tasks": 3}))
    with pytest.raises(UserError, match=r"projector\.json is damaged: tasks"):
        load_projector(folder)
    with pytest.raises(UserError, match="not a projector folder"):
        load_projector(tmp_path)


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(UserError, match="holds something else"):
        save_projector(fitted(), tmp_path)
    assert (tmp_path / "thesis.txt").read_text() == "mine"
