"""Keys and values in front of those of every attention: P-tuning v2 and prefix tuning.

P-tuning v2 (Liu et al. 2021, arXiv 2110.07602) has them free. Prefix tuning (Li and Liang 2021, ACL 2021.acl-long.353)
makes them while they train, P = MLP(E) with E [length, width], Linear-Tanh-Linear; what is kept is P, and beside it E and
the MLP for training on. A T5 has three kinds of attention (encoder, decoder, cross), each with P and MLP of its own, as
in Li and Liang's code for BART.

The text stands as many positions further back as there are keys in front, as where transformers continues from a cache:
a masked LM's positions are shifted, and a T5 sees the keys at the distance of tokens that stood there. peft does the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from prompttransfer.adaptations.adaptation import PROMPT_KEY
from prompttransfer.adaptations.method import Member, Method
from prompttransfer.backbones.interventions import Interventions, KeysValues
from prompttransfer.backbones.rows import of_rows
from tasks.errors import UserError

if TYPE_CHECKING:
    from prompttransfer.adaptations.starts import From
    from prompttransfer.backbones.base import Backbone
    from tasks.task import Task

FREE_SPREAD = 1.0
"""Standard deviation of free keys and values at their start, as peft's (an `nn.Embedding`)."""


class PrefixMember(Member):
    """Kind of attention -> P [length, attentions x 2 x heads x head width]: of each attention its keys, then its values."""

    def __init__(self, prefixes: Mapping[str, Tensor]):
        super().__init__()
        self.prefixes = nn.ParameterDict(
            {kind: nn.Parameter(value.detach().float().clone()) for kind, value in prefixes.items()}
        )

    def made(self) -> dict[str, Tensor]:
        """P of each kind, differentiable."""
        return dict(self.prefixes.items())

    def tensors(self) -> dict[str, Tensor]:
        made = {kind: value.detach().cpu().clone() for kind, value in self.made().items()}
        # A model with one kind of attention is what peft knows, under the name that peft has for it.
        return {
            PROMPT_KEY if len(made) == 1 else f"{kind}.{PROMPT_KEY}": value for kind, value in made.items()
        }


class EncodedPrefixMember(PrefixMember):
    """E and the MLP of each kind."""

    def __init__(self, sizes: Mapping[str, int], length: int, width: int, hidden: int):
        super().__init__({})
        self.embeddings = nn.ParameterDict({kind: nn.Parameter(torch.randn(length, width)) for kind in sizes})
        self.networks = nn.ModuleDict(
            {
                kind: nn.Sequential(nn.Linear(width, hidden), nn.Tanh(), nn.Linear(hidden, size))
                for kind, size in sizes.items()
            }
        )

    def made(self) -> dict[str, Tensor]:
        return {kind: network(self.embeddings[kind]) for kind, network in self.networks.items()}

    def encoder(self) -> dict[str, Tensor]:
        return {name: value.detach().cpu().clone() for name, value in self.state_dict().items()}


class PrefixBank:
    """Prefixes of equal length: attention -> keys and values [members, heads, length, head width]."""

    def __init__(self, fronts: Mapping[str, KeysValues]):
        self.fronts = fronts
        self.members, _, self.reserved, _ = next(iter(fronts.values()))[0].shape

    def rows(self, owners: Tensor) -> Interventions:
        def of(part: Tensor) -> Tensor:
            if self.members == 1:
                return part.expand(len(owners), -1, -1, -1)
            return of_rows(part, owners)

        return _PrefixRows({name: (of(k), of(v)) for name, (k, v) in self.fronts.items()}, self.reserved)


class _PrefixRows(Interventions):
    """Keys and values [batch, heads, length, head width] of every row."""

    def __init__(self, fronts: Mapping[str, KeysValues], length: int):
        self.fronts, self.extra = fronts, length
        self.attentions = fronts.keys()

    def keys_values(self, attention: str) -> KeysValues:
        return self.fronts[attention]

    def repeat(self, times: int) -> Interventions:
        repeated = {
            name: (k.repeat_interleave(times, dim=0), v.repeat_interleave(times, dim=0))
            for name, (k, v) in self.fronts.items()
        }
        return _PrefixRows(repeated, self.extra)


