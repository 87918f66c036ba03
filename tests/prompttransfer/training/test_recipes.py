"""Recipes: which one a backbone gets, and that the optimizers do what their papers say."""

from types import SimpleNamespace

import pytest
import torch
from toys import recipe

from prompttransfer.adaptations.methods import METHODS, parse_method
from prompttransfer.training.grids import candidates_of
from prompttransfer.training.recipes import (
    Recipe,
    make_optimizer,
    method_and_recipe,
    recipe_for,
    recipe_for_size,
    usual_start,
)
from tasks.errors import UserError


def backbone(family="masked-lm", width=768):
    return SimpleNamespace(family=family, width=width, state_width=width)


@pytest.mark.parametrize(
    ("family", "width", "optimizer", "lr", "weight_decay"),
    [
        ("masked-lm", 768, "adamw", 1e-3, 0.0),
        ("masked-lm", 1024, "adamw", 1e-4, 0.0),
        ("t5", 768, "adafactor", 0.3, 1e-5),
        ("t5", 512, "adafactor", 0.3, 1e-5),
    ],
)
def test_each_family_gets_the_recipe_of_its_paper(family, width, optimizer, lr, weight_decay):
    recipe = recipe_for(backbone(family, width))
    assert (recipe.optimizer, recipe.lr, recipe.weight_decay) == (optimizer, lr, weight_decay)
    assert recipe.length == 100
    assert f"lr {lr:g}" in str(recipe) and recipe.source in str(recipe)


def test_adamw_on_t5_never_gets_adafactors_rate():
    recipe = recipe_for(backbone("t5"), optimizer="adamw")
    assert (recipe.optimizer, recipe.lr, recipe.weight_decay) == ("adamw", 5e-3, 0.0)


def test_values_that_are_given_win_and_none_is_not_given():
    recipe = recipe_for(backbone(), lr=0.5, steps=None, batch=2)
    assert (recipe.lr, recipe.batch, recipe.steps) == (0.5, 2, 10_000)


def test_adafactor_has_its_three_flags_off():
    optimizer = make_optimizer(recipe_for(backbone("t5")), [torch.zeros(2, 3, requires_grad=True)])
    flags = {name: optimizer.defaults[name] for name in ("scale_parameter", "relative_step", "warmup_init")}
    assert flags == {"scale_parameter": False, "relative_step": False, "warmup_init": False}


def test_the_first_adafactor_step_is_the_learning_rate_against_the_sign():
    # A gradient of rank one: the factored second moment is g^2 exactly, so the update is lr * g / |g| = lr * sign(g),
    # and its root mean square is 1, which the clipping threshold of 1 leaves alone (Shazeer & Stern 2018).
    parameter = torch.zeros(2, 3, requires_grad=True)
    optimizer = make_optimizer(Recipe("adafactor", 0.3, "a test"), [parameter])
    parameter.grad = torch.tensor([[1.0], [-2.0]]) * torch.tensor([[1.0, 4.0, -0.5]])
    optimizer.step()
    wanted = -0.3 * torch.tensor([[1.0, 1.0, -1.0], [-1.0, -1.0, 1.0]])
    torch.testing.assert_close(parameter.detach(), wanted, atol=1e-5, rtol=1e-5)


def test_the_adafactor_step_does_not_scale_with_the_parameter():
    steps = []
    for size in (1.0, 100.0):
        parameter = torch.full((2, 2), size, requires_grad=True)
        optimizer = make_optimizer(Recipe("adafactor", 0.3, "a test"), [parameter])
        parameter.grad = torch.ones(2, 2)
        optimizer.step()
        steps.append(size - parameter.detach().mean().item())
    assert steps == pytest.approx([0.3, 0.3], abs=1e-4)


def test_the_first_adamw_step_is_the_learning_rate_against_the_sign():
    parameter = torch.tensor([[1.0, -1.0]], requires_grad=True)
    optimizer = make_optimizer(Recipe("adamw", 0.01, "a test"), [parameter])
    parameter.grad = torch.tensor([[3.0, -0.5]])
    optimizer.step()
    # No weight decay (thunlp 1.0 has 0): the step is lr * m / sqrt(v) = lr * sign(g).
    torch.testing.assert_close(parameter.detach(), torch.tensor([[0.99, -0.99]]), atol=1e-6, rtol=1e-6)


