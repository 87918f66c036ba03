"""`project fit`, `apply` and `show` from end to end on two tiny backbones saved to folders."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import examples, prompt, task, tiny_backbone
from typer.testing import CliRunner

from projectors.architectures import Architecture
from projectors.artifacts import load_projector
from projectors.experiment import run_experiment
from projectors.fitting import FitSettings
from projectors.gathering import Options
from projectors.methods import FitPlan
from prompttransfer.adaptations.artifacts import load_adaptation, save_adaptation
from prompttransfer.cli.project import project_app
from tasks.errors import UserError

NAMES = ("film", "food", "plot")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two backbones, prompts of three tasks on each, and the tasks' rows."""
    root = tmp_path_factory.mktemp("world")
    for name, width, seed in (("small", 16, 0), ("wide", 24, 1)):
        backbone = tiny_backbone(width, seed, name)
        backbone.model.save_pretrained(root / name)
        backbone.tokenizer.save_pretrained(root / name)
    from prompttransfer.backbones.loading import load_backbone

    for name in ("small", "wide"):
        backbone = load_backbone(str(root / name), precision="fp32")
        for task_name in NAMES:
            for seed in (0, 1):
                made = prompt(backbone, task_name, seed)  # type: ignore[arg-type]
                save_adaptation(made, root / f"{name}-prompts" / made.name)
    for task_name in NAMES:
        folder = root / "data" / task_name
        folder.mkdir(parents=True)
        (root / f"{task_name}.yaml").write_text(
            f"name: {task_name}\ntype: sentiment\nkind: sentence\n"
            "words:\n  negative: terrible\n  positive: great\n"
        )
        rows = [
            json.dumps({"text": e.first, "label": ["negative", "positive"][e.label or 0]})
            for e in examples(task_name)
        ]
        for split in ("train", "validation"):
            (folder / f"{split}.jsonl").write_text("\n".join(rows * (3 if split == "train" else 1)))
    return root


def call(*arguments: Any) -> Any:
    return CliRunner().invoke(project_app, [str(argument) for argument in arguments])


def fit(place: Path, output: Path, *more: Any) -> Any:
    given: list[Any] = ["fit", "--source-backbone", place / "small", "--target-backbone", place / "wide"]
    given += ["--source-prompts", place / "small-prompts", "--target-prompts", place / "wide-prompts"]
    given += ["--data", place / "data", "--precision", "fp32", "--steps", 4, "--hidden", 8]
    given += ["--seeds", 0, "--seeds", 1, "--output", output]
    for name in ("film", "food"):
        given += ["--tasks", place / f"{name}.yaml"]
    return call(*given, "--unseen", place / "plot.yaml", *more)


@pytest.mark.parametrize("method", ["distance", "task", "distance+task", "procrustes"])
def test_fit_prints_every_control_and_writes_a_projector(place: Path, tmp_path: Path, method: str) -> None:
    result = fit(place, tmp_path / "p", "--method", method)
    assert result.exit_code == 0, result.output
    for row in ("own prompt", "projected", "random source", "mean constant", "tuned constant", "no prompt"):
        assert row in result.output
    assert "tasks fitted (2)" in result.output and "tasks unseen, fitted type (1)" in result.output
    assert ("verdict:" in result.output and "parameters" in result.output) or method == "procrustes"
    assert {p.name for p in (tmp_path / "p").iterdir()} == {
        "projector.safetensors",
        "projector.json",
        "README.md",
        "report.csv",
        "settings.json",
        "commands.json",
    }
    lines = (tmp_path / "p" / "report.csv").read_text().splitlines()
    assert lines[0] == "task,group,condition,seed,value,draw" and len(lines) > 30


def test_what_the_source_answers_can_be_learned_from(place: Path, tmp_path: Path) -> None:
    """The weight is kept with the projector, changes it, and is of methods with a task loss alone."""
    for name, more in (("plain", ()), ("taught", ("--distil-weight", 5))):
        result = fit(place, tmp_path / name, *more)
        assert result.exit_code == 0, result.output
        assert ("reading what the source answers" in result.output) == bool(more)
    plain, taught = (load_projector(tmp_path / name) for name in ("plain", "taught"))
    assert (plain.settings["task"]["distil"], taught.settings["task"]["distil"]) == (0.0, 5.0)
    weights = [torch.cat([w.flatten() for w in p.module.state_dict().values()]) for p in (plain, taught)]
    assert not torch.equal(*weights)
    refused = fit(place, tmp_path / "none", "--method", "distance", "--distil-weight", 1)
    assert "--distil-weight is of task and distance+task" in str(refused.exception)
    assert not (tmp_path / "none").exists()


