"""Updates of low rank at linear maps (LoRA, Hu et al. 2021, arXiv 2106.09685): y = W x + b + s B A x.

A [rank, in] starts uniform as in the authors' code (Kaiming, a = sqrt 5), B [out, rank] at zero, so a member starts as
the bare model; s = alpha / rank, or alpha / sqrt(rank) where rank-stabilised (Kalajdzievski 2023, arXiv 2312.03732).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from prompttransfer.adaptations.bank import LowRankBank
from prompttransfer.adaptations.method import Member, Method
from tasks.errors import UserError, unknown

if TYPE_CHECKING:
    from prompttransfer.backbones.base import Backbone
    from tasks.task import Task

USUAL_TARGETS: dict[str, tuple[tuple[str, ...], ...]] = {
    "masked-lm": (("query", "value"),),
    "t5": (("q", "v"),),
    "causal-lm": (("q_proj", "v_proj"), ("c_attn",), ("query_key_value",), ("qkv_proj",), ("Wqkv",)),
}
"""Queries and values, Hu et al.'s choice and peft's, under the names that modules of a family have: the first ones that a
backbone has. Where one map makes queries, keys and values, it is that one."""

_PREFIX = "base_model.model."


class LowRankMember(Member):
    """A and B at each linear map; maps of one shape lie in one tensor, [maps, rank, in] and [maps, out, rank]."""

    def __init__(self, into: Mapping[str, Tensor], out: Mapping[str, Tensor]):
        super().__init__()
        self.groups = _by_shape({site: (into[site].shape[1], out[site].shape[0]) for site in into})
        self.into = nn.ParameterList(
            [
                nn.Parameter(torch.stack([into[site].detach().float() for site in group]))
                for group in self.groups
            ]
        )
        self.out = nn.ParameterList(
            [
                nn.Parameter(torch.stack([out[site].detach().float() for site in group]))
                for group in self.groups
            ]
        )

    def tensors(self) -> dict[str, Tensor]:
        found = {}
        for group, into, out in zip(self.groups, self.into, self.out, strict=True):
            for site, a, b in zip(group, into, out, strict=True):
                found[f"{_PREFIX}{site}.lora_A.weight"] = a.detach().cpu().clone()
                found[f"{_PREFIX}{site}.lora_B.weight"] = b.detach().cpu().clone()
        return found


@dataclass(frozen=True)
class Lora(Method):
    """LoRA at the linear maps whose names end in one of `targets`; none given means queries and values."""

    name: ClassVar[str] = "lora"
    summary: ClassVar[str] = "an update of low rank at linear maps (Hu et al. 2021)"

    rank: int = 8
    alpha: float = 16.0
    targets: tuple[str, ...] = ()
    stabilised: bool = False

    def __post_init__(self) -> None:
        if self.rank < 1:
            raise UserError(f"lora: rank {self.rank}: it must be at least 1")
        if not 0 < self.alpha < 1e6:
            raise UserError(f"lora: alpha {self.alpha}: it must be a number above 0, such as 16")

    @property
    def scale(self) -> float:
        """What B A x is multiplied by."""
        return float(self.alpha / (self.rank**0.5 if self.stabilised else self.rank))

    def member(self, backbone: Backbone, task: Task, *, start: str, seed: int) -> Member:
        if start != "random":
            raise UserError(f"lora starts at 'random' (A as Kaiming, B zero), not {start!r}")
        generator = torch.Generator().manual_seed(seed)
        into: dict[str, Tensor] = {}
        out: dict[str, Tensor] = {}
        for site, (wide, high) in self.sites(backbone).items():
            if self.rank > min(wide, high):
                raise UserError(
                    f"lora: rank {self.rank} is above the size of {site} ([{high}, {wide}]): "
                    f"use a rank of at most {min(wide, high)}"
                )
            into[site] = (torch.rand(self.rank, wide, generator=generator) * 2 - 1) / wide**0.5
            out[site] = torch.zeros(high, self.rank)
        return LowRankMember(into, out)

    def sites(self, backbone: Backbone) -> dict[str, tuple[int, int]]:
        """Full name -> (in, out) of the linear maps that this changes in a backbone."""
        return matching(backbone.linear_maps, self.targets or _usual_targets(backbone), backbone.name)

    def check_fits(self, backbone: Backbone, tensors: Mapping[str, Tensor], name: str) -> None:
        for key, tensor in tensors.items():
            site, side = _site(key), int("lora_A" in key)
            shape = backbone.linear_maps.get(site)
            if shape is None or tensor.shape[side] != shape[1 - side]:
                there = "has none of that name" if shape is None else f"has one of [{shape[1]}, {shape[0]}]"
                raise UserError(
                    f"{name!r} changes the linear map {site}; {backbone.name} {there}: a LoRA runs on the model that it was "
                    f"trained on"
                )

    def restored(self, tensors: Mapping[str, Tensor]) -> Member:
        into: dict[str, Tensor] = {}
        out: dict[str, Tensor] = {}
        for name, tensor in tensors.items():
            site, _, kind = name.removeprefix(_PREFIX).partition(".lora_")
            side = {"A.weight": into, "B.weight": out}.get(kind)
            if side is None or tensor.ndim != 2:
                raise UserError(f"a tensor {name!r} of shape {list(tensor.shape)} is no part of a LoRA")
            side[site] = tensor
        if not into or into.keys() != out.keys():
            raise UserError("a LoRA holds lora_A and lora_B for every linear map; one of a pair is missing")
        wrong = [s for s in into if into[s].shape[0] != self.rank or out[s].shape[1] != self.rank]
        if wrong:
            raise UserError(
                f"{wrong[0]} has a rank of {into[wrong[0]].shape[0]}, the settings say {self.rank}"
            )
        return LowRankMember(into, out)

    def bank(self, backbone: Backbone, members: Sequence[Member]) -> LowRankBank:
        parts = [member for member in members if isinstance(member, LowRankMember)]
        if len(parts) != len(members) or any(part.groups != parts[0].groups for part in parts):
            raise UserError(
                "LoRAs at different linear maps cannot run together: evaluate them one after another"
            )
        into: dict[str, Tensor] = {}
        out: dict[str, Tensor] = {}
        for index, group in enumerate(parts[0].groups):
            a = torch.stack([part.into[index].to(backbone.device) for part in parts], dim=1)
            b = torch.stack([part.out[index].to(backbone.device) for part in parts], dim=1) * self.scale
            # Cast here, once for all rows and maps, so that each map's product starts at once.
            into |= dict(zip(group, a.to(backbone.dtype).unbind(0), strict=True))
            out |= dict(zip(group, b.to(backbone.dtype).unbind(0), strict=True))
        return LowRankBank(into, out)

    def peft_config(self, *, family: str, tensors: Mapping[str, Tensor]) -> dict[str, Any]:
        sites = sorted({_site(name) for name in tensors})
        return {
            "peft_type": "LORA",
            "r": self.rank,
            "lora_alpha": self.alpha,
            "lora_dropout": 0.0,
            "use_rslora": self.stabilised,
            "bias": "none",
            "fan_in_fan_out": all(
                site.rpartition(".")[2].startswith("c_") for site in sites
            ),  # GPT-2's Conv1D
            "target_modules": sites,
        }


def _usual_targets(backbone: Backbone) -> tuple[str, ...]:
    """The names in USUAL_TARGETS that this backbone has."""
    have = {name.rpartition(".")[2] for name in backbone.linear_maps}
    ways = USUAL_TARGETS[backbone.family]
    return next((names for names in ways if have.issuperset(names)), ways[0])


def _site(name: str) -> str:
    return name.removeprefix(_PREFIX).partition(".lora_")[0]


def _by_shape(shapes: Mapping[str, tuple[int, int]]) -> list[list[str]]:
    """The names of each shape, in the order in which the shapes come first."""
    groups: dict[tuple[int, int], list[str]] = {}
    for name, shape in shapes.items():
        groups.setdefault(shape, []).append(name)
    return list(groups.values())


def matching(
    maps: Mapping[str, tuple[int, int]], targets: Iterable[str], backbone: str
) -> dict[str, tuple[int, int]]:
    """Those of `maps` whose name is one of `targets` or ends in `.` and one of them (peft's rule).

    Raises UserError, with the names that there are, for a target that names none.
    """
    found: dict[str, tuple[int, int]] = {}
    for target in targets:
        here = {name: shape for name, shape in maps.items() if name == target or name.endswith(f".{target}")}
        if not here:
            raise unknown(f"linear map of {backbone}", target, {name.rpartition(".")[2] for name in maps})
        found |= here
    return {name: shape for name, shape in maps.items() if name in found}
