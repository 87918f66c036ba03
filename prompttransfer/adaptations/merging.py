"""Merging: what a member does at linear maps, folded into their weights, so that a pass costs what the bare model's does.

Whatever changes a linear map and nothing else leaves it affine: y = W' x + b'. So W' and b' are read off by letting the
member work on the unit vectors and on zero, and no method needs code of its own. Weights change in place, which both engines
see, and come back from a copy, bit for bit.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from prompttransfer.adaptations.bank import Bank
from prompttransfer.backbones.base import Backbone
from prompttransfer.backbones.interventions import Interventions, changed
from tasks.errors import UserError


@contextmanager
def merged(backbone: Backbone, bank: Bank) -> Iterator[Backbone]:
    """Inside the block the bare `backbone` gives what the one member of `bank` does to it.

    W' and b' are worked out in float32 and kept in the backbone's type. Raises UserError for a bank of several members, one
    that does more than change linear maps, or weights that several processes share.
    """
    own = _at_linear_maps_only(backbone, bank)
    modules = {site: backbone.model.get_submodule(site) for site in own.sites}
    before = [
        (module, name, value.detach().clone())
        for module in modules.values()
        for name, value in module.named_parameters(recurse=False)
    ]
    try:
        with torch.no_grad():
            for site, module in modules.items():
                _fold(own, site, module)
        yield backbone
    finally:
        with torch.no_grad():
            for module, name, value in before:
                module.get_parameter(name).copy_(value)


def _at_linear_maps_only(backbone: Backbone, bank: Bank) -> Interventions:
    """The one member of `bank`, bound to any number of rows."""
    if bank.members != 1:
        raise UserError(
            f"one adaptation can be merged at a time, not {bank.members}: merge them one after another, or compose them"
        )
    if backbone.sharded:
        raise UserError(
            "an adaptation cannot be merged into weights that processes share: leave --strategy fsdp out"
        )
    if backbone.quantised:
        raise UserError(
            "an adaptation cannot be merged into weights in nf4, which would round it away: load the backbone with "
            "--precision bf16 or fp32"
        )
    own = bank.rows(torch.zeros(1, dtype=torch.long, device=backbone.device))
    more = [name for name in ("reserved", "extra", "attentions", "outputs") if getattr(own, name, None)]
    if more or not own.sites:
        raise UserError(
            "only what changes linear maps can be merged into their weights (lora and its kin, ia3, bitfit): evaluate this "
            "adaptation as it is"
        )
    return own


def _fold(own: Interventions, site: str, module: Any) -> None:
    """Put W' and b' of one map in the place of W and b."""
    upright = isinstance(module, nn.Linear)  # GPT-2's maps keep their weight the other way round
    weight = (module.weight if upright else module.weight.T).float()
    bias = None if module.bias is None else module.bias.float()

    def product(states: Tensor, *, add: Tensor | None = None) -> Tensor:
        return F.linear(states, weight, bias)

    zero = weight.new_zeros(1, 1, weight.shape[1])
    shift = changed(product, site, zero, own)[0, 0]
    turned = changed(product, site, torch.eye(weight.shape[1], device=weight.device)[None], own)[0] - shift
    module.weight.copy_(turned.T if upright else turned)
    if module.bias is not None:
        module.bias.copy_(shift)
