"""Controls: the detector fires on a constant and is silent on a map that listens."""

from __future__ import annotations

from functools import lru_cache

import pytest
import torch

from projectors.architectures import Architecture, Shape, build
from projectors.controls import (
    Gains,
    constant,
    directions_apart,
    mean_prompt,
    probes,
    sensitivity,
    student_interval,
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


def through(outputs: torch.Tensor) -> torch.nn.Module:
    """A projector that gives these outputs, whatever it is given."""

    class Fixed(torch.nn.Module):
        def forward(self, sources: torch.Tensor) -> torch.Tensor:
            return outputs

    return Fixed()


def sharing_a_start(apart: float, count: int = 6) -> torch.Tensor:
    """Prompts of tasks that began at one prompt and moved a share `apart` of its size away."""
    generator = torch.Generator().manual_seed(3)
    base = torch.randn(1, 10, 40, generator=generator)
    return base + apart * torch.randn(count, 10, 40, generator=generator)


def test_directions_apart_by_hand() -> None:
    # cosine 0: sqrt(2); a prompt and its double: 0
    assert directions_apart(torch.tensor([[[3.0, 0.0]], [[0.0, 4.0]]])) == pytest.approx(2**0.5)
    assert directions_apart(torch.tensor([[[3.0, 0.0]], [[6.0, 0.0]]])) == pytest.approx(0.0)


def test_a_perfect_projector_onto_prompts_that_share_a_start_is_not_collapsed() -> None:
    own = sharing_a_start(0.05)  # pairwise cosine .998
    measured = sensitivity(through(own), torch.randn(6, 10, 32), own)
    assert measured.relative == pytest.approx(1.0) and measured.cosine > 0.997
    assert not measured.collapsed


def test_the_same_outputs_are_collapsed_where_the_targets_own_prompts_are_far_apart() -> None:
    measured = sensitivity(through(sharing_a_start(0.05)), prompts(6, 32, 0), torch.randn(6, 10, 40))
    assert measured.collapsed


def test_outputs_that_differ_only_in_length_are_collapsed() -> None:
    lengths = torch.tensor([0.5, 1.0, 2.0, 4.0, 8.0, 16.0])[:, None, None]
    outputs = lengths * torch.ones(6, 10, 40) + 0.01 * torch.randn(6, 10, 40)
    assert sensitivity(through(outputs), prompts(6, 32, 0), torch.randn(6, 10, 40)).collapsed


def test_gains_by_hand() -> None:
    # differences .2 and .4: mean .3, standard error .1, t of 1 degree of freedom 12.706
    gains = Gains((0.8, 0.9), (0.6, 0.5), (0.5, 0.4))
    assert gains.over_random == pytest.approx(0.3) and gains.gain == pytest.approx(0.4)
    assert gains.kept == pytest.approx(0.25)
    assert gains.interval == pytest.approx((0.3 - 1.2706, 0.3 + 1.2706), abs=1e-4)
    assert Gains((0.51,), (0.5,), (0.5,)).kept is None and Gains((0.51,), (0.5,), (0.5,)).interval is None
    assert Gains((0.9,), (0.4,), (0.5,)).kept == 0.0
    with pytest.raises(ValueError, match="one score a task"):
        Gains((0.9,), (), (0.5,))


def test_the_interval_holds_the_mean_as_often_as_it_says() -> None:
    generator = torch.Generator().manual_seed(0)
    drawn = 0.1 + 0.1 * torch.randn(2000, 4, generator=generator).double()
    ends = [student_interval(row) for row in drawn.tolist()]
    assert sum(low < 0.1 < high for low, high in ends) / 2000 == pytest.approx(0.95, abs=0.015)


def near(value: float, tasks: int = 6) -> tuple[float, ...]:
    """Scores of tasks about a value, a hundredth apart."""
    return tuple(value + 0.01 * (index % 2) for index in range(tasks))


def test_scores_go_before_geometry() -> None:
    deaf = sensitivity(constant(SHAPE), prompts(4, 32, 0))
    listens = sensitivity(fitted(6), prompts(8, 32, 0)[:6])
    counts = Gains(near(0.9), near(0.6), near(0.5))
    assert verdict(listens, counts, 6)[0] is False and verdict(deaf, counts, 6)[0] is False
    assert (
        "+0.300 (95 % +0.300 to +0.300) over 6 tasks; a random source keeps 25%"
        in verdict(deaf, counts, 6)[1]
    )


def test_a_random_source_that_keeps_most_of_the_gain_is_collapse() -> None:
    listens = sensitivity(fitted(6), prompts(8, 32, 0)[:6])
    most = Gains(near(0.9), near(0.848), near(0.5))  # keeps 87 %
    found, said = verdict(listens, most, 6)
    assert found and "constant in disguise" in said and "keeps 87% of the gain" in said


def test_geometry_decides_where_scores_do_not() -> None:
    deaf = sensitivity(constant(SHAPE), prompts(4, 32, 0))
    listens = sensitivity(fitted(6), prompts(8, 32, 0)[:6])
    nothing = Gains(near(0.51), near(0.5), near(0.5))
    unsure = Gains((0.9, 0.6), (0.55, 0.58), (0.5, 0.5))
    for gains in (nothing, unsure):
        assert verdict(deaf, gains, 6)[0] and "ignores its input" in verdict(deaf, gains, 6)[1]
        assert not verdict(listens, gains, 6)[0] and "do not settle it" in verdict(listens, gains, 6)[1]
    assert "fitted on one task" in verdict(listens, None, 1)[1]
    assert verdict(deaf, None, 6)[0] and not verdict(listens, None, 6)[0]


def test_probes_are_one_prompt_a_task() -> None:
    sources = {"a": torch.zeros(3, 2, 2), "b": torch.ones(1, 2, 2)}
    assert probes(sources).shape == (2, 2, 2)
    assert probes({"b": torch.ones(1, 2, 2)}).shape == (8, 2, 2)


def test_sensitivity_needs_two_different_prompts() -> None:
    with pytest.raises(UserError, match="at least 2"):
        sensitivity(constant(SHAPE), prompts(1, 32, 0))
    with pytest.raises(UserError, match="all given are the same"):
        sensitivity(constant(SHAPE), torch.ones(3, 10, 32))