def test_apply_carries_prompts_that_the_target_takes(place: Path, tmp_path: Path) -> None:
    assert fit(place, tmp_path / "p").exit_code == 0
    result = call(
        "apply", tmp_path / "p", place / "small-prompts", "--output", tmp_path / "carried", "--json"
    )
    assert result.exit_code == 0, result.output
    made = load_adaptation(tmp_path / "carried" / "plot-s1")
    assert made.width == 24 and made.backbone == str(place / "wide") and made.task == "plot"
    assert len(json.loads(result.output)) == 6
    shown = call("show", tmp_path / "p")
    assert "fitted on" in shown.output and "film, food" in shown.output


def test_a_projected_prompt_is_a_start_with_both_speedups(place: Path, tmp_path: Path) -> None:
    from typer import Typer

    from prompttransfer.cli.transfer import transfer

    app = Typer()
    app.command()(transfer)
    assert fit(place, tmp_path / "p").exit_code == 0
    assert (
        call(
            "apply", tmp_path / "p", place / "small-prompts" / "plot-s0", "--output", tmp_path / "carried"
        ).exit_code
        == 0
    )
    given = [tmp_path / "carried", "--to", place / "plot.yaml", "--tune", "--steps", 4, "--evaluate-every", 2]
    given += ["--batch", 4, "--data", place / "data", "--precision", "fp32", "--output", tmp_path / "tuned"]
    result = CliRunner().invoke(app, [str(argument) for argument in given])
    assert result.exit_code == 0, result.output
    assert "(TPT_model) beside training from scratch" in result.output
    header, line = (tmp_path / "tuned" / "tuned.csv").read_text().splitlines()
    assert header.endswith("convergence_speedup,comparable_speedup") and line.startswith("plot-s0,plot,0,")


def test_apply_refuses_a_prompt_of_the_target(place: Path, tmp_path: Path) -> None:
    assert fit(place, tmp_path / "p").exit_code == 0
    result = call(
        "apply", tmp_path / "p", place / "wide-prompts" / "film-s0", "--output", tmp_path / "carried"
    )
    assert isinstance(result.exception, UserError) and "wide" in str(result.exception)
    assert "small" in str(result.exception) and not (tmp_path / "carried").exists()


def test_the_same_fit_twice_is_the_same_projector(place: Path, tmp_path: Path) -> None:
    for name in ("a", "b"):
        assert fit(place, tmp_path / name).exit_code == 0
    weights = [(tmp_path / name / "projector.safetensors").read_bytes() for name in ("a", "b")]
    assert weights[0] == weights[1]


def test_a_killed_fit_goes_on_with_the_same_command(place: Path, tmp_path: Path, monkeypatch: Any) -> None:
    import projectors.fitting as fitting

    assert fit(place, tmp_path / "whole", "--steps", 7).exit_code == 0
    keep, kept = fitting.fit.__kwdefaults__, []
    monkeypatch.setitem(keep, "every", 2)
    write = fitting.keep

    def die_at_the_third(*arguments: Any) -> None:
        write(*arguments)
        kept.append(arguments)
        if len(kept) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(fitting, "keep", die_at_the_third)
    fit(place, tmp_path / "p", "--steps", 7)
    assert not (tmp_path / "p").exists() and list((tmp_path / ".p-fit").glob(".fit-*"))
    monkeypatch.setattr(fitting, "keep", write)
    assert fit(place, tmp_path / "p", "--steps", 7).exit_code == 0
    whole, resumed = ((tmp_path / name / "projector.safetensors").read_bytes() for name in ("whole", "p"))
    assert whole == resumed and not list((tmp_path / ".p-fit").glob(".fit-*"))


