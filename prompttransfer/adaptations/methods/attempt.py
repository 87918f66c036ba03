"""ATTEMPT (Asai et al. 2022, arXiv 2205.11961, eq. 1 to 3): frozen source prompts mixed for every row, by attention.

x = max over a row's word embeddings, p_j = max over the vectors of prompt j (of the sources, and of the target's own);
h = LayerNorm(W_up SiLU(W_down x)), a = softmax_j(p_j h / temperature), and in front of the row stands P + sum_j a_j P_j.
P and the attention are trained. The paper's temperature, 2087, is e times T5-base's width; here it is that times the
deviation of the word embeddings, which differ in size from one model to another.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from prompttransfer.adaptations.adaptation import PROMPT_KEY
from prompttransfer.adaptations.initialisers import initial_vectors
from prompttransfer.adaptations.method import Member
from prompttransfer.adaptations.methods.made import join_alike
from prompttransfer.adaptations.methods.sourced import (
    Sourced,
    check_not_of_a_study,
    check_sources,
    counted,
    randomly_drawn,
)
from prompttransfer.adaptations.starts import From, Source, Start
from prompttransfer.backbones.interventions import Interventions, Vectors
from prompttransfer.backbones.rows import of_rows
from tasks.errors import UserError

if TYPE_CHECKING:
    from prompttransfer.backbones.base import Backbone
    from tasks.task import Task

ATTENTION = ("down", "up", "norm_scale", "norm_shift")
FROZEN = ("sources", "temperature")
PARTS = ("target", *ATTENTION, *FROZEN)


class MixingMember(Member):
    """The target's prompt [length, width], the attention, and the frozen sources [sources, length, width]."""

    def __init__(self, tensors: Mapping[str, Tensor], ratio: float, names: Sequence[str] = ()):
        super().__init__()
        self.ratio, self.names = ratio, tuple(names)
        for name in PARTS:
            value = tensors[name].detach().clone()
            if name in FROZEN:
                self.register_buffer(name, value)
            else:
                setattr(self, name, nn.Parameter(value))

    def tensors(self) -> dict[str, Tensor]:
        return {name: getattr(self, name).detach().cpu().clone() for name in PARTS}

    def rates(self) -> dict[str, float]:
        return dict.fromkeys(ATTENTION, self.ratio)

    def notes(self) -> dict[str, Any]:
        return {"sources": list(self.names)} if self.names else {}

    def share(self, other: MixingMember) -> None:
        """Take the attention of `other` for its own from here on."""
        for name in ATTENTION:
            setattr(self, name, getattr(other, name))

    def shares_with(self, other: MixingMember) -> bool:
        """Whether both attend alike, bit for bit."""
        return all(torch.equal(getattr(self, name), getattr(other, name)) for name in ATTENTION)


class MixingBank:
    """The parts of members side by side, [members, ...] each."""

    def __init__(self, parts: Mapping[str, Tensor]):
        self.parts = parts
        self.members, self.reserved = int(parts["target"].shape[0]), int(parts["target"].shape[1])

    def rows(self, owners: Tensor) -> Mixing:
        return Mixing(self, owners)


class Mixing(Interventions):
    """Every row with the mixture that its owner makes for it."""

    def __init__(self, bank: MixingBank, owners: Tensor):
        self.bank, self.owners = bank, owners
        self.reserved = bank.reserved

    def attention(self, words: Tensor, mask: Tensor) -> Tensor:
        """a [batch, sources + 1] of word embeddings [batch, time, width]; the last is that of the target's own prompt."""
        parts = self.bank.parts
        seen = words.float().masked_fill(mask[..., None] == 0, -math.inf).amax(dim=1)
        down, up, scale, shift = (of_rows(parts[name], self.owners) for name in ATTENTION)
        inner = F.silu(torch.bmm(down, seen[..., None]))
        asked = F.layer_norm(torch.bmm(up, inner).squeeze(-1), seen.shape[1:]) * scale + shift
        prompts = torch.cat([parts["sources"], parts["target"][:, None]], dim=1).amax(dim=2)
        scores = torch.bmm(of_rows(prompts, self.owners), asked[..., None]).squeeze(-1)
        return (scores / of_rows(parts["temperature"], self.owners)).softmax(dim=-1)

    def read(self, words: Tensor, mask: Tensor) -> tuple[Interventions, Tensor]:
        weights, sources = self.attention(words, mask), self.bank.parts["sources"]
        members, count = sources.shape[:2]
        # One product for all rows: each has its weights in the columns of its owner's sources, and zeros in the others.
        columns = torch.arange(count, device=words.device) + count * self.owners[:, None]
        spread = weights.new_zeros(len(weights), members * count).scatter(1, columns, weights[:, :-1])
        mixed = (spread @ sources.flatten(0, 1).flatten(1)).view(len(weights), *sources.shape[2:])
        own = of_rows(self.bank.parts["target"], self.owners)
        return Vectors(own * (1 + weights[:, -1, None, None]) + mixed), words

    def repeat(self, times: int) -> Interventions:
        return Mixing(self.bank, self.owners.repeat_interleave(times))


