"""Updates of low rank at linear maps (LoRA, Hu et al. 2021, arXiv 2106.09685): y = W x + b + s B A x.

A [rank, in] starts uniform as in the authors' code (Kaiming, a = sqrt 5), B [out, rank] at zero, so a member starts as
the bare model; s = alpha / rank, or alpha / sqrt(rank) where rank-stabilised (Kalajdzievski 2023, arXiv 2312.03732).
LoRA+ (Hayou et al. 2024, arXiv 2402.12354) is the same with a larger learning rate for B.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from prompttransfer.adaptations.bank import Bank, LowRankBank
from prompttransfer.adaptations.method import Member, Method
from prompttransfer.adaptations.methods.maps import (
    MapMember,
    Table,
    at_maps,
    check_maps,
    of_kind,
    only_random,
    parsed,
    sites_of,
)
from tasks.errors import UserError, unknown

if TYPE_CHECKING:
    from prompttransfer.backbones.base import Backbone
    from tasks.task import Task


class LowRankMember(MapMember):
    """A and B at each linear map."""

    names: ClassVar[Mapping[str, str]] = {"into": "lora_A.weight", "out": "lora_B.weight"}

    def __init__(self, into: Table, out: Table):
        super().__init__({"into": into, "out": out})


@dataclass(frozen=True)
class Lora(Method):
    """LoRA at the linear maps whose names end in one of `targets`; none given means queries and values."""

    name: ClassVar[str] = "lora"
    compared_by: ClassVar[str] = "products"
    summary: ClassVar[str] = "an update of low rank at linear maps (Hu et al. 2021)"

    rank: int = 8
    alpha: float = 16.0
    targets: tuple[str, ...] = ()
    stabilised: bool = False

    def __post_init__(self) -> None:
        if self.rank < 1:
            raise UserError(f"{self.name}: rank {self.rank}: it must be at least 1")
        if not 0 < self.alpha < 1e6:
            raise UserError(f"{self.name}: alpha {self.alpha}: it must be a number above 0, such as 16")

    @property
    def scale(self) -> float:
        """What B A x is multiplied by."""
        return float(self.alpha / (self.rank**0.5 if self.stabilised else self.rank))

    def member(self, backbone: Backbone, task: Task, *, start: str, seed: int) -> Member:
        only_random(self.name, start, "A as Kaiming, B zero")
        return self.made(*self.initial(backbone, seed))

    def made(self, into: Table, out: Table) -> MapMember:
        """The member with these A and B."""
        return LowRankMember(into, out)

    def initial(self, backbone: Backbone, seed: int) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """A and B of every map as they start."""
        generator = torch.Generator().manual_seed(seed)
        into: dict[str, Tensor] = {}
        out: dict[str, Tensor] = {}
        for site, (wide, high) in self.sites(backbone).items():
            into[site] = (torch.rand(self.rank, wide, generator=generator) * 2 - 1) / wide**0.5
            out[site] = torch.zeros(high, self.rank)
        return into, out

    def sites(self, backbone: Backbone) -> dict[str, tuple[int, int]]:
        """Full name -> (in, out) of the linear maps that this changes in a backbone."""
        found = matching(backbone.linear_maps, self.targets or usual_targets(backbone), backbone.name)
        check_rank(self.name, self.rank, found)
        return found

    def check_fits(self, backbone: Backbone, tensors: Mapping[str, Tensor], name: str) -> None:
        own = {
            key: tensor
            for key, tensor in tensors.items()
            if key.endswith(tuple(LowRankMember.names.values()))
        }
        tables = parsed(own, LowRankMember.names, self.name)
        check_maps(backbone, low_rank_sizes(tables), name, self.name)

    def restored(self, tensors: Mapping[str, Tensor]) -> Member:
        tables = parsed(tensors, LowRankMember.names, self.name)
        check_low_rank(self.name, tables, self.rank)
        return self.made(**tables)

    def bank(self, backbone: Backbone, members: Sequence[Member]) -> Bank:
        parts = of_kind(members, LowRankMember, self.name)
        return LowRankBank(
            at_maps(parts, "into", backbone),
            at_maps(parts, "out", backbone, then=lambda out: out * self.scale),
        )

    def peft_config(self, *, family: str, tensors: Mapping[str, Tensor]) -> dict[str, Any]:
        sites = sorted(sites_of(tensors, LowRankMember.names))
        return {
            "peft_type": "LORA",
            "r": self.rank,
            "lora_alpha": self.alpha,
            "lora_dropout": 0.0,
            "use_rslora": self.stabilised,
            "bias": "none",
            "fan_in_fan_out": turned(sites),
            "target_modules": sites,
        }


def turned(sites: Sequence[str]) -> bool:
    """Whether maps of these names keep their weight the other way round, as GPT-2's do."""
    return all(site.rpartition(".")[2].startswith("c_") for site in sites)


