"""Fitting: distances by hand, gradients where they belong, and a fit that a kill does not change."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from projectors.architectures import Architecture, Shape, build
from projectors.fitting import (
    DISTANCES,
    FitSettings,
    Lesson,
    Pair,
    contrast,
    distance_objective,
    disturbed,
    fit,
    prepare,
    step_generator,
    task_objective,
)
from prompttransfer.adaptations.random_prompts import random_like
from tasks.errors import UserError

SHAPE = Shape(3, 4, 2, 5)


def pairs(tasks: int = 3, each: int = 2) -> list[Pair]:
    generator = torch.Generator().manual_seed(0)
    made = []
    for task in range(tasks):
        source, target = torch.randn(3, 4, generator=generator), torch.randn(2, 5, generator=generator)
        made += [Pair(f"t{task}", source + 0.1 * k, target + 0.1 * k) for k in range(each)]
    return made


def test_distances_by_hand() -> None:
    projected, target = torch.tensor([[[3.0, 0.0], [0.0, 0.0]]]), torch.tensor([[[0.0, 4.0], [0.0, 0.0]]])
    assert DISTANCES["squared-l2"](projected, target).tolist() == [25.0]
    assert DISTANCES["l1"](projected, target).tolist() == [7.0]
    assert DISTANCES["cosine"](projected, target).tolist() == [1.0]
    assert DISTANCES["cosine"](projected, 2 * projected).tolist() == pytest.approx([0.0])


def test_the_distance_is_in_units_of_the_targets_size() -> None:
    class Zero(nn.Module):
        def forward(self, source: Tensor) -> Tensor:
            return torch.zeros(len(source), 2, 5)

    one = [Pair("a", torch.ones(3, 4), torch.full((2, 5), 3.0))]
    assert float(distance_objective(one, FitSettings())(Zero(), 0)) == pytest.approx(1.0)


@pytest.mark.parametrize("distance", DISTANCES)
def test_distance_fitting_maps_each_source_to_its_target(distance: str) -> None:
    given = pairs()
    settings = FitSettings(distance=distance, steps=400, lr=1e-2)
    module = build(Architecture("low-rank", rank=6, standardise=True), SHAPE)
    prepare(module, given)
    curve = fit(module, distance_objective(given, settings), settings)
    assert curve.losses[-1] < 0.1 * curve.losses[0]
    outputs = module(torch.stack([pair.source for pair in given]))
    targets = torch.stack([pair.target for pair in given])
    distances = torch.stack([DISTANCES["squared-l2"](outputs, target) for target in targets], dim=1)
    assert all(index // 2 == nearest // 2 for index, nearest in enumerate(distances.argmin(1).tolist()))


def test_fits_of_different_seeds_see_different_rows() -> None:
    seen = []

    def loss(prompts: Tensor, which: Tensor, step: int, distil: float) -> Tensor:
        seen.append(step)
        return prompts.sum()

    for seed in (0, 2):
        settings = FitSettings(steps=50, seed=seed)
        task_objective([Lesson("a", torch.zeros(1, 3, 4), loss)], settings)(nn.Identity(), 7)
    assert seen == [7, 107]


def test_gradient_reaches_the_projector_and_none_of_the_backbone() -> None:
    backbone = nn.Linear(5, 1).requires_grad_(False)
    module = build(Architecture("mlp", hidden=7), SHAPE)
    lesson = Lesson("a", torch.randn(2, 3, 4), lambda prompts, *_: backbone(prompts).square().mean())
    task_objective([lesson], FitSettings())(module, 0).backward()
    assert all(p.grad is not None and bool(p.grad.abs().sum() > 0) for p in module.parameters())
    assert all(p.grad is None for p in backbone.parameters())


def test_task_tuning_takes_the_tasks_in_turn() -> None:
    seen: list[str] = []

    def lesson(name: str) -> Lesson:
        def loss(prompts: Tensor, which: Tensor, step: int, distil: float) -> Tensor:
            seen.append(name)
            return prompts.square().mean()

        return Lesson(name, torch.randn(1, 3, 4), loss)

    settings = FitSettings(steps=5)
    fit(build(Architecture("linear"), SHAPE), task_objective([lesson("a"), lesson("b")], settings), settings)
    assert seen == ["a", "b", "a", "b", "a"]


def test_null_inputs_have_to_come_out_untrained() -> None:
    """With `null`, a random prompt through the fitted map is near the untrained prompt; without, it need not be."""
    given, untrained = pairs(), torch.full((1, 2, 5), 0.5)
    away = []
    for null in (0.0, 0.5):
        settings = FitSettings(steps=200, lr=1e-2, null=null)
        module = build(Architecture("mlp", hidden=64, standardise=True), SHAPE)
        prepare(module, given)
        fit(module, distance_objective(given, settings, untrained), settings)
        drawn = random_like(torch.stack([p.source for p in given]), 20, torch.Generator().manual_seed(99))
        away.append(float((module(drawn) - untrained).square().mean().detach()))
    assert away[1] < 0.5 * away[0]


def test_contrast_by_hand() -> None:
    # two tasks whose centred means are +-(1, 0); an output on the first task's side: logits +-1 / temperature
    targets = torch.tensor([[[1.0, 0.0]], [[-1.0, 0.0]]])
    value = contrast(torch.tensor([[[5.0, 0.0]]]), targets, torch.tensor([0]), torch.tensor([0, 1]), 1.0)
    assert float(value) == pytest.approx(math.log(1 + math.exp(-2)), abs=1e-6)


def test_noise_is_a_share_of_the_sources_rms() -> None:
    sources = torch.full((1, 100, 100), 2.0)
    settings = FitSettings(noise=0.5)
    moved = disturbed(sources, torch.tensor([0]), torch.tensor([0]), settings, step_generator(0, 0)) - sources
    assert float(moved.std()) == pytest.approx(1.0, rel=0.05)


def test_mixing_stays_within_a_task() -> None:
    sources = torch.tensor([0.0, 1.0, 10.0]).reshape(3, 1, 1)
    task_of, rows = torch.tensor([0, 0, 1]), torch.tensor([0, 2] * 50)
    mixed = disturbed(sources, rows, task_of, FitSettings(mix=1.0), step_generator(0, 0)).flatten()
    assert (
        bool((mixed[0::2] <= 1).all()) and bool((mixed[0::2] > 0).any()) and bool((mixed[1::2] == 10).all())
    )


class KilledError(Exception):
    pass


def test_a_killed_fit_resumes_bit_for_bit(tmp_path: Path) -> None:
    given = pairs()
    settings = FitSettings(steps=30, lr=1e-2, noise=0.1, null=0.2, mix=0.3)

    def run(checkpoint: Path | None, die_at: int | None = None) -> tuple[nn.Module, list[float]]:
        module = build(Architecture("mlp", hidden=8, standardise=True), SHAPE)
        prepare(module, given)

        def report(step: int, loss: float) -> None:
            if step == die_at:
                raise KilledError

        objective = distance_objective(given, settings)
        curve = fit(module, objective, settings, checkpoint=checkpoint, every=5, report=report)
        return module, curve.losses

    whole, losses = run(None)
    path = tmp_path / "fit.safetensors"
    with pytest.raises(KilledError):
        run(path, die_at=17)
    resumed, resumed_losses = run(path)
    assert resumed_losses == losses
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), resumed.parameters(), strict=True))


def test_a_checkpoint_of_another_fit_is_not_taken_up(tmp_path: Path) -> None:
    given, path = pairs(), tmp_path / "fit.safetensors"
    for lr in (1e-3, 1e-2):
        settings = FitSettings(steps=10, lr=lr)
        module = build(Architecture("linear"), SHAPE)
        if lr == 1e-3:
            fit(module, distance_objective(given, settings), settings, checkpoint=path, every=5)
        else:
            with pytest.raises(UserError, match="other settings"):
                fit(module, distance_objective(given, settings), settings, checkpoint=path, every=5)


def test_a_fit_that_diverges_says_where_and_what_to_try() -> None:
    given = pairs()
    settings = FitSettings(steps=200, lr=1e6)
    with pytest.raises(UserError, match=r"diverged at step \d+.*learning rate 1e\+06; try --lr 100000"):
        fit(build(Architecture("linear"), SHAPE), distance_objective(given, settings), settings)


def test_bad_settings_are_refused() -> None:
    with pytest.raises(UserError, match="unknown distance 'cosin': did you mean 'cosine'"):
        FitSettings(distance="cosin")
    with pytest.raises(UserError, match="steps >= 1"):
        FitSettings(steps=0)
    with pytest.raises(UserError, match="null must be"):
        FitSettings(null=1.0)
    with pytest.raises(UserError, match="at least one pair"):
        distance_objective([], FitSettings())
    with pytest.raises(UserError, match="at least one fitting task"):
        task_objective([], FitSettings())


def test_a_changed_bit_of_a_checkpoint_is_never_taken(tmp_path: Path) -> None:
    path, given, settings = tmp_path / "fit.safetensors", pairs(4), FitSettings(steps=8)

    def run() -> None:
        module = build(Architecture("linear"), SHAPE)
        fit(module, distance_objective(given, settings), settings, checkpoint=path, every=5)

    run()
    whole = path.read_bytes()
    for place in range(8, len(whole), len(whole) // 40):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with pytest.raises(UserError, match="remove it to begin anew"):
            run()