@dataclass(frozen=True)
class PTuningV2(Method):
    """`length` free keys and values in front of those of every attention."""

    name: ClassVar[str] = "p-tuning-v2"
    called: ClassVar[str] = "prefix"
    compared_by: ClassVar[str] = "prefixes"
    summary: ClassVar[str] = "free keys and values in front of every attention's (Liu et al. 2021)"

    length: int = 20

    def __post_init__(self) -> None:
        if self.length < 1:
            raise UserError(f"{self.name}: length {self.length}: a prefix has at least 1 key and value")

    @property
    def reserved(self) -> int:
        return self.length

    def member(self, backbone: Backbone, task: Task, *, start: str, seed: int) -> Member:
        generator = torch.Generator().manual_seed(seed)
        return PrefixMember(
            {
                kind: FREE_SPREAD * torch.randn(self.length, size, generator=generator)
                for kind, size in self._started(backbone, start).items()
            }
        )

    def _started(self, backbone: Backbone, start: str) -> dict[str, int]:
        """`_sizes` for a member at its start."""
        if start != "random":
            raise UserError(f"{self.name} starts at 'random', not {start!r}")
        backbone.free_positions(self.length)  # or say so before anything is made
        return self._sizes(backbone)

    def _sizes(self, backbone: Backbone) -> dict[str, int]:
        """Kind of attention -> numbers that stand in front of all attentions of that kind, a position."""
        if not backbone.attentions:
            raise UserError(f"{self.name} is not for a {backbone.family} backbone such as {backbone.name}")
        one = 2 * backbone.shared_heads * backbone.head_width
        return {kind: len(names) * one for kind, names in backbone.attentions.items()}

    def restored(self, tensors: Mapping[str, Tensor]) -> Member:
        found = {_kind(name): value for name, value in tensors.items() if name.endswith(PROMPT_KEY)}
        if not found or len(found) != len(tensors):
            raise UserError(f"a prefix holds {PROMPT_KEY!r}, not {', '.join(sorted(tensors)) or 'nothing'}")
        wrong = [v for v in found.values() if v.ndim != 2 or v.shape[0] != self.length]
        if wrong:
            raise UserError(
                f"a prefix of shape {list(wrong[0].shape)}: the settings say a length of {self.length}"
            )
        return PrefixMember(found)

    def check_fits(self, backbone: Backbone, tensors: Mapping[str, Tensor], name: str) -> None:
        sizes = self._sizes(backbone)
        found = {_kind(key): list(tensor.shape) for key, tensor in tensors.items()}
        if found != {kind: [self.length, size] for kind, size in sizes.items()}:
            raise UserError(
                f"{name!r} has keys and values of shape {found} for the attentions of {backbone.name}, which need "
                f"{sizes} numbers at {self.length} positions: it is of another model"
            )

    def bank(self, backbone: Backbone, members: Sequence[Member]) -> PrefixBank:
        made = [member.made() for member in members if isinstance(member, PrefixMember)]
        for one in made:
            self.check_fits(backbone, one, f"a {self.name}")
        fronts: dict[str, KeysValues] = {}
        for kind, names in backbone.attentions.items():
            # [members, length, attentions, keys or values, heads, head width]
            stacked = torch.stack([one[kind].to(backbone.device) for one in made]).to(backbone.dtype)
            split = stacked.unflatten(2, (len(names), 2, backbone.shared_heads, backbone.head_width))
            for name, front in zip(names, split.permute(2, 3, 0, 4, 1, 5).contiguous(), strict=True):
                fronts[name] = (front[0], front[1])
        return PrefixBank(fronts)

    def peft_config(self, *, family: str, tensors: Mapping[str, Tensor]) -> dict[str, Any] | None:
        if tensors.keys() != {PROMPT_KEY}:
            return None  # peft gives a T5 prefixes in its decoder's self-attention alone
        return {
            "peft_type": "PREFIX_TUNING",
            "num_virtual_tokens": self.length,
            "num_transformer_submodules": 1,
            "prefix_projection": False,
        }


def _kind(name: str) -> str:
    """The kind of attention that a tensor is for, or that a kind is."""
    return name.removesuffix(PROMPT_KEY).removesuffix(".") or "encoder"


@dataclass(frozen=True)
class PrefixTuning(PTuningV2):
    """`length` keys and values a kind of attention, made by an MLP; folded into free ones when they are kept."""

    name: ClassVar[str] = "prefix"
    summary: ClassVar[str] = (
        "keys and values in front of every attention's, made by an MLP (Li and Liang 2021)"
    )

    hidden: int = 0
    """Width of the MLP's inner layer; 0 takes the backbone's width."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.hidden < 0:
            raise UserError(
                f"prefix: hidden {self.hidden}: it must be at least 1, or 0 for the backbone's width"
            )

    def member(self, backbone: Backbone, task: Task, *, start: str, seed: int) -> Member:
        sizes = self._started(backbone, start)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)  # nn.Linear takes no generator
            return EncodedPrefixMember(sizes, self.length, backbone.width, self.hidden or backbone.width)

    def continued(self, start: From, backbone: Backbone) -> Member:
        """The member whose MLP was kept; keys and values alone say nothing of what made them."""
        sizes = self._started(backbone, "random")
        member = EncodedPrefixMember(sizes, self.length, backbone.width, self.hidden or backbone.width)
        try:
            member.load_state_dict(dict(start.encoder))
        except RuntimeError:
            raise UserError(
                f"prefix goes on from an adaptation of prefix with the same settings and its MLP, which {start} is not: train "
                f"on with --method p-tuning-v2, whose keys and values it is"
            ) from None
        return member
