"""What frozen layers leave out changes no number, and a process on a CPU keeps the memory of its steps."""

import subprocess
import sys

import pytest
import torch
from torch.nn import functional as F

from prompttransfer.backbones import frozen

UNITS = torch.cpu._is_avx512_bf16_supported()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", [(5, 24), (3, 7, 24)])
def test_a_frozen_linear_layer_gives_what_torch_gives_backward_included(dtype, shape):
    torch.manual_seed(0)
    weight, bias = torch.randn(40, 24).to(dtype), torch.randn(40).to(dtype)
    states = torch.randn(shape).to(dtype).requires_grad_()
    results = []
    for layer in (frozen.affine, F.linear):
        output = layer(states, weight, bias)
        (gradient,) = torch.autograd.grad(output, states, torch.ones_like(output))
        results.append((output, gradient))
    close = {"atol": 0.02, "rtol": 2**-7} if dtype is torch.bfloat16 else {"atol": 1e-5, "rtol": 1e-6}
    for ours, wanted in zip(*results, strict=True):
        torch.testing.assert_close(ours, wanted, **close)


@pytest.mark.skipif(not UNITS, reason="this processor has no units for bf16")
def test_where_a_processor_has_units_for_bf16_the_bias_is_added_inside_the_product():
    weight, bias = torch.randn(40, 24).bfloat16(), torch.randn(40).bfloat16()
    states = torch.randn(5, 24).bfloat16().requires_grad_()
    assert "_Affine" in type(frozen.affine(states, weight, bias).grad_fn).__name__


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only glibc on Linux is told to keep memory")
def test_loading_a_backbone_on_a_cpu_makes_the_process_keep_memory_that_it_has_used():
    code = """if True:
        import resource, sys
        import torch
        from prompttransfer.backbones import load_backbone
        from prompttransfer.heap import keep_heap

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