def usual_targets(backbone: Backbone) -> tuple[str, ...]:
    """Queries and values, Hu et al.'s choice and peft's, by the last names that their maps have in this backbone.

    Where one map makes queries, keys and values, it is that one. Raises UserError where there is neither.
    """
    sites = backbone.maps_of("query", "value") or backbone.maps_of("joint")
    if not sites:
        ends = sorted({name.rpartition(".")[2] for name in backbone.linear_maps})
        raise UserError(
            f"{backbone.name} has no maps of queries and values with a known name: name some with targets=, of {', '.join(ends)}"
        )
    return tuple(dict.fromkeys(name.rpartition(".")[2] for name in sites))


class LoraPlusMember(LowRankMember):
    """A LoRA whose B learns faster."""

    def __init__(self, into: Table, out: Table, ratio: float):
        super().__init__(into, out)
        self.ratio = ratio

    def rates(self) -> dict[str, float]:
        return {name: self.ratio for name, _ in self.named_parameters() if name.startswith("out.")}


@dataclass(frozen=True)
class LoraPlus(Lora):
    """LoRA with `ratio` times the learning rate for B."""

    name: ClassVar[str] = "lora-plus"
    summary: ClassVar[str] = "LoRA whose B learns at a higher rate than its A (Hayou et al. 2024)"

    ratio: float = 16.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.ratio < 1e6:
            raise UserError(f"{self.name}: ratio {self.ratio}: it must be a number above 0, such as 16")

    def made(self, into: Table, out: Table) -> MapMember:
        return LoraPlusMember(into, out, self.ratio)


def check_rank(method: str, rank: int, sites: Mapping[str, tuple[int, int]]) -> None:
    """Raise UserError for a rank above the size of one of the maps."""
    for site, (wide, high) in sites.items():
        if rank > min(wide, high):
            raise UserError(
                f"{method}: rank {rank} is above the size of {site} ([{high}, {wide}]): use a rank of at most "
                f"{min(wide, high)}"
            )


def low_rank_sizes(tables: Mapping[str, Table]) -> dict[str, tuple[int | None, int | None]]:
    """(in, out) of every map of A and B."""
    return {site: (a.shape[1], len(tables["out"][site])) for site, a in tables["into"].items()}


def check_low_rank(method: str, tables: Mapping[str, Table], rank: int) -> None:
    """Raise UserError unless A is [rank, in] and B [out, rank] at every map."""
    for site, a in tables["into"].items():
        b = tables["out"][site]
        if a.ndim != 2 or b.ndim != 2 or a.shape[0] != b.shape[1]:
            raise UserError(
                f"{method}: A {list(a.shape)} and B {list(b.shape)} of {site} are not [rank, in] and [out, rank]"
            )
        if a.shape[0] != rank:
            raise UserError(f"{method}: {site} has a rank of {a.shape[0]}, the settings say {rank}")


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
