"""BitFit (Ben Zaken et al. 2021, arXiv 2106.10199): the biases alone, here those of all linear maps inside the layers.

Those of layer norms stay as they are: a bank changes a pass at its linear maps. What is kept are the biases themselves,
under the model's own names, so that `load_state_dict(..., strict=False)` puts them into the model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from torch import Tensor

from prompttransfer.adaptations.bank import Bank
from prompttransfer.adaptations.method import Member, Method
from prompttransfer.adaptations.methods.maps import (
    PREFIX,
    AtMaps,
    MapBank,
    MapMember,
    Table,
    at_maps,
    beside,
    frozen,
    of_kind,
    only_random,
    parsed,
)
from tasks.errors import UserError

if TYPE_CHECKING:
    from prompttransfer.backbones.base import Backbone
    from tasks.task import Task


class BiasMember(MapMember):
    """The biases, [out] at each map."""

    names: ClassVar[Mapping[str, str]] = {"bias": "bias"}

    def __init__(self, bias: Table):
        super().__init__({"bias": bias})

    def tensors(self) -> dict[str, Tensor]:
        return {name.removeprefix(PREFIX): tensor for name, tensor in super().tensors().items()}


class _Rows(AtMaps):
    """What each bias differs from the frozen one."""

    def linear(self, site: str, states: Tensor, output: Tensor) -> Tensor:
        return output + beside(self.tables["change"][site], output)


@dataclass(frozen=True)
class BitFit(Method):
    """The biases of the linear maps; nothing to set."""

    name: ClassVar[str] = "bitfit"
    summary: ClassVar[str] = "the biases of the linear maps alone (Ben Zaken et al. 2021)"

    def member(self, backbone: Backbone, task: Task, *, start: str, seed: int) -> Member:
        only_random(self.name, start, "the backbone's own biases")
        found = {site: frozen(backbone, site)[1] for site in backbone.linear_maps}
        biases = {site: bias for site, bias in found.items() if bias is not None}
        if not biases:
            raise UserError(
                f"bitfit trains biases, and the linear maps of {backbone.name} ({backbone.family}) have none: use ia3 or lora"
            )
        return BiasMember(biases)

    def restored(self, tensors: Mapping[str, Tensor]) -> Member:
        return BiasMember(parsed(tensors, BiasMember.names, self.name)["bias"])

    def bank(self, backbone: Backbone, members: Sequence[Member]) -> Bank:
        parts = of_kind(members, BiasMember, self.name)
        change = {}
        for site, bias in at_maps(parts, "bias", backbone, cast=False).items():
            known = frozen(backbone, site)[1]
            if known is None:
                raise UserError(
                    f"bitfit: {site} of {backbone.name} has no bias: use the backbone that it was trained on"
                )
            change[site] = (bias - known.float()).to(backbone.dtype)
        return MapBank({"change": change}, _Rows)

    def peft_config(self, *, family: str, tensors: Mapping[str, Tensor]) -> None:
        return None
