"""BitFit (Ben Zaken et al. 2021, arXiv 2106.10199): the biases alone, here those of all linear maps inside the layers.

Those of layer norms stay as they are: a bank changes a pass at its linear maps. Those of a masked LM's keys too: they add
the same to all scores of a query, which the softmax takes out again. What is kept is what each bias changes by, so that it
starts at zero and bf16 takes nothing from it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from prompttransfer.adaptations.bank import Bank
from prompttransfer.adaptations.method import Member, Method
from prompttransfer.adaptations.methods.maps import (
    AtMaps,
    MapBank,
    MapMember,
    Table,
    at_maps,
    beside,
    check_maps,
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
    """What the biases change by, [out] at each map."""

    names: ClassVar[Mapping[str, str]] = {"change": "bias_change"}

    def __init__(self, change: Table):
        super().__init__({"change": change})


class _Rows(AtMaps):
    def linear(self, site: str, states: Tensor, output: Tensor) -> Tensor:
        return output + beside(self.tables["change"][site], output)


@dataclass(frozen=True)
class BitFit(Method):
    """The biases of the linear maps; nothing to set."""

    name: ClassVar[str] = "bitfit"
    summary: ClassVar[str] = "the biases of the linear maps alone (Ben Zaken et al. 2021)"

    def member(self, backbone: Backbone, task: Task, *, start: str, seed: int) -> Member:
        only_random(self.name, start, "the backbone's own biases")
        idle = set(backbone.idle_biases)
        changes = {
            site: torch.zeros(high)
            for site, (_, high) in backbone.linear_maps.items()
            if frozen(backbone, site)[1] is not None and site not in idle
        }
        if not changes:
            raise UserError(
                f"bitfit trains biases, and the linear maps of {backbone.name} ({backbone.family}) have none: use ia3 or lora"
            )
        return BiasMember(changes)

    def check_fits(self, backbone: Backbone, tensors: Mapping[str, Tensor], name: str) -> None:
        table = parsed(tensors, BiasMember.names, self.name)["change"]
        check_maps(backbone, {site: (None, len(change)) for site, change in table.items()}, name, self.name)

    def restored(self, tensors: Mapping[str, Tensor]) -> Member:
        return BiasMember(**parsed(tensors, BiasMember.names, self.name))

    def bank(self, backbone: Backbone, members: Sequence[Member]) -> Bank:
        parts = of_kind(members, BiasMember, self.name)
        return MapBank({"change": at_maps(parts, "change", backbone)}, _Rows)

    def peft_config(self, *, family: str, tensors: Mapping[str, Tensor]) -> None:
        return None
