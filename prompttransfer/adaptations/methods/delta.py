"""Delta-LoRA (Zi et al. 2023, arXiv 2309.02411): LoRA that also carries its own changes into the weight.

From step K on, W_t+1 = W_t + lambda s (B_t+1 A_t+1 - B_t A_t). The sum telescopes: W_t = W_0 + lambda s (B_t A_t - B_K A_K),
so no weight ever has to change, and members of a bank keep sharing the frozen one:

    y = W_0 x + b + (1 + lambda) s (B A + C A_K) x     with C = - lambda / (1 + lambda) B_K

A and B get the gradient that they would have from s B A x alone, 1 / (1 + lambda) of that of this sum; x has that of the
whole. So it is kept as a LoRA of twice the rank.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from prompttransfer.adaptations.bank import Bank, LowRankBank
from prompttransfer.adaptations.method import Member
from prompttransfer.adaptations.methods.low_rank import Lora, LowRankMember, check_low_rank
from prompttransfer.adaptations.methods.maps import MapMember, Table, of_kind, parsed
from tasks.errors import UserError

if TYPE_CHECKING:
    from prompttransfer.backbones.base import Backbone


class DeltaMember(MapMember):
    """A and B, and as buffers A_K and C, which are zero until step K."""

    names: ClassVar[Mapping[str, str]] = LowRankMember.names
    frozen: ClassVar[Collection[str]] = ("old_into", "old_out")
    started: Tensor

    def __init__(self, into: Table, out: Table, old: tuple[Table, Table] | None, settings: DeltaLora):
        zeros = [{site: torch.zeros_like(t) for site, t in table.items()} for table in (into, out)]
        old_into, old_out = old or zeros
        super().__init__({"into": into, "out": out, "old_into": old_into, "old_out": old_out})
        self.settings = settings
        self.register_buffer("started", torch.tensor(old is not None))

    @torch.no_grad()
    def before_step(self, step: int, steps: int) -> None:
        """Step K has been taken when step K + 1 begins."""
        if self.started or step != self.settings.begin + 1:
            return
        share = self.settings.ratio / (1 + self.settings.ratio)
        for new, old in zip(self.stacks("into"), self.stacks("old_into"), strict=True):
            old.copy_(new)
        for new, old in zip(self.stacks("out"), self.stacks("old_out"), strict=True):
            old.copy_(-share * new)
        self.started.fill_(True)

    def products(self, number: int, *, double: bool) -> tuple[Tensor, Tensor]:
        """A and B of a group of maps with the scale in B; of twice the rank if `double`."""
        into, out = self.stacks("into")[number], self.stacks("out")[number]
        scale = self.settings.scale
        if not double:
            return into, out * scale
        if self.started:
            gain = 1 + self.settings.ratio
            into, out, scale = _Fraction.apply(into, 1 / gain), _Fraction.apply(out, 1 / gain), scale * gain
        old_into, old_out = self.stacks("old_into")[number], self.stacks("old_out")[number]
        return torch.cat([into, old_into], dim=1), torch.cat([out, old_out], dim=2) * scale

    def tensors(self) -> dict[str, Tensor]:
        found = LowRankMember(self.table("into"), self.table("out")).tensors()
        if not self.started:
            return found
        old = LowRankMember(self.table("old_into"), self.table("old_out")).tensors()
        return {
            name: torch.cat([t, old[name]], dim=1 if "lora_B" in name else 0) for name, t in found.items()
        }


class _Fraction(torch.autograd.Function):
    """A tensor as it is, whose gradient is multiplied."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor, share: float) -> Tensor:
        ctx.share = share
        return tensor.view_as(tensor)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient * ctx.share, None


@dataclass(frozen=True)
class DeltaLora(Lora):
    """LoRA whose changes also enter the weight, `ratio` (the paper's lambda) times, after step `begin` (its K)."""

    name: ClassVar[str] = "delta-lora"
    summary: ClassVar[str] = "LoRA that also carries its changes into the weight (Zi et al. 2023)"

    ratio: float = 2.0
    begin: int = 500

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.ratio < 1e6:
            raise UserError(f"{self.name}: ratio {self.ratio}: it must be a number above 0, such as 2")
        if self.begin < 0:
            raise UserError(f"{self.name}: begin {self.begin}: it must be a number of steps, 0 or more")

    def made(self, into: Table, out: Table) -> DeltaMember:
        return DeltaMember(into, out, None, self)

    def restored(self, tensors: Mapping[str, Tensor]) -> Member:
        tables = parsed(tensors, LowRankMember.names, self.name)
        into, out = tables["into"], tables["out"]
        if len(next(iter(into.values()))) != 2 * self.rank:
            check_low_rank(self.name, tables, self.rank)
            return self.made(into, out)
        check_low_rank(self.name, tables, 2 * self.rank)
        halves = [
            ({site: a[part] for site, a in into.items()}, {site: b[:, part] for site, b in out.items()})
            for part in (slice(self.rank), slice(self.rank, None))
        ]
        return DeltaMember(*halves[0], halves[1], self)

    def bank(self, backbone: Backbone, members: Sequence[Member]) -> Bank:
        parts = of_kind(members, DeltaMember, self.name)
        double = any(part.started for part in parts)
        into: dict[str, Tensor] = {}
        out: dict[str, Tensor] = {}
        for number, group in enumerate(parts[0].groups):
            pairs = [part.products(number, double=double) for part in parts]
            a, b = (torch.stack([pair[side].to(backbone.device) for pair in pairs], dim=1) for side in (0, 1))
            into |= zip(group, a.to(backbone.dtype).unbind(0), strict=True)
            out |= zip(group, b.to(backbone.dtype).unbind(0), strict=True)
        return LowRankBank(into, out)

    def peft_config(self, *, family: str, tensors: Mapping[str, Tensor]) -> dict[str, Any]:
        rank = next(len(tensor) for name, tensor in tensors.items() if "lora_A" in name)
        gain = 1 + self.ratio if rank == 2 * self.rank else 1.0
        config = super().peft_config(family=family, tensors=tensors)
        return config | {"r": rank, "lora_alpha": self.scale * gain * rank, "use_rslora": False}