@dataclass(frozen=True)
class Attempt(Sourced):
    """`length` vectors, and to every row what attention over frozen source prompts adds to them."""

    name: ClassVar[str] = "attempt"
    summary: ClassVar[str] = "frozen source prompts mixed for every row by attention (Asai et al. 2022)"

    length: int = 100
    sources: str = ""
    """A folder of prompts, or `random:COUNT` for prompts that know nothing, the control; `library:COUNT` for those that a
    study's library gives to `among`."""
    hidden: int = 100
    """Size of the attention's inner layer."""
    temperature: float = 0.0
    """What scores are divided by; 0 takes e times the width times the deviation of the word embeddings."""
    shared: bool = False
    """Whether tasks that are trained together have one attention."""
    ratio: float = 0.1
    """The rate of the attention over that of the prompt."""

    def __post_init__(self) -> None:
        for name in ("length", "hidden"):
            if getattr(self, name) < 1:
                raise UserError(f"attempt: {name} {getattr(self, name)}: it must be at least 1")
        if not 0 <= self.temperature < 1e9:
            raise UserError(
                f"attempt: temperature {self.temperature:g}: a number above 0, or 0 for the usual"
            )
        if not 0 < self.ratio < 1e6:
            raise UserError(f"attempt: ratio {self.ratio:g}: it must be a number above 0, such as 0.1")
        check_sources(self.name, self.sources)

    @property
    def reserved(self) -> int:
        return self.length

    @property
    def shares(self) -> bool:
        return self.shared

    def brings_sources(self, start: Start) -> bool:
        return isinstance(start, From)

    def member(self, backbone: Backbone, task: Task, *, start: str, seed: int) -> Member:
        library = {each.name: each.vectors for each in self.library(backbone, task)}
        if not library:
            check_not_of_a_study(self.name, self.sources)
            library = randomly_drawn(counted(self.sources), backbone, task, self.length, seed)
        return self._mixing(library, backbone, task, start, seed)

    def among(
        self, library: Mapping[str, Source], backbone: Backbone, task: Task, *, start: str, seed: int
    ) -> MixingMember:
        sources = {name: prompt.vectors for name, prompt in library.items()}
        return self._mixing(sources, backbone, task, start, seed)

    def _mixing(
        self, library: Mapping[str, Tensor], backbone: Backbone, task: Task, start: str, seed: int
    ) -> MixingMember:
        """A member with the sources of `library`: name -> vectors [length, width]."""
        target = initial_vectors(start, backbone, task, length=self.length, seed=seed)
        spread = backbone.embedding_table()[list(backbone.ordinary_tokens)].float().std()
        generator = torch.Generator().manual_seed(seed)
        member = self._around(target, torch.stack([*library.values()]), float(spread), generator)
        member.names = tuple(library)
        return member

    def _around(
        self, target: Tensor, sources: Tensor, spread: float, generator: torch.Generator | None
    ) -> MixingMember:
        width = int(target.shape[1])
        down, up = torch.empty(self.hidden, width), torch.empty(width, self.hidden)
        for weight in (down, up):  # as those of nn.Linear
            weight.uniform_(-(weight.shape[1] ** -0.5), weight.shape[1] ** -0.5, generator=generator)
        temperature = torch.tensor([self.temperature or math.e * width * spread])
        norm = torch.ones(width), torch.zeros(width)
        return MixingMember(
            dict(zip(PARTS, (target, down, up, *norm, sources, temperature), strict=True)), self.ratio
        )

    def outline(self, backbone: Backbone, task: Task) -> Member:
        count = len(self.library(backbone, task)) or counted(self.sources)
        with torch.device(backbone.device):
            target, sources = (torch.empty(*some, self.length, backbone.width) for some in ((), (count,)))
            return self._around(target, sources, 1.0, None)

    def join(self, members: Sequence[Member], rates: Sequence[float]) -> None:
        if self.shared:
            join_alike([member for member in members if isinstance(member, MixingMember)], rates)

    def check_fits(self, backbone: Backbone, tensors: Mapping[str, Tensor], name: str) -> None:
        width = tensors["target"].shape[1]
        if width != backbone.width:
            raise UserError(
                f"{name!r} is of width {width}, {backbone.name} has {backbone.width}: it is of another model"
            )

    def restored(self, tensors: Mapping[str, Tensor]) -> Member:
        if tensors.keys() != set(PARTS):
            hint = "; use it as a source" if tensors.keys() == {PROMPT_KEY} else ""
            raise UserError(
                f"attempt holds {', '.join(PARTS)}, not {', '.join(sorted(tensors)) or 'nothing'}{hint}"
            )
        length, width = tensors["target"].shape
        wanted = {"sources": [len(tensors["sources"]), length, width], "down": [self.hidden, width]}
        for name, shape in wanted.items():
            if list(tensors[name].shape) != shape:
                raise UserError(f"attempt: {name} is {list(tensors[name].shape)}, not {shape}")
        return MixingMember(tensors, self.ratio)

    def bank(self, backbone: Backbone, members: Sequence[Member]) -> MixingBank:
        return MixingBank(
            {
                name: torch.stack([getattr(member, name).to(backbone.device) for member in members])
                for name in PARTS
            }
        )

    def random_like(
        self, given: Sequence[Mapping[str, Tensor]], draws: int, generator: torch.Generator
    ) -> list[dict[str, Tensor]]:
        """The scores keep their temperature."""
        found = super().random_like(given, draws, generator)
        return [{**drawn, "temperature": given[0]["temperature"].clone()} for drawn in found]

    def peft_config(self, *, family: str, tensors: Mapping[str, Tensor]) -> dict[str, Any] | None:
        return None
