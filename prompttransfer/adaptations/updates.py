"""Updates: what a LoRA-like adaptation adds to the weights of linear maps, as A and B, whatever method learned it.

Where an artifact is s B A it is that; elsewhere (DoRA, AdaLoRA, VeRA, Delta-LoRA) W' - W is read off the backbone as merging
does it and split by an SVD at its own rank, so nothing is lost but rounding. A DoRA's has full rank.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from prompttransfer.adaptations.composition import PRODUCTS, truncated
from prompttransfer.adaptations.merging import at_linear_maps_only, folded
from prompttransfer.adaptations.method import Method
from prompttransfer.adaptations.methods.low_rank import Lora, LowRankMember
from prompttransfer.adaptations.methods.maps import PREFIX, frozen, parsed
from prompttransfer.backbones.base import Backbone
from tasks.errors import UserError

Update = tuple[Tensor, Tensor]
"""A [rank, in] and B [out, rank]: W + B A."""
Updates = Mapping[str, Update]
"""Full name of a linear map -> what is added to its weight."""


def updates_of(backbone: Backbone, method: Method, tensors: Mapping[str, Tensor]) -> dict[str, Update]:
    """The updates of an adaptation on its own `backbone`, float32 on the CPU.

    Raises UserError for a method that does more than add to weights.
    """
    if method.name in PRODUCTS:
        assert isinstance(method, Lora)
        tables = parsed(tensors, LowRankMember.names, method.name)
        return {site: (a, method.scale * tables["out"][site]) for site, a in tables["into"].items()}
    bank = method.bank(backbone, [method.restored(tensors)])
    own = at_linear_maps_only(backbone, bank)
    found = {}
    for site in own.sites:
        module = backbone.model.get_submodule(site)
        weight, bias = folded(own, site, module)
        if bias is not None and not torch.equal(bias, module.bias.float()):
            raise UserError(
                f"{method.name} changes more than weights ({site} has another bias): give a LoRA or one of its kin"
            )
        found[site] = _split((weight - frozen(backbone, site)[0].float()).cpu(), float(weight.norm()))
    return found


def _split(product: Tensor, size: float) -> Update:
    """A and B of an update that came out of a difference of weights of this size, at the rank that is above rounding."""
    values = torch.linalg.svdvals(product.double())
    least = torch.finfo(torch.float32).eps * size * max(product.shape) ** 0.5
    return truncated(product, max(1, int((values > least).sum())))


def lora_of(updates: Updates) -> tuple[Lora, dict[str, Tensor]]:
    """The LoRA that adds these updates, of the largest rank among them; smaller ones are filled up with zeros."""
    rank = max(len(a) for a, _ in updates.values())
    tensors = {}
    for site, (a, b) in updates.items():
        missing = rank - len(a)
        tensors[f"{PREFIX}{site}.lora_A.weight"] = torch.cat([a, a.new_zeros(missing, a.shape[1])])
        tensors[f"{PREFIX}{site}.lora_B.weight"] = torch.cat([b, b.new_zeros(len(b), missing)], dim=1)
    return Lora(rank=rank, alpha=float(rank)), tensors
