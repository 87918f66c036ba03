"""Controls: the detector fires on a constant and is silent on a map that listens."""

from __future__ import annotations

from functools import lru_cache

import pytest
import torch

from projectors.architectures import Architecture, Shape, build
from projectors.controls import (
    constant,
    kept_by_random,
    mean_prompt,
    probes,
    random_source,
    sensitivity,
    verdict,
)
from projectors.fitting import FitSettings, Pair, distance_objective, fit, prepare
from tasks.errors import UserError

SHAPE = Shape(10, 32, 10, 40)


def prompts(count: int, width: int, seed: int) -> torch.Tensor:
    """Prompts of `count` tasks that started from one initial prompt."""
    generator = torch.Generator().manual_seed(seed)
    base = torch.randn(10, width, generator=generator)
    return base + torch.randn(count, 10, width, generator=generator)


@lru_cache
def fitted(tasks: int) -> torch.nn.Module:
    sources, targets = prompts(8, 32, 0), prompts(8, 40, 1)
    pairs = [Pair(str(task), sources[task], targets[task]) for task in range(tasks)]
    module = build(Architecture("mlp", hidden=256), SHAPE)
    prepare(module, pairs)
    settings = FitSettings(steps=150)
    fit(module, distance_objective(pairs, settings), settings)
    return module


def test_sensitivity_by_hand() -> None:
    # inputs (3, 0) and (0, 4): 5 apart, mean norm 3.5; outputs doubled: 10 apart, mean norm 7, at right angles
    double = build(Architecture("linear"), Shape(1, 2, 1, 2))
    with torch.no_grad():
        double.map.weight.copy_(2 * torch.eye(2))
        double.map.bias.zero_()
    measured = sensitivity(double, torch.tensor([[[3.0, 0.0]], [[0.0, 4.0]]]))
    assert (measured.inputs, measured.outputs, measured.ratio) == pytest.approx((5.0, 10.0, 2.0))
    assert measured.relative == pytest.approx(1.0) and measured.cosine == pytest.approx(0.0)
    assert not measured.collapsed


def test_a_constant_is_collapsed() -> None:
    measured = sensitivity(constant(SHAPE), prompts(4, 32, 0))
    assert measured.collapsed and measured.ratio == 0 and measured.cosine == pytest.approx(1.0)


def test_the_detector_fires_on_a_projector_fitted_on_one_task() -> None:
    assert sensitivity(fitted(1), prompts(8, 32, 0)).collapsed


def test_the_detector_is_silent_on_a_projector_fitted_on_several_tasks() -> None:
    assert not sensitivity(fitted(6), prompts(8, 32, 0)[:6]).collapsed


def test_the_mean_prompt_counts_every_task_once() -> None:
    pairs = [Pair("a", torch.zeros(1, 1), torch.full((1, 1), value)) for value in (1.0, 3.0)]
    pairs.append(Pair("b", torch.zeros(1, 1), torch.full((1, 1), 10.0)))
    assert float(mean_prompt(pairs)) == 6.0


def test_a_constant_starts_where_it_is_told() -> None:
    start = torch.randn(10, 40)
    module = constant(SHAPE, start)
    assert torch.equal(module(torch.randn(2, 10, 32))[1], start) and module.prompt.requires_grad


def test_a_random_source_has_the_norm_of_the_real_ones_and_a_seed() -> None:
    real = prompts(3, 32, 0)
    drawn = random_source(real, seed=1)
    assert torch.allclose(drawn.norm(dim=-1), real.norm(dim=-1).mean().expand(10))
    assert torch.equal(drawn, random_source(real, seed=1)) and not torch.equal(
        drawn, random_source(real, seed=2)
    )


def test_what_a_random_source_keeps_of_the_gain() -> None:
    assert kept_by_random(0.9, 0.7, 0.5) == pytest.approx(0.5)
    assert kept_by_random(0.9, 0.4, 0.5) == 0.0
    assert kept_by_random(0.5, 0.5, 0.5) == 1.0


def test_the_verdict_says_why() -> None:
    listens = sensitivity(fitted(6), prompts(8, 32, 0)[:6])
    assert verdict(listens, 0.9, 0.6, 0.5, 6) == (False, "not collapsed: its output depends on its input")
    assert (
        verdict(listens, 0.9, 0.89, 0.5, 6)[0]
        and "constant in disguise" in verdict(listens, 0.9, 0.89, 0.5, 6)[1]
    )
    assert "fitted on one task" in verdict(listens, None, None, None, 1)[1]
    deaf = sensitivity(constant(SHAPE), prompts(4, 32, 0))
    assert verdict(deaf, 0.9, 0.5, 0.5, 6)[0] and "ignores its input" in verdict(deaf, 0.9, 0.5, 0.5, 6)[1]


def test_probes_are_one_prompt_a_task() -> None:
    sources = {"a": torch.zeros(3, 2, 2), "b": torch.ones(1, 2, 2)}
    assert probes(sources).shape == (2, 2, 2)
    assert probes({"b": torch.ones(1, 2, 2)}).shape == (8, 2, 2)


def test_sensitivity_needs_two_different_prompts() -> None:
    with pytest.raises(UserError, match="at least 2"):
        sensitivity(constant(SHAPE), prompts(1, 32, 0))
    with pytest.raises(UserError, match="all given are the same"):
        sensitivity(constant(SHAPE), torch.ones(3, 10, 32))
