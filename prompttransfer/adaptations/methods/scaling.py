"""IA3 (Liu et al. 2022, arXiv 2205.05638): keys, values and the inside of the feed-forward, each scaled by a vector.

Keys and values are what their maps give, so these are scaled behind the map; the inside of the feed-forward is what its
second map reads, so that is scaled in front of it. All vectors start at 1.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
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
    check_maps,
    of_kind,
    only_random,
    parsed,
    randomised,
    sites_of,
)
from prompttransfer.adaptations.random_prompts import scrambled
from tasks.errors import UserError

if TYPE_CHECKING:
    from prompttransfer.backbones.base import Backbone
    from tasks.task import Task


class ScalingMember(MapMember):
    """A vector [out] at keys and values, [in] at second maps (`wide`), of which peft keeps a row and the others a column."""

    names: ClassVar[Mapping[str, str]] = {"scale": "ia3_l"}

    def __init__(self, scale: Table, wide: Sequence[str]):
        super().__init__({"scale": scale})
        self.wide = tuple(wide)

    def tensors(self) -> dict[str, Tensor]:
        rows = {f"{PREFIX}{site}.ia3_l" for site in self.wide}
        return {name: t[None] if name in rows else t[:, None] for name, t in super().tensors().items()}


class _Rows(AtMaps):
    """The vectors less 1, around which bf16 is too coarse for what a step changes."""

    def __init__(self, tables: Mapping[str, Table], *, alone: bool, wide: Sequence[str]):
        super().__init__(tables, alone=alone)
        self.inputs = wide

    def before(self, site: str, states: Tensor) -> Tensor:
        return torch.addcmul(states, states, beside(self.tables["change"][site], states))

    def linear(self, site: str, states: Tensor, output: Tensor) -> Tensor:
        return output if site in self.inputs else self.before(site, output)


@dataclass(frozen=True)
class IA3(Method):
    """Scales of keys, values and the inside of the feed-forward; nothing to set."""

    name: ClassVar[str] = "ia3"
    summary: ClassVar[str] = "scales of keys, values and the inside of the feed-forward (Liu et al. 2022)"

    def member(self, backbone: Backbone, task: Task, *, start: str, seed: int) -> Member:
        only_random(self.name, start, "every scale 1")
        maps = backbone.linear_maps
        behind, before = backbone.maps_of("key", "value"), backbone.maps_of("narrow")
        if not behind or not before:
            raise UserError(
                f"ia3 knows no keys, values and second feed-forward maps in {backbone.name}, whose maps are "
                f"{', '.join(sorted({name.rpartition('.')[2] for name in maps}))}: use lora with targets"
            )
        sizes = {
            name: maps[name][0] if name in before else maps[name][1]
            for name in maps
            if name in {*behind, *before}
        }
        return ScalingMember({name: torch.ones(size) for name, size in sizes.items()}, before)

    def random_like(
        self, given: Sequence[Mapping[str, Tensor]], draws: int, generator: torch.Generator
    ) -> list[dict[str, Tensor]]:
        """What the scales differ from 1 by, in a random direction."""
        return randomised(
            given, draws, generator, lambda _, t: 1 + scrambled(t.flatten() - 1, generator).view_as(t)
        )

    def check_fits(self, backbone: Backbone, tensors: Mapping[str, Tensor], name: str) -> None:
        table = parsed(tensors, ScalingMember.names, self.name)["scale"]
        sizes = {site: (t.shape[1], None) if len(t) == 1 else (None, len(t)) for site, t in table.items()}
        check_maps(backbone, sizes, name, self.name)

    def restored(self, tensors: Mapping[str, Tensor]) -> Member:
        table = parsed(tensors, ScalingMember.names, self.name)["scale"]
        wrong = next((site for site, t in table.items() if t.ndim != 2 or 1 not in t.shape), None)
        if wrong is not None:
            raise UserError(
                f"{self.name}: ia3_l of {wrong} is {list(table[wrong].shape)}, not a row or a column"
            )
        wide = [site for site, tensor in table.items() if tensor.shape[0] == 1]
        return ScalingMember({site: tensor.flatten() for site, tensor in table.items()}, wide)

    def bank(self, backbone: Backbone, members: Sequence[Member]) -> Bank:
        parts = of_kind(members, ScalingMember, self.name)
        change = at_maps(parts, "scale", backbone, then=lambda scale: scale - 1)
        return MapBank({"change": change}, lambda rows, alone: _Rows(rows, alone=alone, wide=parts[0].wide))

    def peft_config(self, *, family: str, tensors: Mapping[str, Tensor]) -> dict[str, Any]:
        wide = {name for name, tensor in tensors.items() if tensor.shape[0] == 1}
        return {
            "peft_type": "IA3",
            "target_modules": list(sites_of(tensors, ScalingMember.names)),
            "feedforward_modules": list(
                sites_of({name: tensors[name] for name in wide}, ScalingMember.names)
            ),
            "fan_in_fan_out": False,
        }
