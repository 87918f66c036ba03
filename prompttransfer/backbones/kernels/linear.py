"""Linear layers whose weights never change, on a CPU in bf16 by oneDNN's own products.

`F.linear` in bf16 on a CPU first writes the bias into every row of the result, which takes a fifth of the time of the
product where processors have units for bf16, and lays the weight out as oneDNN's kernels want it at every call. Here
what follows a product (bias, activation, residual) is done inside it, and a weight is laid out once, for the forward and
for the backward pass: two copies beside the weight itself.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

LOOKED_AT = 16
"""Values of each weight that are looked at for changes that torch does not count, such as a merged adapter of peft."""
USUAL_ROWS = 2048
"""Rows of a product that a weight is laid out for; others take the same layout."""


@cache
def has_bf16_products() -> bool:
    """Whether this torch and this processor have oneDNN's bf16 product."""
    return hasattr(torch.ops.mkldnn, "_linear_pointwise") and torch.ops.mkldnn._is_mkldnn_bf16_supported()


class FrozenLinear:
    """Frozen linear layers on the same input as one product; the modules of several then hold views of its weight."""

    def __init__(self, *linears: nn.Linear):
        self.linears = linears
        self._join()

    def _join(self) -> None:
        weights = [linear.weight.detach() for linear in self.linears]
        biases = [linear.bias.detach() for linear in self.linears if linear.bias is not None]
        self.weight, self.bias = weights[0], biases[0] if biases else None
        if len(weights) > 1:
            self.weight, self.bias = torch.cat(weights), torch.cat(biases) if biases else None
            start = 0
            for linear in self.linears:
                stop = start + linear.out_features
                linear.weight = nn.Parameter(self.weight[start:stop], requires_grad=False)
                if self.bias is not None:
                    linear.bias = nn.Parameter(self.bias[start:stop], requires_grad=False)
                start = stop
        self._version = self.weight._version
        sizes = [len(weight) for weight in weights]
        self._looked_at = torch.tensor(
            [sum(sizes[:part]) for part in range(len(sizes))], device=self.weight.device
        )
        self._places = [linear.weight.data_ptr() for linear in self.linears]
        on_cpu = self.weight.device.type == "cpu"
        in_bf16 = on_cpu and self.weight.dtype is torch.bfloat16 and has_bf16_products()
        # Both at once and before anything else is computed, so that no gaps are left in the heap.
        self._laid_out = (_lay_out(self.weight), _lay_out(self.weight.T)) if in_bf16 else None
        self._seen = self._look() if in_bf16 else []

    def _look(self) -> list[list[float]]:
        """The first values of each layer's weight, by which one shows that was changed through `.data`."""
        first: list[list[float]] = self.weight[self._looked_at, :LOOKED_AT].tolist()
        return first

    def _follow(self) -> None:
        """Look whether the model was moved or given other weights."""
        own, known = [linear.weight for linear in self.linears], self.weight
        moved = [weight.data_ptr() for weight in own] != self._places or own[0].dtype is not known.dtype
        changed = self._laid_out is not None and self._look() != self._seen
        if moved or changed or known._version != self._version:
            self._join()

    def __call__(self, states: Tensor, *, add: Tensor | None = None) -> Tensor:
        """states [..., in] to [..., out], plus `add` [..., out]."""
        if self.inside(states):
            output: Tensor = _Product.apply(states, add, self)
            return output
        output = F.linear(states, self.weight, self.bias)
        return output if add is None else output + add

    def inside(self, states: Tensor) -> bool:
        """Whether oneDNN multiplies, and what follows the product is done inside it."""
        if torch.compiler.is_compiling():
            return False
        self._follow()
        # Under autocast the states alone may be in bf16.
        return self._laid_out is not None and states.dtype is torch.bfloat16

    def multiply(self, states: Tensor, *, add: Tensor | None = None, activation: str = "none") -> Tensor:
        """oneDNN's product, with no backward pass of its own."""
        assert self._laid_out is not None
        weight, _ = self._laid_out
        if add is None:
            output: Tensor = torch.ops.mkldnn._linear_pointwise(states, weight, self.bias, activation, [], "")
        else:
            output = torch.ops.mkldnn._linear_pointwise.binary(
                states, add.contiguous(), weight, self.bias, "add"
            )
        return output

    def multiply_back(self, gradient: Tensor) -> Tensor:
        """The gradient of the states, [..., in], from that of the product, [..., out]."""
        assert self._laid_out is not None
        _, weight = self._laid_out
        output: Tensor = torch.ops.mkldnn._linear_pointwise(gradient, weight, None, "none", [], "")
        return output


def _lay_out(weight: Tensor) -> Tensor:
    """A weight [out, in] as oneDNN's kernels want it."""
    laid_out: Tensor = torch.ops.mkldnn._reorder_linear_weight(weight.contiguous(), USUAL_ROWS)
    return laid_out


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, states: Tensor, add: Tensor | None, layer: FrozenLinear) -> Tensor:
        ctx.layer, ctx.adds = layer, add is not None
        return layer.multiply(states, add=add)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor | None, None]:
        return ctx.layer.multiply_back(gradient), gradient if ctx.adds else None, None


class _Rectified(torch.autograd.Function):
    """Two layers with a ReLU between them, which costs no pass over its values."""

    @staticmethod
    def forward(ctx: Any, states: Tensor, add: Tensor, first: FrozenLinear, second: FrozenLinear) -> Tensor:
        active = first.multiply(states, activation="relu")
        ctx.save_for_backward(active)
        ctx.layers = first, second
        return second.multiply(active, add=add)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None, None]:
        (active,) = ctx.saved_tensors
        first, second = ctx.layers
        inner = second.multiply_back(gradient)
        torch.ops.aten.threshold_backward.grad_input(inner, active, 0, grad_input=inner)
        return first.multiply_back(inner), gradient, None, None


def rectified(states: Tensor, first: FrozenLinear, second: FrozenLinear, *, add: Tensor) -> Tensor:
    """`second` of the ReLU of `first`, plus `add`; [..., width] to the same."""
    if first.inside(states) and second.inside(states):
        output: Tensor = _Rectified.apply(states, add, first, second)
        return output
    return second(F.relu(first(states)), add=add)