def test_every_prompt_of_a_bank_has_a_state_of_its_own():
    first, second = (torch.zeros(1, 2, requires_grad=True) for _ in range(2))
    optimizer = make_optimizer(Recipe("adamw", 0.01, "a test"), [first, second])
    first.grad = torch.ones(1, 2)
    optimizer.step()
    assert len(optimizer.param_groups) == 2
    assert first in optimizer.state and second not in optimizer.state
    assert second.tolist() == [[0.0, 0.0]]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"optimizer": "adamv"}, "did you mean 'adamw'"),
        ({"lr": 0.0}, "learning rate 0.0"),
        ({"lr": float("nan")}, "learning rate nan"),
        ({"lr": float("inf")}, "learning rate inf"),
        ({"lr": 1e39}, "learning rate 1e\\+39"),
        ({"weight_decay": -1.0}, "weight decay"),
        ({"batch": 0}, "--batch 0"),
        ({"length": 0}, "--length 0"),
        ({"steps": -1}, "--steps -1"),
        ({"evaluate_every": 0}, "--evaluate-every 0"),
    ],
)
def test_values_that_cannot_be_are_refused_by_the_name_of_their_option(values, message):
    with pytest.raises(UserError, match=message):
        recipe_for(backbone(), **values)


def test_a_warm_up_that_is_asked_for_ends_with_the_last_step_at_the_latest():
    with pytest.raises(UserError, match="warm-up 11: it is longer than the 10 steps"):
        recipe_for_size("masked-lm", 64, warm_up=11, steps=10)
    with pytest.raises(UserError, match="warm-up 301: it is longer than the 300 steps"):
        recipe_for_size("masked-lm", 64, warm_up=301)
    assert recipe_for_size("masked-lm", 64, warm_up=10, steps=10).warm_up == 10
    assert recipe_for_size("causal-lm", 576, steps=10).warm_up == 20  # nobody asked for it
    assert recipe_for_size("masked-lm", 64, parse_method("text:prompt=it"), warm_up=5).steps == 0
    search = candidates_of("masked-lm", 64, "text-search", {"steps": ("2", "4")}, {"warm_up": 5})
    assert [one.recipe.steps for one in search] == [2, 4]


def test_a_schedule_rises_in_its_warm_up_and_falls_to_nothing_behind_the_last_step():
    plan = recipe(steps=10, schedule="linear", warm_up=4)
    assert [plan.share_of_rate(step) for step in (1, 2, 4, 5, 6, 10)] == pytest.approx(
        [0.25, 0.5, 1, 1, 5 / 6, 1 / 6]
    )
    assert [recipe(steps=10).share_of_rate(step) for step in (1, 10)] == [1, 1]
    assert "schedule" not in recipe().as_dict() and plan.as_dict()["warm_up"] == 4
    with pytest.raises(UserError, match="did you mean 'linear'"):
        recipe(schedule="liner")


def test_the_rate_of_decoders_rises_and_falls():
    prompt, lora = (method_and_recipe("causal-lm", 576, text)[1] for text in ("prompt", "lora"))
    assert (prompt.lr, prompt.length, lora.lr) == (0.005, 20, 2e-3)
    assert {(own.schedule, own.warm_up) for own in (prompt, lora)} == {("linear", 20)}
    assert method_and_recipe("masked-lm", 768, "lora")[1].schedule == "constant"


def test_only_prompts_of_decoders_that_are_not_small_begin_as_words():
    prompt, lora = parse_method("prompt", length=5), parse_method("lora")
    assert str(usual_start("causal-lm", 576, prompt)) == "vocabulary"
    others = [
        ("causal-lm", 64, prompt),
        ("causal-lm", 576, lora),
        ("masked-lm", 768, prompt),
        ("t5", 768, prompt),
    ]
    assert {str(usual_start(*side)) for side in others} == {"random"}


def test_every_method_has_a_recipe_on_every_family():
    for family in ("masked-lm", "t5", "causal-lm"):
        for name in METHODS:
            for width in (128, 768, 1024):
                method, found = method_and_recipe(family, width, name)
                assert method.name == name and found.lr > 0
