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

LOOKED_AT = 512
"""Values of each weight that are looked at for changes that torch does not count, such as a merged adapter of peft."""
USUAL_ROWS = 2048
"""Rows of a product that a weight is laid out for; others take the same layout."""


@cache
def has_bf16_products() -> bool:
    """Whether this torch and this processor have oneDNN's bf16 product."""
    return hasattr(torch.ops.mkldnn, "_linear_pointwise") and torch.ops.mkldnn._is_mkldnn_bf16_supported()


class FrozenLinear:
    """Frozen linear layers on the same input as one product; the modules of several then hold views of its weight.

    Values of their weights may change in place. Who gives them other weights makes this anew (`Backbone.check`).
    """

    def __init__(self, *linears: nn.Linear):
        weights = [linear.weight.detach() for linear in linears]
        biases = [linear.bias.detach() for linear in linears if linear.bias is not None]
        self.weight, self.bias = weights[0], biases[0] if biases else None
        if len(weights) > 1:
            self.weight, self.bias = torch.cat(weights), torch.cat(biases) if biases else None
            start = 0
            for linear in linears:
                stop = start + linear.out_features
                linear.weight = nn.Parameter(self.weight[start:stop], requires_grad=False)
                if self.bias is not None:
                    linear.bias = nn.Parameter(self.bias[start:stop], requires_grad=False)
                start = stop
        self._laid_out: tuple[Tensor, Tensor] | None = None
        if self.weight.device.type == "cpu" and self.weight.dtype is torch.bfloat16 and has_bf16_products():
            self._lay_out()

    def _lay_out(self) -> None:
        """Copy the weight for the forward and for the backward pass, and note what it was.

        A change through `.data` shows in no version, so some of its values, spread over it, are looked at.
        """
        # Both at once and before anything else is computed, so that no gaps are left in the heap.
        self._laid_out = _lay_out(self.weight), _lay_out(self.weight.T)
        self._version = self.weight._version
        # As they lie in memory, and an odd step, so that they are of all columns.
        flat = (self.weight if self.weight.is_contiguous() else self.weight.T).view(-1)
        self._some = flat[:: (len(flat) // LOOKED_AT) | 1]
        self._seen = self._some.clone()

    def _follow(self) -> None:
        """Copy the weight again where its values changed."""
        if self._version != self.weight._version or not torch.equal(self._some, self._seen):
            self._lay_out()

    def __call__(self, states: Tensor, *, add: Tensor | None = None) -> Tensor:
        """states [..., in] to [..., out], plus `add` [..., out]."""
        if self.inside(states):
            output: Tensor = _Product.apply(states, add, self)
            return output
        output = F.linear(states, self.weight, self.bias)
        return output if add is None else output + add

    def inside(self, states: Tensor) -> bool:
        """Whether oneDNN multiplies, and what follows the product is done inside it."""
        # Under autocast the states alone may be in bf16.
        if torch.compiler.is_compiling() or self._laid_out is None or states.dtype is not torch.bfloat16:
            return False
        self._follow()
        return True

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
