"""VeRA (Kopiczko et al. 2023, arXiv 2310.11454): y = W x + b + diag(l_b) B diag(l_d) A x.

A [rank, in] and B [out, rank] are random, frozen and the same at all maps, cut to each map's shape; only the vectors l_b
[out] and l_d [rank] are learned. They are drawn as peft draws them from its `projection_prng_key`, and kept in the artifact
as peft does, because other versions of torch may draw otherwise.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from prompttransfer.adaptations.bank import Bank
from prompttransfer.adaptations.method import Member, Method
from prompttransfer.adaptations.methods.low_rank import matching, usual_targets
from prompttransfer.adaptations.methods.maps import (
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
    times,
)
from prompttransfer.adaptations.random_prompts import scrambled
from tasks.errors import UserError

if TYPE_CHECKING:
    from prompttransfer.backbones.base import Backbone
    from tasks.task import Task

SHARED = {"into": "base_model.vera_A", "out": "base_model.vera_B"}
"""The names of the shared matrices in an artifact."""


class VeraMember(MapMember):
    """The vectors of every map, and the shared matrices as buffers."""

    names: ClassVar[Mapping[str, str]] = {"before": "vera_lambda_d", "behind": "vera_lambda_b"}
    into: Tensor
    out: Tensor

    def __init__(self, before: Table, behind: Table, into: Tensor, out: Tensor):
        super().__init__({"before": before, "behind": behind})
        self.register_buffer("into", into.detach().float().clone())
        self.register_buffer("out", out.detach().float().clone())

    def tensors(self) -> dict[str, Tensor]:
        shared = {SHARED["into"]: self.into, SHARED["out"]: self.out}
        return super().tensors() | {name: value.detach().cpu().clone() for name, value in shared.items()}


class _Rows(AtMaps):
    """The vectors [batch, ...] of every row; the shared matrices, cut, for every map."""

    def __init__(self, tables: Mapping[str, Table], *, alone: bool, into: Tensor, out: Tensor):
        super().__init__(tables, alone=alone)
        self.into, self.out = into, out

    def linear(self, site: str, states: Tensor, output: Tensor) -> Tensor:
        before, behind = (self.tables[kind][site] for kind in ("before", "behind"))
        low = times(states, self.into[:, : states.shape[-1]])
        high = times(low * beside(before, low), self.out[: output.shape[-1]])
        return torch.addcmul(output, high, beside(behind, high))


@dataclass(frozen=True)
class Vera(Method):
    """Vectors around random matrices that all maps share; `projection` is the seed of these."""

    name: ClassVar[str] = "vera"
    summary: ClassVar[str] = "vectors around random matrices shared by all layers (Kopiczko et al. 2023)"

    rank: int = 256
    initial: float = 0.1
    targets: tuple[str, ...] = ()
    projection: int = 0

    def __post_init__(self) -> None:
        if self.rank < 1:
            raise UserError(f"{self.name}: rank {self.rank}: it must be at least 1")
        if not -1e6 < self.initial < 1e6 or self.initial == 0:
            raise UserError(
                f"{self.name}: initial {self.initial}: it must be a number other than 0, such as 0.1"
            )

    def member(self, backbone: Backbone, task: Task, *, start: str, seed: int) -> Member:
        only_random(self.name, start, f"l_d {self.initial}, l_b zero")
        sites = matching(backbone.linear_maps, self.targets or usual_targets(backbone), backbone.name)
        return VeraMember(
            {site: torch.full((self.rank,), self.initial) for site in sites},
            {site: torch.zeros(high) for site, (_, high) in sites.items()},
            *self._shared(max(wide for wide, _ in sites.values()), max(high for _, high in sites.values())),
        )

    def _shared(self, wide: int, high: int) -> tuple[Tensor, Tensor]:
        """A [rank, wide] and B [high, rank], uniform with a variance of 2 / columns, as peft draws them."""
        generator = torch.Generator().manual_seed(self.projection)
        into, out = torch.empty(self.rank, wide), torch.empty(high, self.rank)
        for matrix in (into, out):
            bound = (3**0.5) * (2**0.5) / matrix.shape[1] ** 0.5
            matrix.uniform_(-bound, bound, generator=generator)
        return into, out

    def random_like(
        self, given: Sequence[Mapping[str, Tensor]], draws: int, generator: torch.Generator
    ) -> list[dict[str, Tensor]]:
        """Random vectors around the same matrices."""

        def change(name: str, tensor: Tensor) -> Tensor:
            return tensor if name in SHARED.values() else scrambled(tensor, generator)

        return randomised(given, draws, generator, change)

    def check_fits(self, backbone: Backbone, tensors: Mapping[str, Tensor], name: str) -> None:
        own = {key: tensor for key, tensor in tensors.items() if key not in SHARED.values()}
        behind = parsed(own, VeraMember.names, self.name)["behind"]
        check_maps(backbone, {site: (None, len(vector)) for site, vector in behind.items()}, name, self.name)

    def restored(self, tensors: Mapping[str, Tensor]) -> Member:
        missing = [name for name in SHARED.values() if name not in tensors]
        if missing:
            raise UserError(
                f"{self.name} holds its shared matrices; {missing[0]} is missing (save_projection=True keeps it)"
            )
        own = {name: tensor for name, tensor in tensors.items() if name not in SHARED.values()}
        tables = parsed(own, VeraMember.names, self.name)
        into, out = (tensors[name] for name in SHARED.values())
        ranks = {len(into), out.shape[1], *(len(d) for d in tables["before"].values())}
        if ranks != {self.rank}:
            raise UserError(
                f"{self.name}: ranks {sorted(ranks)} in the tensors, the settings say {self.rank}"
            )
        return VeraMember(**tables, into=into, out=out)

    def bank(self, backbone: Backbone, members: Sequence[Member]) -> Bank:
        parts = of_kind(members, VeraMember, self.name)
        first = parts[0]
        if any(not (torch.equal(p.into, first.into) and torch.equal(p.out, first.out)) for p in parts[1:]):
            raise UserError(
                "members of vera with different random matrices cannot run together: evaluate them one after another"
            )
        into, out = (m.to(device=backbone.device, dtype=backbone.dtype) for m in (first.into, first.out))
        tables = {kind: at_maps(parts, kind, backbone) for kind in VeraMember.names}
        return MapBank(tables, lambda rows, alone: _Rows(rows, alone=alone, into=into, out=out))

    def peft_config(self, *, family: str, tensors: Mapping[str, Tensor]) -> dict[str, Any]:
        return {
            "peft_type": "VERA",
            "r": self.rank,
            "d_initial": self.initial,
            "projection_prng_key": self.projection,
            "save_projection": True,
            "vera_dropout": 0.0,
            "bias": "none",
            "fan_in_fan_out": False,
            "target_modules": list(sites_of(tensors, VeraMember.names)),
        }
