"""What frozen layers leave out changes no number, and a process on a CPU keeps the memory of its steps."""

import os
import subprocess
import sys

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from prompttransfer.backbones.kernels.host_memory import CACHES, LARGE, drop_compiled
from prompttransfer.backbones.kernels.linear import FrozenLinear, has_bf16_products, rectified

UNITS = has_bf16_products()
DTYPES = [torch.float32, torch.bfloat16]


def layers(dtype, *, bias=True, count=1):
    torch.manual_seed(0)
    return [nn.Linear(24, 40, bias=bias).to(dtype).requires_grad_(False) for _ in range(count)]


def gradient_of(output, states):
    outer = torch.linspace(-1, 1, output.numel()).view_as(output).to(output)
    return torch.autograd.grad(output, states, outer, retain_graph=True)[0]


def check(ours, wanted, *inputs):
    """Values and gradients agree, to the tolerance of bf16 where they are in it."""
    close = {"atol": 0.02, "rtol": 2**-6} if ours.dtype is torch.bfloat16 else {"atol": 1e-5, "rtol": 1e-5}
    torch.testing.assert_close(ours, wanted, **close)
    for given in inputs:
        torch.testing.assert_close(gradient_of(ours, given), gradient_of(wanted, given), **close)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(5, 24), (3, 7, 24)])
def test_a_frozen_linear_layer_gives_what_torch_gives_backward_included(dtype, bias, shape):
    (linear,) = layers(dtype, bias=bias)
    states = torch.randn(shape).to(dtype).requires_grad_()
    add = torch.randn(*shape[:-1], 40).to(dtype).requires_grad_()
    layer = FrozenLinear(linear)
    check(layer(states), linear(states), states)
    check(layer(states, add=add), linear(states) + add, states, add)


@pytest.mark.parametrize("dtype", DTYPES)
def test_what_is_added_may_lie_anywhere_as_the_states_at_one_position_do(dtype):
    (linear,) = layers(dtype)
    states, everywhere = torch.randn(3, 24).to(dtype), torch.randn(3, 7, 40).to(dtype)
    check(FrozenLinear(linear)(states, add=everywhere[:, 2]), linear(states) + everywhere[:, 2])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("bias", [True, False])
def test_several_frozen_layers_run_as_one_and_keep_their_weights(dtype, bias):
    linears = layers(dtype, bias=bias, count=3)
    states = torch.randn(5, 24).to(dtype).requires_grad_()
    wanted = torch.cat([linear(states) for linear in linears], dim=-1)
    joined = FrozenLinear(*linears)
    check(joined(states), wanted, states)
    check(torch.cat([linear(states) for linear in linears], dim=-1), wanted, states)
    assert linears[2].weight.untyped_storage().data_ptr() == joined.weight.untyped_storage().data_ptr()


@pytest.mark.parametrize("dtype", DTYPES)
def test_two_layers_with_a_relu_between_them(dtype):
    (first,) = layers(dtype, bias=False)
    second = nn.Linear(40, 24, bias=False).to(dtype).requires_grad_(False)
    states, add = (torch.randn(3, 7, 24).to(dtype).requires_grad_() for _ in range(2))
    ours = rectified(states, FrozenLinear(first), FrozenLinear(second), add=add)
    check(ours, second(F.relu(first(states))) + add, states, add)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("change", ["in place", "other values", "through data", "one value in eight"])
def test_a_frozen_layer_follows_its_weights_when_their_values_change(dtype, count, change):
    linears = layers(dtype, count=count)
    layer = FrozenLinear(*linears)
    states = torch.randn(5, 24).to(dtype)
    states.requires_grad_()
    for linear in linears:
        with torch.no_grad():
            if change == "in place":
                linear.weight.mul_(-2)
            elif change == "other values":
                linear.load_state_dict({"weight": torch.randn(40, 24), "bias": torch.randn(40)})
            elif change == "through data":
                linear.weight.data *= -2
            else:  # as a small update in bf16, where most values round back to what they were
                linear.weight.data[:, ::8] *= -2
    check(layer(states), torch.cat([linear(states) for linear in linears], dim=-1), states)


@pytest.mark.skipif(not UNITS, reason="this processor has no units for bf16")
def test_where_a_processor_has_units_for_bf16_what_follows_a_product_is_done_inside_it():
    (linear,) = layers(torch.bfloat16)
    states = torch.randn(5, 24).bfloat16().requires_grad_()
    assert "_Product" in type(FrozenLinear(linear)(states).grad_fn).__name__


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only glibc on Linux is told to keep memory")
def test_loading_a_backbone_on_a_cpu_makes_the_process_keep_memory_that_it_has_used():
    code = """if True:
        import resource, sys
        import torch
        from prompttransfer.backbones.loading import load_backbone
        from prompttransfer.backbones.kernels.host_memory import keep_heap

        def pages():
            before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
            for _ in range(20):
                torch.ones(64, 2**18)  # 64 MB
            return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

        given_back = pages()
        load_backbone("microworld-roberta", device="cpu")
        pages()
        print(given_back, pages(), keep_heap())
    """
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    given_back, kept, told = done.stdout.split()
    if told != "True":
        pytest.skip("the C library is not glibc")
    assert int(given_back) > 20 * int(kept)


def test_only_a_large_model_forgets_compiled_products_early_and_a_setting_of_the_user_stands(monkeypatch):
    for name in CACHES:
        monkeypatch.setenv(name, "0")  # so that what is set below is taken back
        monkeypatch.delenv(name)
    drop_compiled(LARGE - 1)
    assert not set(CACHES) & set(os.environ)
    first, *others = CACHES
    monkeypatch.setenv(first, "7")
    drop_compiled(LARGE)
    assert os.environ[first] == "7"
    assert all(os.environ[name] == str(CACHES[name]) for name in others)


@pytest.mark.skipif(not UNITS, reason="this processor has no units for bf16")
def test_batches_of_many_lengths_do_not_fill_the_memory_of_a_large_model():
    code = """if True:
        import resource
        import torch
        from prompttransfer.backbones.kernels.host_memory import LARGE, drop_compiled, keep_heap

        def products(lengths):
            for rows in lengths:
                states = torch.zeros(rows, 640, dtype=torch.bfloat16)
                torch.ops.mkldnn._linear_pointwise(states, weight, None, "none", [], "")
                torch.bmm(states[None, :, :64], states[None, :, :64].mT)
            return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

        keep_heap()
        drop_compiled(LARGE)
        weight = torch.zeros(640, 640, dtype=torch.bfloat16)
        products([2000])
        print(-products(range(1900, 1950)) + products(range(1600, 1700)))
    """
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 10_000, "KB grown over 100 lengths, where 180 MB are filled otherwise"
