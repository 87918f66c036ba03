"""Architectures: shapes, sizes, seeds."""

from __future__ import annotations

import pytest
import torch

from projectors.architectures import (
    ARCHITECTURES,
    Architecture,
    Shape,
    Standardised,
    build,
    same_place,
    set_output_scale,
    size,
)
from tasks.errors import UserError


def test_the_papers_mlp_has_the_papers_parameter_count() -> None:
    # 76800 x 768 + 768 + 768 x 76800 + 76800 + LayerNorm 2 x 768, worked by hand
    assert size(Architecture("mlp"), Shape(100, 768, 100, 768)).parameters == 118_043_904


def test_the_low_rank_map_grows_with_its_rank_alone() -> None:
    shape = Shape(100, 1024, 100, 4096)
    sizes = [size(Architecture("low-rank", rank=rank), shape).parameters for rank in (8, 16)]
    assert sizes == [rank * (102_400 + 409_600) + 409_600 for rank in (8, 16)]


def test_memory_to_fit_is_weight_gradient_and_two_moments() -> None:
    report = size(Architecture("mlp"), Shape(100, 1024, 100, 4096))
    assert report.fit_bytes == 4 * report.apply_bytes == 16 * report.parameters
    assert "GiB to fit" in str(report) and f"{report.parameters:,}" in str(report)


@pytest.mark.parametrize("name", ARCHITECTURES)
@pytest.mark.parametrize("standardise", [False, True])
@pytest.mark.parametrize("shape", [Shape(4, 6, 4, 5), Shape(4, 6, 7, 5), Shape(5, 3, 2, 8)], ids=str)
def test_every_architecture_maps_any_shape_to_any(name: str, standardise: bool, shape: Shape) -> None:
    module = build(Architecture(name, hidden=9, rank=3, standardise=standardise), shape)
    one = module(torch.randn(shape.source_length, shape.source_width))
    many = module(torch.randn(2, 3, shape.source_length, shape.source_width))
    assert one.shape == (shape.target_length, shape.target_width)
    assert many.shape == (2, 3, shape.target_length, shape.target_width)


@pytest.mark.parametrize("name", ["mlp", "linear", "token-mlp", "low-rank"])
def test_gradient_reaches_every_parameter(name: str) -> None:
    module = build(Architecture(name, hidden=9, rank=3), Shape(4, 6, 3, 5))
    module(torch.randn(8, 4, 6)).square().mul(torch.rand(3, 5)).sum().backward()
    assert all(p.grad is not None and float(p.grad.abs().sum()) > 0 for p in module.parameters())


def test_a_batch_is_the_prompts_one_by_one() -> None:
    module = build(Architecture("mlp", hidden=9), Shape(4, 6, 3, 5))
    prompts = torch.randn(3, 4, 6)
    assert torch.allclose(module(prompts), torch.stack([module(prompt) for prompt in prompts]), atol=1e-6)


def test_the_seed_decides_the_weights_and_leaves_the_callers_generator() -> None:
    torch.manual_seed(3)
    before = torch.random.get_rng_state()
    same = [build(Architecture("linear"), Shape(2, 3, 2, 3), seed=seed).map.weight for seed in (1, 1, 2)]
    assert torch.equal(same[0], same[1]) and not torch.equal(same[0], same[2])
    assert torch.equal(before, torch.random.get_rng_state())


def test_another_length_takes_the_token_at_the_same_relative_place() -> None:
    tokens = torch.tensor([[0.0], [1.0], [2.0], [3.0]])
    assert same_place(tokens, 2).flatten().tolist() == [1.0, 3.0]
    assert same_place(tokens, 8).flatten().tolist() == [0, 0, 1, 1, 2, 2, 3, 3]


def test_standardised_map_gives_the_mean_target_for_the_mean_source() -> None:
    module = build(Architecture("low-rank", rank=2, standardise=True), Shape(1, 2, 1, 2))
    assert isinstance(module, Standardised)
    source = torch.tensor([[[0.0, 2.0]], [[4.0, 2.0]]])
    target = torch.tensor([[[1.0, 1.0]], [[1.0, 5.0]]])
    module.measure(source, target)
    # deviations are +-2 in one of two dimensions: rms sqrt(2) on both sides
    assert float(module.source_scale) == pytest.approx(2**0.5) == float(module.target_scale)
    with torch.no_grad():
        module.inner.outward.bias.zero_()
    assert torch.allclose(module(torch.tensor([[2.0, 2.0]])), torch.tensor([[1.0, 3.0]]))


def test_the_output_scale_is_the_rms_of_what_a_layer_norm_gives() -> None:
    module = build(Architecture("mlp", hidden=9), Shape(4, 6, 30, 50))
    set_output_scale(module, 0.25)
    assert float(module(torch.randn(4, 6)).detach().square().mean().sqrt()) == pytest.approx(0.25, rel=0.01)


def test_a_mistyped_architecture_is_answered_with_the_right_one() -> None:
    with pytest.raises(UserError, match="unknown architecture 'liner': did you mean 'linear'"):
        build(Architecture("liner"), Shape(1, 1, 1, 1))
    with pytest.raises(UserError, match=r"unknown activation 'tan'.*'tanh'"):
        Architecture("mlp", activation="tan")
    with pytest.raises(UserError, match="at least 1"):
        Shape(0, 3, 4, 5)
