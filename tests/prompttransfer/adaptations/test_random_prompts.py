"""Random prompts: the norms of the given prompts' own vectors, directions that know nothing of them."""

import pytest
import torch

from prompttransfer.adaptations.random_prompts import random_draws, random_like


def drawn(prompts, draws, seed=0):
    return random_like(prompts, draws, torch.Generator().manual_seed(seed))


def test_a_random_prompt_has_the_norms_of_one_prompts_own_vectors():
    # Norms 5 and 1; then 26 and 0.5. The mean norm, 8.125, is the norm of none of them.
    first = torch.tensor([[3.0, 4.0], [0.0, 1.0]])
    second = torch.tensor([[10.0, 24.0], [0.3, 0.4]])
    norms = sorted(tuple(sorted(each.tolist())) for each in drawn([first, second], 4).norm(dim=-1))
    for found, wanted in zip(norms, [(0.5, 26.0)] * 2 + [(1.0, 5.0)] * 2, strict=True):
        assert found == pytest.approx(wanted)


def test_every_prompt_is_stood_for_as_often_as_any_other():
    prompts = [torch.full((1, 4), 10.0**power) for power in range(5)]
    norms = drawn(prompts, 12).norm(dim=-1).flatten()
    counts = [int(((norms / p.norm()) - 1).abs().lt(0.01).sum()) for p in prompts]
    assert sum(counts) == 12 and set(counts) == {2, 3}


def test_the_order_of_norms_is_permuted_and_directions_are_random():
    prompt = torch.diag(torch.arange(1.0, 33.0))  # one direction and one norm a vector
    found = drawn([prompt], 200)
    first = found.norm(dim=-1)[:, 0]
    assert len(set(first.round().tolist())) > 25  # the first vector has had nearly every norm
    cosine = torch.nn.functional.cosine_similarity(found, prompt[None], dim=-1)
    assert abs(float(cosine.mean())) < 0.01


def test_the_same_generator_gives_the_same_prompts():
    prompts = [torch.ones(3, 8), 2 * torch.ones(3, 8)]
    assert torch.equal(drawn(prompts, 5), drawn(torch.stack(prompts), 5))
    assert not torch.equal(drawn(prompts, 5), drawn(prompts, 5, seed=1))


@pytest.mark.parametrize(("prompts", "draws"), [(1, 12), (8, 16), (12, 12), (13, 13), (48, 48), (200, 48)])
def test_whole_rounds_are_drawn_while_there_are_few_prompts(prompts, draws):
    assert random_draws(prompts) == draws


def test_what_depends_on_the_norm_has_no_bias():
    # A score that is .5 below a norm of 10 and .9 above: four of five prompts are below, so random ones are at .58. At
    # the mean norm, 46, all of them would be at .9.
    prompts = [torch.full((4, 16), norm / 8) for norm in (2.0, 4.0, 6.0, 8.0, 210.0)]
    found = drawn(prompts, random_draws(5)).flatten(1).norm(dim=1)
    assert float(torch.stack(prompts).flatten(1).norm(dim=1).mean()) == pytest.approx(46.0)
    assert float(torch.where(found > 10, 0.9, 0.5).mean()) == pytest.approx(0.58)
