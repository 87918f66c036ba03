"""DoRA (Liu et al. 2024, arXiv 2402.09353): direction and length of each row of a weight learn apart.

    y = m / |W + s B A| * (W + s B A) x + b     with a norm for each output row, and m starting as |W|

The norm is a constant in the backward pass (section 4.3). The changed weight is never made for it:
|w + s b A|^2 = |w|^2 + 2 s b (A w) + s^2 b A A^T b^T for a row w of W and the row b of B that goes with it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from prompttransfer.adaptations.bank import Bank
from prompttransfer.adaptations.method import Member
from prompttransfer.adaptations.methods.low_rank import Lora, LowRankMember, check_low_rank
from prompttransfer.adaptations.methods.maps import (
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
    randomised,
    times,
)
from prompttransfer.adaptations.random_prompts import scrambled

if TYPE_CHECKING:
    from prompttransfer.backbones.base import Backbone
    from tasks.task import Task


class DoraMember(MapMember):
    """A, B and the lengths m [out]."""

    names: ClassVar[Mapping[str, str]] = {**LowRankMember.names, "length": "lora_magnitude_vector"}

    def __init__(self, into: Table, out: Table, length: Table):
        super().__init__({"into": into, "out": out, "length": length})


class _Rows(AtMaps):
    """y + (g - 1) (y - b) + (g s B) A x, where g = m / |W + s B A|: 1 at the start, and bf16 is finest around 0."""

    def __init__(self, tables: Mapping[str, Table], *, alone: bool, biases: Mapping[str, Tensor | None]):
        super().__init__(tables, alone=alone)
        self.biases = biases

    def linear(self, site: str, states: Tensor, output: Tensor) -> Tensor:
        gain = beside(self.tables["gain"][site], output)
        bias = self.biases[site]
        plain = output if bias is None else output - bias
        update = times(times(states, self.tables["into"][site]), self.tables["out"][site])
        return torch.addcmul(output + update, plain, gain)


@dataclass(frozen=True)
class Dora(Lora):
    """LoRA with a length of its own for each output row."""

    name: ClassVar[str] = "dora"
    summary: ClassVar[str] = "LoRA that learns the rows' lengths apart (Liu et al. 2024)"

    def member(self, backbone: Backbone, task: Task, *, start: str, seed: int) -> Member:
        only_random(self.name, start, "A as Kaiming, B zero, the lengths those of the weight's rows")
        into, out = self.initial(backbone, seed)
        return DoraMember(into, out, {site: frozen(backbone, site)[0].float().norm(dim=1) for site in into})

    def random_like(
        self, given: Sequence[Mapping[str, Tensor]], draws: int, generator: torch.Generator
    ) -> list[dict[str, Tensor]]:
        """A and B random; the lengths, of which most is the weight's own, stay."""

        def change(name: str, tensor: Tensor) -> Tensor:
            return tensor if name.endswith(DoraMember.names["length"]) else scrambled(tensor, generator)

        return randomised(given, draws, generator, change)

    def restored(self, tensors: Mapping[str, Tensor]) -> Member:
        tables = parsed(tensors, DoraMember.names, self.name)
        check_low_rank(self.name, tables, self.rank)
        return DoraMember(**tables)

    def bank(self, backbone: Backbone, members: Sequence[Member]) -> Bank:
        parts = of_kind(members, DoraMember, self.name)
        into, out, length = (at_maps(parts, kind, backbone, cast=False) for kind in DoraMember.names)
        known = {site: frozen(backbone, site) for site in into}
        gain, scaled = {}, {}
        for site, m in length.items():
            g = m / self._norms(known[site][0], into[site].detach(), out[site].detach())
            scaled[site] = (self.scale * g[..., None] * out[site]).to(backbone.dtype)
            gain[site] = (g - 1).to(backbone.dtype)
        tables = {"into": {s: a.to(backbone.dtype) for s, a in into.items()}, "out": scaled, "gain": gain}
        biases = {site: bias for site, (_, bias) in known.items()}
        return MapBank(tables, lambda rows, alone: _Rows(rows, alone=alone, biases=biases))

    def _norms(self, weight: Tensor, into: Tensor, out: Tensor) -> Tensor:
        """|W + s B A| of each row of each member, [members, out], for A [members, rank, in] and B [members, out, rank]."""
        seen = F.linear(into.to(weight.dtype), weight).float()  # A W^T, [members, rank, out]
        square = torch.linalg.vector_norm(weight, dim=1, dtype=torch.float32) ** 2
        cross = (out.mT * seen).sum(1)
        own = (out @ (into @ into.mT) * out).sum(-1)
        return (square + 2 * self.scale * cross + self.scale**2 * own).clamp(min=1e-12).sqrt()

    def peft_config(self, *, family: str, tensors: Mapping[str, Tensor]) -> dict[str, Any]:
        return super().peft_config(family=family, tensors=tensors) | {"use_dora": True}
