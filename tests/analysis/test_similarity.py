"""The indicators against values worked by hand, and against loops over all token pairs."""

import math
import time

import pytest
import torch

from analysis.similarity import INDICATORS, PAPER_METRICS, similarity
from tasks.errors import UserError

# Two prompts of two tokens of width 2. Token distances: |a1-b1| = 3, |a1-b2| = |(3,0)-(0,8)|, and so on.
A = torch.tensor([[3.0, 0.0], [0.0, 4.0]])
B = torch.tensor([[0.0, 0.0], [0.0, 8.0]])
PAIR = torch.stack([A, B])


def value(name, prompts=PAIR, initial=None):
    return float(INDICATORS[name](prompts, initial)[0, 1])


def test_e_concat_is_one_over_one_plus_the_frobenius_distance():
    assert value("E_concat") == pytest.approx(1 / (1 + 5.0))  # differences 3 and 4


def test_e_average_is_one_over_one_plus_the_mean_token_distance():
    mean = (3 + math.hypot(3, 8) + 4 + 4) / 4
    assert value("E_average") == pytest.approx(1 / (1 + mean))


def test_c_concat_is_the_cosine_of_the_flattened_prompts():
    assert value("C_concat") == pytest.approx(32 / (5 * 8))


def test_c_average_is_the_mean_cosine_over_all_token_pairs():
    prompts = torch.stack([A, torch.tensor([[5.0, 0.0], [1.0, 1.0]])])
    assert value("C_average", prompts) == pytest.approx((1 + 2 / math.sqrt(2) + 0) / 4)


def test_average_token_cosine_compares_the_mean_tokens():
    assert value("C_average-token") == pytest.approx(4 / 5)  # cos((1.5, 2), (0, 4))


def test_a_prompt_is_one_with_itself_only_in_the_concatenated_metrics():
    for name in ("E_concat", "C_concat"):
        assert float(INDICATORS[name](PAIR, None)[0, 0]) == pytest.approx(1, abs=1e-12)
    assert float(INDICATORS["E_average"](PAIR, None)[0, 0]) == pytest.approx(1 / (1 + 5 * 2 / 4))
    assert float(INDICATORS["C_average"](PAIR, None)[0, 0]) == pytest.approx(0.5)


def test_matching_finds_a_prompt_again_whose_tokens_were_shuffled():
    generator = torch.Generator().manual_seed(0)
    prompt = torch.randn(6, 8, generator=generator)
    pair = torch.stack([prompt, prompt[torch.randperm(6, generator=generator)]])
    assert value("C_concat", pair) < 0.9
    assert value("C_matched", pair) == pytest.approx(1)
    assert value("E_matched", pair) == pytest.approx(1, abs=1e-6)


def test_matching_takes_the_best_of_all_orders():
    other = torch.tensor([[0.0, 2.0], [1.0, 0.0]])
    best = (3 * 1 + 4 * 2) / (5 * math.sqrt(5))  # tokens swapped
    assert value("C_matched", torch.stack([A, other])) == pytest.approx(best)


def test_minus_initial_sees_only_what_training_changed():
    start = torch.full_like(PAIR, 100.0)
    assert value("C_concat-minus-initial", start + PAIR, start) == pytest.approx(32 / 40, abs=1e-9)
    assert value("C_concat", start + PAIR) > 0.99


def test_minus_mean_removes_what_all_prompts_share():
    prompts = torch.randn(4, 3, 5, generator=torch.Generator().manual_seed(1))
    shifted = INDICATORS["C_average-minus-mean"](prompts + 7, None)
    torch.testing.assert_close(shifted, INDICATORS["C_average-minus-mean"](prompts, None), rtol=0, atol=1e-5)


def test_minus_initial_without_stored_vectors_is_refused():
    with pytest.raises(UserError, match="initial vectors"):
        INDICATORS["C_concat-minus-initial"](PAIR, None)


def test_blocks_of_distances_agree_with_a_loop_over_token_pairs(monkeypatch):
    monkeypatch.setattr("analysis.similarity._BLOCK_TOKENS", 7)
    prompts = torch.randn(5, 3, 4, generator=torch.Generator().manual_seed(2)) + 50
    loop = [[torch.cdist(a[None].double(), b[None].double(), compute_mode="donot_use_mm_for_euclid_dist").mean() for b in prompts] for a in prompts]  # fmt: skip
    expected = 1 / (1 + torch.tensor(loop, dtype=torch.float64))
    torch.testing.assert_close(INDICATORS["E_average"](prompts, None), expected, rtol=0, atol=1e-9)


def test_equal_prompts_of_large_norm_have_distance_zero():
    prompts = torch.randn(1, 10, 20, generator=torch.Generator().manual_seed(3)).repeat(2, 1, 1) * 1000
    assert value("E_concat", prompts) == 1.0


def test_every_indicator_is_symmetric_and_finite():
    prompts = torch.randn(5, 4, 6, generator=torch.Generator().manual_seed(4))
    prompts[2, 1] = 0  # a token without direction
    for name, indicator in INDICATORS.items():
        matrix = indicator(prompts, torch.zeros_like(prompts))
        assert matrix.shape == (5, 5) and torch.isfinite(matrix).all(), name
        torch.testing.assert_close(matrix, matrix.T, msg=name)


def test_an_unknown_metric_names_the_nearest():
    with pytest.raises(UserError, match="did you mean 'C_average'"):
        similarity("c_averge", PAIR, ["a", "b"])


def test_values_that_are_not_finite_are_refused():
    with pytest.raises(UserError, match="not finite"):
        similarity("C_concat", PAIR * float("inf"), ["a", "b"])


def test_sixty_prompts_of_full_size_take_no_token_loop():
    prompts = torch.randn(60, 100, 256, generator=torch.Generator().manual_seed(5))
    start = time.monotonic()
    for name in PAPER_METRICS:
        similarity(name, prompts, [str(i) for i in range(60)])
    assert time.monotonic() - start < 15  # a loop over 18 million token pairs takes minutes
