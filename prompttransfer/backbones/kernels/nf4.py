"""Frozen linear maps held in four bits (QLoRA, Dettmers et al. 2023, arXiv 2305.14314), by bitsandbytes.

Each block of 64 weights has 16 NormalFloat levels times the block's largest value, which is held in eight bits itself (double
quantisation): about 4.13 bits a weight. A product makes the weights of one map for a moment and forgets them; the backward
pass makes them again, so nothing of their size is kept. bitsandbytes' own module is passed by: on CPUs with AVX512-BF16 it
repacks its weights when it evaluates, and what they are then has no backward pass.
"""

from __future__ import annotations

import logging
from functools import cache
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.pytorch_utils import Conv1D

from tasks.errors import UserError

if TYPE_CHECKING:
    from prompttransfer.backbones.base import Backbone

BLOCK, SCALES_BLOCK = 64, 256
"""Weights that share a largest value, and largest values that share one."""


def check_nf4(engine: str = "plain", *, shards: bool = False) -> None:
    """Raise UserError where weights in NF4 cannot run."""
    if shards:
        raise UserError("--precision nf4 is for weights that are not shared out: leave --strategy fsdp out")
    if engine == "frozen":
        raise UserError(
            "--precision nf4 runs on engine 'plain' alone: leave the engine out, or use another precision"
        )
    _library()


@cache
def _library() -> Any:
    """bitsandbytes.functional; UserError where it is not installed."""
    # It warns of kernels that it could download, which nothing here calls.
    logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)
    try:
        from bitsandbytes import functional
    except ImportError:
        raise UserError(
            "--precision nf4 needs bitsandbytes: install the extra `quantised`, or use bf16 or fp32"
        ) from None
    return functional


def hold_in_nf4(backbone: Backbone, device: torch.device) -> None:
    """Hold the linear maps inside the layers of `backbone` in NF4 and bring it to `device`.

    One map after another is quantised there, so that the whole of the weights is never on it. Embeddings, norms, biases and
    the language-model head stay as they are, in the type that passes are computed in.
    """
    check_nf4(backbone.engine)
    for name in backbone.linear_maps:
        parent, _, child = name.rpartition(".")
        module = backbone.model.get_submodule(name)
        setattr(backbone.model.get_submodule(parent), child, NF4Linear(module, device))
    backbone.quantised = True
    backbone.move(device)


class NF4Linear(nn.Linear):
    """A linear map whose weight [out, in] is made of four bits each whenever it is asked for."""

    def __init__(self, module: nn.Linear | Conv1D, device: torch.device):
        nn.Module.__init__(self)  # not nn.Linear's, which would make a weight
        weight = module.weight.detach()
        if not isinstance(module, nn.Linear):  # GPT-2's maps keep theirs the other way round
            weight = weight.T
        self.out_features, self.in_features = weight.shape
        self.kept_as = weight.dtype
        self.bias = module.bias
        for name, value in _quantised(weight.to(device)).items():
            self.register_parameter(name, nn.Parameter(value, requires_grad=False))

    @property
    def weight(self) -> Tensor:  # type: ignore[override]
        """[out, in], made now."""
        shape = torch.Size((self.out_features, self.in_features))
        if self.packed.is_meta:
            return torch.empty(shape, dtype=self.kept_as, device="meta")
        functional = _library()
        state = functional.QuantState(
            absmax=self.largest.detach(),
            shape=shape,
            blocksize=BLOCK,
            quant_type="nf4",
            dtype=self.kept_as,
            offset=self.offset.detach(),
            state2=functional.QuantState(
                absmax=self.scales.detach(),
                code=self.levels.detach(),
                blocksize=SCALES_BLOCK,
                dtype=torch.float32,
            ),
        )
        made: Tensor = functional.dequantize_4bit(self.packed.detach(), state)
        return made

    def forward(self, states: Tensor) -> Tensor:
        """states [..., in] to [..., out]."""
        output: Tensor = _Product.apply(states, self)
        return output if self.bias is None else output + self.bias


class _Product(torch.autograd.Function):
    """states times a weight that is not kept for the backward pass."""

    @staticmethod
    def forward(ctx: Any, states: Tensor, module: NF4Linear) -> Tensor:
        ctx.module = module
        return F.linear(states, module.weight)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient @ ctx.module.weight, None


def _quantised(weight: Tensor) -> dict[str, Tensor]:
    """What a weight is made of again; on `meta` the sizes of it."""
    if weight.is_meta:
        blocks = -(-weight.numel() // BLOCK)
        sizes = {"packed": -(-weight.numel() // 2), "largest": blocks}
        found = {name: torch.empty(size, dtype=torch.uint8, device="meta") for name, size in sizes.items()}
        return found | {"scales": torch.empty(-(-blocks // SCALES_BLOCK), device="meta")}
    packed, state = _library().quantize_4bit(
        weight.contiguous(), blocksize=BLOCK, compress_statistics=True, quant_type="nf4"
    )
    return {
        "packed": packed,
        "largest": state.absmax,
        "scales": state.state2.absmax,
        "levels": state.state2.code,
        "offset": state.offset,
    }
