"""AdaLoRA (Zhang et al. 2023, arXiv 2303.10512): ranks that move to the maps which need them.

The update is P diag(l) Q, scaled by alpha / rank as in the authors' code. A penalty keeps P and Q near orthogonal. Each
value's sensitivity |w g| and its spread are smoothed over steps (equations 8 to 11); a triplet's importance is that of its l
plus the means over its row of Q and its column of P (equation 7). After each step only the most important triplets of all
maps keep their l, as many as a budget says that falls from `rank` to `target` a map along a cubic (equation 12). What is
set to zero may come back while the budget falls.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from prompttransfer.adaptations.bank import Bank, LowRankBank
from prompttransfer.adaptations.method import Member, Method
from prompttransfer.adaptations.methods.low_rank import (
    check_low_rank,
    check_rank,
    low_rank_sizes,
    matching,
    turned,
    usual_targets,
)
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
from tasks.errors import UserError

if TYPE_CHECKING:
    from prompttransfer.backbones.base import Backbone
    from tasks.task import Task

START = 0.02
"""Standard deviation of P and Q at the start, the authors' and peft's."""


class AdaptiveMember(MapMember):
    """Q, P and l at each map, and in buffers the smoothed sensitivity and spread of each of their values."""

    names: ClassVar[Mapping[str, str]] = {"into": "lora_A", "out": "lora_B", "values": "lora_E"}

    def __init__(self, into: Table, out: Table, values: Table, settings: AdaLora):
        super().__init__({"into": into, "out": out, "values": values})
        self.settings = settings
        for name, parameter in list(self.named_parameters()):
            for what in ("sensitivity", "spread"):
                self.register_buffer(_buffer(what, name), torch.zeros_like(parameter))

    def penalty(self) -> Tensor:
        """How far P^T P and Q Q^T are from the identity, the mean over all matrices of the Frobenius norm."""
        products = [a @ a.mT for a in self.stacks("into")] + [b.mT @ b for b in self.stacks("out")]
        norms = [torch.linalg.matrix_norm(p - torch.eye(p.shape[-1], device=p.device)) for p in products]
        return self.settings.penalty * torch.cat(norms).mean()

    @torch.no_grad()
    def before_step(self, step: int, steps: int) -> None:
        keep = self.settings.smoothing
        for name, parameter in self.named_parameters():
            if parameter.grad is None:
                continue
            now = (parameter * parameter.grad).abs()
            mean = self.get_buffer(_buffer("sensitivity", name)).mul_(keep).add_(now, alpha=1 - keep)
            self.get_buffer(_buffer("spread", name)).mul_(keep).add_((now - mean).abs(), alpha=1 - keep)

    @torch.no_grad()
    def after_step(self, step: int, steps: int) -> None:
        settings, scores = self.settings, self._importance()
        maps = sum(map(len, self.groups))
        budget = settings.budget(step, steps, maps)
        if budget >= settings.rank * maps:
            return
        order = torch.cat([score.flatten() for score in scores]).argsort(descending=True, stable=True)
        kept = torch.zeros(len(order), dtype=torch.bool, device=order.device)
        kept[order[:budget]] = True
        for values, own in zip(self.stacks("values"), kept.split([s.numel() for s in scores]), strict=True):
            values.masked_fill_(~own.view_as(values), 0.0)

    def _importance(self) -> list[Tensor]:
        """Of every triplet, [maps, rank] a group."""

        def of(kind: str, number: int) -> Tensor:
            name = f"{kind}.{number}"
            return self.get_buffer(_buffer("sensitivity", name)) * self.get_buffer(_buffer("spread", name))

        return [
            of("values", number)[..., 0] + of("into", number).mean(-1) + of("out", number).mean(-2)
            for number in range(len(self.groups))
        ]


def _buffer(what: str, parameter: str) -> str:
    return f"{what}_{parameter.replace('.', '_')}"


@dataclass(frozen=True)
class AdaLora(Method):
    """P diag(l) Q at linear maps, with a budget of triplets that falls from `rank` to `target` a map.

    The first `warmup` and the last `final` share of the steps keep the budget as it is; penalty and smoothing are the
    paper's.
    """

    name: ClassVar[str] = "adalora"
    compared_by: ClassVar[str] = "products"
    summary: ClassVar[str] = "LoRA whose ranks move to the maps that need them (Zhang et al. 2023)"

    rank: int = 12
    target: int = 8
    alpha: float = 16.0
    targets: tuple[str, ...] = ()
    warmup: float = 0.1
    final: float = 0.5
    penalty: float = 0.5
    smoothing: float = 0.85

    def __post_init__(self) -> None:
        if not 1 <= self.target <= self.rank:
            raise UserError(
                f"{self.name}: target {self.target} of rank {self.rank}: the target is at least 1 and at most the rank"
            )
        if not 0 < self.alpha < 1e6:
            raise UserError(f"{self.name}: alpha {self.alpha}: it must be a number above 0, such as 16")
        if not (self.warmup >= 0 and self.final >= 0 and self.warmup + self.final < 1):
            raise UserError(
                f"{self.name}: warmup {self.warmup} and final {self.final}: shares of the steps, together below 1"
            )
        if not 0 <= self.smoothing < 1:
            raise UserError(f"{self.name}: smoothing {self.smoothing}: it must be from 0 up to below 1")
        if not 0 <= self.penalty < 1e6:
            raise UserError(f"{self.name}: penalty {self.penalty}: it must be 0 or more, such as 0.5")

    @property
    def scale(self) -> float:
        """What P diag(l) Q x is multiplied by."""
        return self.alpha / self.rank

    def budget(self, step: int, steps: int, maps: int) -> int:
        """Triplets that keep their l after `step` of `steps`, in all maps together."""
        first, last = self.warmup * steps, (1 - self.final) * steps
        left = 1 - (min(max(step, first), last) - first) / (last - first)
        return self.target * maps + int((self.rank - self.target) * maps * left**3)

    def member(self, backbone: Backbone, task: Task, *, start: str, seed: int) -> Member:
        only_random(self.name, start, "P and Q small, l zero")
        sites = matching(backbone.linear_maps, self.targets or usual_targets(backbone), backbone.name)
        check_rank(self.name, self.rank, sites)
        generator = torch.Generator().manual_seed(seed)
        into: dict[str, Tensor] = {}
        out: dict[str, Tensor] = {}
        for site, (wide, high) in sites.items():
            into[site] = START * torch.randn(self.rank, wide, generator=generator)
            out[site] = START * torch.randn(high, self.rank, generator=generator)
        return AdaptiveMember(into, out, {site: torch.zeros(self.rank, 1) for site in sites}, self)

    def check_fits(self, backbone: Backbone, tensors: Mapping[str, Tensor], name: str) -> None:
        sizes = low_rank_sizes(parsed(tensors, AdaptiveMember.names, self.name))
        check_maps(backbone, sizes, name, self.name)

    def restored(self, tensors: Mapping[str, Tensor]) -> Member:
        tables = parsed(tensors, AdaptiveMember.names, self.name)
        check_low_rank(self.name, tables, self.rank)
        wrong = next((s for s, v in tables["values"].items() if list(v.shape) != [self.rank, 1]), None)
        if wrong is not None:
            raise UserError(
                f"{self.name}: lora_E of {wrong} is {list(tables['values'][wrong].shape)}, not [{self.rank}, 1]"
            )
        return AdaptiveMember(**tables, settings=self)

    def bank(self, backbone: Backbone, members: Sequence[Member]) -> Bank:
        parts = of_kind(members, AdaptiveMember, self.name)
        into, values = (at_maps(parts, kind, backbone, cast=False) for kind in ("into", "values"))
        return LowRankBank(
            {site: (a * values[site]).to(backbone.dtype) for site, a in into.items()},
            at_maps(parts, "out", backbone, then=lambda out: out * self.scale),
        )

    def peft_config(self, *, family: str, tensors: Mapping[str, Tensor]) -> dict[str, Any]:
        sites = list(sites_of(tensors, AdaptiveMember.names))
        return {
            "peft_type": "ADALORA",
            "init_r": self.rank,
            "target_r": self.target,
            "lora_alpha": self.alpha,
            "lora_dropout": 0.0,
            "orth_reg_weight": self.penalty,
            "beta1": self.smoothing,
            "beta2": self.smoothing,
            "total_step": 1,  # peft wants one to load; nothing is trained on there
            "bias": "none",
            "fan_in_fan_out": turned(sites),
            "target_modules": sites,
        }