def test_prompts_are_trained_where_none_are_given(place: Path, tmp_path: Path, monkeypatch: Any) -> None:
    from prompttransfer.backbones.loading import load_backbone
    from prompttransfer.training.recipes import Recipe

    quick = Recipe("adamw", 0.03, "test", steps=2, batch=4, length=4, evaluate_every=2)
    monkeypatch.setattr("projectors.gathering.recipe_for", lambda backbone, length=None: quick)
    models = [load_backbone(str(place / name), precision="fp32") for name in ("small", "wide")]
    options = Options(
        work=tmp_path / "work",
        plan=FitPlan(
            Architecture("low-rank", rank=2), distance=FitSettings(steps=2), task=FitSettings(steps=2)
        ),
        seeds=(0,),
        data=place / "data",
    )
    told: list[str] = []
    outcome = run_experiment(*models, [task("film"), task("food")], [task("plot")], options, tell=told.append)
    assert sum("training 3" in line for line in told) == 2
    assert outcome.projector.tasks == ("film", "food")
    told.clear()
    run_experiment(*models, [task("film"), task("food")], [task("plot")], options, tell=told.append)
    assert not any("training" in line for line in told)


def test_a_dry_run_reports_memory_without_models() -> None:
    sizes = ("--source-size", "100x1024", "--target-size", "100x4096")
    result = call("fit", "--dry-run", "--architecture", "mlp", *sizes)
    assert (
        result.exit_code == 0 and "393,634,560 parameters" in result.output and "GiB to fit" in result.output
    )


def test_no_shared_words_are_said_before_anything_is_trained(place: Path, tmp_path: Path) -> None:
    words = ["terrible", *(f"wort{letter}" for letter in "abcdefgh")]
    stranger = tiny_backbone(24, 2, "stranger", words)
    stranger.model.save_pretrained(place / "stranger")
    stranger.tokenizer.save_pretrained(place / "stranger")
    result = fit(place, tmp_path / "p", "--target-backbone", place / "stranger")
    assert isinstance(result.exception, UserError) and "the two vocabularies share 1 whole words" in str(
        result.exception
    )
    assert "training" not in result.output


def test_mistakes_are_one_line(place: Path, tmp_path: Path) -> None:
    cases = {
        "no source prompt for fitting task food (there are": [
            "--source-prompts",
            place / "small-prompts" / "film-s0",
        ],
        "unknown projector method 'distanse': did you mean 'distance'": ["--method", "distanse"],
        "unknown architecture 'liner': did you mean 'linear'": ["--architecture", "liner"],
        "is of backbone": ["--source-prompts", place / "wide-prompts"],
        "the fit diverged": ["--lr", "1e9", "--method", "distance", "--start", "random"],
        "weights 1000 times as large as they began with learning rate 1e+06": ["--lr", "1e6"],
        "only a per-token map can start": ["--architecture", "mlp", "--start", "vocabulary"],
        "unknown start 'words'": ["--start", "words"],
        "film: fitted on and called unseen": ["--unseen", place / "film.yaml"],
    }
    for message, arguments in cases.items():
        result = fit(place, tmp_path / "p", *arguments)
        assert isinstance(result.exception, UserError) and message in str(result.exception), result.exception
        assert "\n" not in str(result.exception) and not (tmp_path / "p").exists()
    assert "--source-size 'big'" in str(call("fit", "--dry-run", "--source-size", "big").exception)


def test_one_fitting_task_is_allowed_and_warned_of(place: Path, tmp_path: Path) -> None:
    result = call(
        "fit",
        "--source-backbone",
        place / "small",
        "--target-backbone",
        place / "wide",
        "--seeds",
        0,
        "--source-prompts",
        place / "small-prompts",
        "--target-prompts",
        place / "wide-prompts",
        "--steps",
        3,
        "--data",
        place / "data",
        "--tasks",
        place / "film.yaml",
        "--unseen",
        place / "plot.yaml",
        "--hidden",
        8,
        "--output",
        tmp_path / "p",
    )
    assert result.exit_code == 0, result.output
    assert "what comes out is a constant" in result.output and "verdict: collapsed" in result.output
    assert "**Collapsed.**" in (tmp_path / "p" / "README.md").read_text()
