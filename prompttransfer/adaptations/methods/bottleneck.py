"""Adapters: a small network behind what sub-layers give, a(x) = x + W2 f(W1 x + b1) + b2, before the residual.

Houlsby et al. 2019 (arXiv 1902.00751): twice a layer, behind attention and feed-forward, f = GELU, a fixed bottleneck.
Pfeiffer et al. 2020 (arXiv 2005.00247): behind the feed-forward alone, f = ReLU, a bottleneck of width / 16. W1 and W2
start as a normal distribution of deviation 1e-3 cut at two, b at zero (Houlsby et al., section 3.6), so that a member
starts close to the bare model. Layer norms stay frozen here. An encoder-decoder has them behind self-attentions and
feed-forwards of both stacks, and none behind cross-attention.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from prompttransfer.adaptations.method import Member, Method
from prompttransfer.backbones.interventions import Interventions
from prompttransfer.backbones.rows import of_rows
from tasks.errors import UserError, unknown

if TYPE_CHECKING:
    from prompttransfer.backbones.base import Backbone
    from tasks.task import Task

Activation = Callable[[Tensor], Tensor]
ACTIVATIONS: dict[str, Activation] = {"gelu": F.gelu, "relu": F.relu, "tanh": torch.tanh, "silu": F.silu}
PARTS = ("down.weight", "down.bias", "up.weight", "up.bias")
SPREAD = 1e-3


@dataclass(frozen=True, eq=False)
class _Network:
    """W1 [..., inner, width], b1 [..., inner], W2 [..., width, inner], b2 [..., width]."""

    down: Tensor
    down_bias: Tensor
    up: Tensor
    up_bias: Tensor

    def each(self, change: Callable[[Tensor], Tensor]) -> _Network:
        return _Network(*(change(part) for part in (self.down, self.down_bias, self.up, self.up_bias)))


class AdapterMember(Member):
    """The networks behind all sites, [sites, ...] a part."""

    def __init__(self, names: Sequence[str], parts: Sequence[Tensor]):
        super().__init__()
        self.names = tuple(names)
        self.down, self.down_bias, self.up, self.up_bias = (
            nn.Parameter(part.detach().float().clone()) for part in parts
        )

    @property
    def parts(self) -> tuple[Tensor, ...]:
        """In the order of PARTS."""
        return self.down, self.down_bias, self.up, self.up_bias

    def tensors(self) -> dict[str, Tensor]:
        return {
            f"{site}.adapter_{part}": value.detach().cpu().clone()
            for part, values in zip(PARTS, self.parts, strict=True)
            for site, value in zip(self.names, values, strict=True)
        }


class AdapterBank:
    """Adapters of equal shape at the same sites: site -> network with [members, ...] in each part."""

    reserved = 0

    def __init__(self, networks: Mapping[str, _Network], activation: Activation):
        self.networks, self.activation = networks, activation
        self.members = len(next(iter(networks.values())).down)

    def rows(self, owners: Tensor) -> Interventions:
        if self.members == 1:
            single = {site: network.each(lambda part: part[0]) for site, network in self.networks.items()}
            return _OneAdapter(single, self.activation)
        own = {site: net.each(lambda part: of_rows(part, owners)) for site, net in self.networks.items()}
        return _AdapterRows(own, self.activation)


class _OneAdapter(Interventions):
    """The networks of one member, for all rows."""

    def __init__(self, networks: Mapping[str, _Network], activation: Activation):
        self.networks, self.activation = networks, activation
        self.outputs = networks.keys()

    def after(self, site: str, states: Tensor) -> Tensor:
        net = self.networks[site]
        inner = self.activation(F.linear(states, net.down, net.down_bias))
        return states + F.linear(inner, net.up, net.up_bias)


class _AdapterRows(_OneAdapter):
    """The networks of every row, [batch, ...] a part."""

    def after(self, site: str, states: Tensor) -> Tensor:
        if states.ndim == 2:  # one position a row
            return self.after(site, states[:, None])[:, 0]
        net = self.networks[site]
        inner = self.activation(torch.baddbmm(net.down_bias[:, None], states, net.down.mT))
        return torch.baddbmm(states + net.up_bias[:, None], inner, net.up.mT)

    def repeat(self, times: int) -> Interventions:
        repeated = {
            site: network.each(lambda part: part.repeat_interleave(times, dim=0))
            for site, network in self.networks.items()
        }
        return _AdapterRows(repeated, self.activation)


@dataclass(frozen=True)
class Adapters(Method):
    """What both kinds share; `kinds` are those of `Backbone.outputs` that they stand behind."""

    kinds: ClassVar[tuple[str, ...]]
    called: ClassVar[str] = "adapter"

    def inner(self, width: int) -> int:
        """Width of the bottleneck."""
        raise NotImplementedError

    @property
    def function(self) -> str:
        """Name of the activation."""
        raise NotImplementedError

    def member(self, backbone: Backbone, task: Task, *, start: str, seed: int) -> Member:
        if start != "random":
            raise UserError(f"{self.name} starts at 'random' (close to the bare model), not {start!r}")
        names, width = self.sites(backbone), backbone.state_width
        shape, generator = (len(names), self.inner(width), width), torch.Generator().manual_seed(seed)
        down, up = (
            nn.init.trunc_normal_(
                torch.empty(shape), std=SPREAD, a=-2 * SPREAD, b=2 * SPREAD, generator=generator
            )
            for _ in range(2)
        )
        return AdapterMember(names, (down, torch.zeros(shape[:2]), up.mT, torch.zeros(shape[0], width)))

    def sites(self, backbone: Backbone) -> list[str]:
        """Full names of the linear maps that adapters stand behind."""
        if not backbone.outputs:
            raise UserError(f"{self.name} is not for a {backbone.family} backbone such as {backbone.name}")
        return [name for kind in self.kinds for name in backbone.outputs[kind]]

    def restored(self, tensors: Mapping[str, Tensor]) -> Member:
        names = [name.removesuffix(f".adapter_{PARTS[0]}") for name in tensors if name.endswith(PARTS[0])]
        wanted = {f"{site}.adapter_{part}" for site in names for part in PARTS}
        if not names or wanted != set(tensors):
            strange = sorted(wanted ^ set(tensors))
            raise UserError(
                f"{strange[0] if strange else 'nothing'} is not what an adapter of {self.name} holds"
            )
        parts = [torch.stack([tensors[f"{site}.adapter_{part}"] for site in names]) for part in PARTS]
        if parts[0].shape[1] != self.inner(parts[0].shape[2]):
            raise UserError(
                f"the adapters have a bottleneck of {parts[0].shape[1]}, the settings say {self.inner(parts[0].shape[2])}"
            )
        return AdapterMember(names, parts)

    def bank(self, backbone: Backbone, members: Sequence[Member]) -> AdapterBank:
        parts = [member for member in members if isinstance(member, AdapterMember)]
        names = self.sites(backbone)
        if any(
            set(part.names) != set(names) or part.down.shape[-1] != backbone.state_width for part in parts
        ):
            raise UserError(
                f"the adapters stand elsewhere than in {backbone.name}: they are of another model"
            )
        stacked = [
            torch.stack([own.to(backbone.device) for own in several], dim=1).to(backbone.dtype).unbind(0)
            for several in zip(*(part.parts for part in parts), strict=True)
        ]
        networks = dict(zip(parts[0].names, map(_Network, *stacked), strict=True))
        return AdapterBank(networks, ACTIVATIONS[self.function])

    def peft_config(self, *, family: str, tensors: Mapping[str, Tensor]) -> dict[str, Any] | None:
        return None


def check_activation(method: str, name: str) -> None:
    """Raise UserError for an activation that is not one of ACTIVATIONS."""
    if name not in ACTIVATIONS:
        raise unknown(f"activation of {method}", name, ACTIVATIONS)


@dataclass(frozen=True)
class Houlsby(Adapters):
    """Behind every self-attention and feed-forward, a bottleneck of `bottleneck`."""

    name: ClassVar[str] = "houlsby"
    summary: ClassVar[str] = "small networks behind attention and feed-forward (Houlsby et al. 2019)"
    kinds: ClassVar[tuple[str, ...]] = ("attention", "feed-forward")

    bottleneck: int = 64
    activation: str = "gelu"

    def __post_init__(self) -> None:
        check_activation(self.name, self.activation)
        if self.bottleneck < 1:
            raise UserError(f"houlsby: bottleneck {self.bottleneck}: it must be at least 1")

    def inner(self, width: int) -> int:
        return self.bottleneck

    @property
    def function(self) -> str:
        return self.activation


@dataclass(frozen=True)
class Pfeiffer(Adapters):
    """Behind every feed-forward, a bottleneck of the width divided by `reduction`."""

    name: ClassVar[str] = "pfeiffer"
    summary: ClassVar[str] = "small networks behind the feed-forward (Pfeiffer et al. 2020)"
    kinds: ClassVar[tuple[str, ...]] = ("feed-forward",)

    reduction: int = 16
    activation: str = "relu"

    def __post_init__(self) -> None:
        check_activation(self.name, self.activation)
        if self.reduction < 1:
            raise UserError(f"pfeiffer: reduction {self.reduction}: it must be at least 1")

    def inner(self, width: int) -> int:
        return max(1, width // self.reduction)

    @property
    def function(self) -> str:
        return self.activation
