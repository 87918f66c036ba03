"""Anchors: the relative representation by hand, and a search that finds what is there to be found."""

from __future__ import annotations

import pytest
import torch

from projectors.anchors import AnchorSettings, anchors, largest, regularise, relative
from projectors.architectures import Shape
from projectors.closed_form import SharedWords
from tasks.errors import UserError


def test_relative_representation_by_hand() -> None:
    cosines = relative(torch.tensor([[3.0, 4.0]]), torch.tensor([[1.0, 0.0], [0.0, 2.0], [-1.0, 0.0]]))
    assert cosines.flatten().tolist() == pytest.approx([0.6, 0.8, -0.6])


def test_only_the_largest_entries_are_kept() -> None:
    assert largest(torch.tensor([[0.1, 0.5, -0.9, 0.2]]), 2).tolist() == [[0, 1, 0, 1]]


def test_regularised_prompts_have_the_tables_mean_and_deviation() -> None:
    made = regularise(torch.randn(20, 30) * 7 + 3, torch.tensor(0.5), torch.tensor(0.1))
    assert float(made.mean()) == pytest.approx(0.5, abs=1e-5) and float(made.std()) == pytest.approx(
        0.1, abs=1e-5
    )


@pytest.fixture(scope="module")
def rotated() -> tuple[SharedWords, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    source = torch.randn(120, 8, generator=generator)
    rotation = torch.linalg.qr(torch.randn(8, 8, generator=generator)).Q
    return SharedWords(tuple(f"w{i}" for i in range(120)), source, source @ rotation), rotation


def test_the_search_finds_a_rotated_prompt(rotated: tuple[SharedWords, torch.Tensor]) -> None:
    shared, rotation = rotated
    prompt = torch.randn(3, 8, generator=torch.Generator().manual_seed(1))
    module = anchors(shared, Shape(3, 8, 3, 8), shared.target, AnchorSettings(steps=600, lr=0.02))
    found = module.search(prompt[None])
    agreement = torch.cosine_similarity(found.last[0], prompt @ rotation, dim=-1)
    assert found.losses[0] < 0.01 and float(agreement.min()) > 0.97


def test_the_validated_step_is_told_apart_from_the_last(rotated: tuple[SharedWords, torch.Tensor]) -> None:
    shared, _ = rotated
    module = anchors(shared, Shape(3, 8, 3, 8), shared.target, AnchorSettings(steps=40, every=10))
    seen: list[torch.Tensor] = []
    scores = iter([[0.1, 0.9], [0.7, 0.2], [0.7, 0.3], [0.2, 0.9]])

    def watch(prompts: torch.Tensor) -> list[float]:
        seen.append(prompts)
        return next(scores)

    source = torch.stack([torch.ones(3, 8), torch.randn(3, 8)])
    found = module.search(source, watch)
    assert found.picked_steps == (20, 10) and found.picked is not None
    assert torch.equal(found.picked, torch.stack([seen[1][0], seen[0][1]]))
    assert torch.equal(found.last, seen[3])
    unwatched = module.search(source)
    assert unwatched.picked is None and torch.equal(unwatched.last, found.last)


def test_prompts_searched_together_do_not_see_each_other(rotated: tuple[SharedWords, torch.Tensor]) -> None:
    shared, _ = rotated
    module = anchors(shared, Shape(3, 8, 3, 8), shared.target, AnchorSettings(steps=30))
    prompts = torch.randn(2, 3, 8)
    assert torch.allclose(module(prompts), torch.stack([module(prompt) for prompt in prompts]), atol=1e-5)


def test_settings_out_of_range_are_refused() -> None:
    with pytest.raises(UserError, match="at least 1"):
        AnchorSettings(steps=0)
