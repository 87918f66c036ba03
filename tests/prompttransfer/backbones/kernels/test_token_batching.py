"""Rows that run together: within what fits, and apart where padding would cost more than a call."""

import math

import torch

from prompttransfer.backbones.kernels.token_batching import RECORDED_CALL_TOKENS, call_tokens, cut, halve


def parts(sizes, **limits):
    return [list(sizes[part]) for part in cut(sizes, **limits)]


def test_a_part_holds_as_many_padded_tokens_as_fit():
    assert parts([3, 4, 5, 5, 6], most=15) == [[3, 4, 5], [5, 6]]
    assert parts([3, 4, 5, 5, 6], most=15, copies=2) == [[3], [4], [5], [5], [6]]


def test_a_row_that_is_too_long_runs_alone():
    assert parts([2, 2, 90], most=10) == [[2, 2], [90]]


def test_rows_run_apart_where_padding_would_cost_more_than_a_call():
    # Three rows of 4 beside one of 10 would be padded by 18 tokens.
    assert parts([4, 4, 4, 10], most=100, call=18) == [[4, 4, 4, 10]]
    assert parts([4, 4, 4, 10], most=100, call=17) == [[4, 4, 4], [10]]
    assert parts([4, 4, 4, 10], most=100, call=18, copies=2) == [[4, 4, 4], [10]]


def test_every_row_is_in_one_part():
    sizes = sorted((7 * index) % 53 + 1 for index in range(200))
    found = parts(sizes, most=300, call=20)
    assert [size for part in found for size in part] == sizes
    assert all(len(part) * part[-1] <= 300 and len(part) * part[-1] - sum(part) <= 20 for part in found)


def test_no_rows_are_no_part():
    assert parts([], most=10) == []


def test_recorded_calls_have_equally_many_rows_and_are_halved_while_that_saves_more_padding_than_a_call_costs():
    cost = RECORDED_CALL_TOKENS
    level, steep = (
        [10] * 6,
        [10, 10, 10, 10 + cost // 3],
    )  # a half apart: 3 rows are padded by a third less a token
    assert list(halve(level, most=10 * cost)) == [slice(0, 6)]
    assert list(halve([10, 10, 10, cost], most=10 * cost)) == [slice(0, 2), slice(2, 4)]
    assert list(halve(steep, most=10 * cost)) == [slice(0, 4)]
    assert list(halve(level, most=20)) == [slice(0, 2), slice(2, 4), slice(4, 6)]
    assert list(halve([2, 90], most=10)) == [slice(0, 1), slice(1, 2)]
    assert list(halve([], most=10)) == []


def test_a_call_costs_fewer_tokens_of_a_wide_backbone_and_is_never_worth_it_on_a_gpu(tiny):
    narrow, wide = tiny("roberta", width=16), tiny("roberta", width=32)
    assert 100 < wide.call_tokens < narrow.call_tokens < math.inf
    assert call_tokens(torch.device("cuda"), 1000, torch.bfloat16) == math.inf


def test_a_call_costs_more_in_bf16_on_a_cpu_where_every_shape_is_compiled(tiny):
    assert tiny("roberta", "bf16").call_tokens > 2 * tiny("roberta", "fp32").call_tokens
