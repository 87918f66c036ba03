"""DePT (Shi and Lipani 2024, arXiv 2309.05173): a short prompt, and the word embeddings moved by position.

E' = E + alpha / sqrt(rank) A B, with A [positions, rank] and B [rank, width]: row i of A B is added to what stands at
position i of a row's tokens, special ones counted, the prompt not. It takes fewer positions than a prompt of as many numbers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from prompttransfer.adaptations.adaptation import PROMPT_KEY
from prompttransfer.adaptations.initialisers import initial_vectors
from prompttransfer.adaptations.method import Member, Method
from prompttransfer.adaptations.starts import From
from prompttransfer.backbones.interventions import Interventions, Vectors
from prompttransfer.backbones.rows import of_rows
from tasks.errors import UserError

if TYPE_CHECKING:
    from prompttransfer.backbones.base import Backbone
    from tasks.task import Task

PARTS = ("short_prompt", "position_a", "position_b")


class DecomposedMember(Member):
    """The short prompt [length, width], A and B."""

    def __init__(self, parts: Sequence[Tensor], ratio: float):
        super().__init__()
        self.ratio = ratio
        for name, value in zip(PARTS, parts, strict=True):
            setattr(self, name, nn.Parameter(value.detach().clone()))

    def tensors(self) -> dict[str, Tensor]:
        return {name: getattr(self, name).detach().cpu().clone() for name in PARTS}

    def rates(self) -> dict[str, float]:
        return {name: self.ratio for name in PARTS[1:]}


class DecomposedBank:
    """Prompts [members, length, width], A [members, positions, rank] and B [members, rank, width], the scale taken in."""

    def __init__(self, prompts: Tensor, into: Tensor, out: Tensor):
        self.prompts, self.into, self.out = prompts, into, out
        self.members, self.reserved = int(prompts.shape[0]), int(prompts.shape[1])

    def rows(self, owners: Tensor) -> Interventions:
        return _Decomposed(self, owners)


class _Decomposed(Interventions):
    """Every row with the prompt and the moves of its owner."""

    def __init__(self, bank: DecomposedBank, owners: Tensor):
        self.bank, self.owners = bank, owners
        self.reserved = bank.reserved

    def read(self, words: Tensor, mask: Tensor) -> tuple[Interventions, Tensor]:
        time = words.shape[1]
        if time > self.bank.into.shape[1]:
            raise UserError(
                f"dept takes {self.bank.into.shape[1]} tokens, but a row has {time}: give a shorter --max-length"
            )
        moves = torch.bmm(self.bank.into[:, :time], self.bank.out)
        own = moves if self.bank.members == 1 else of_rows(moves, self.owners)
        return Vectors(self.bank.prompts, self.owners), words + own.to(words.dtype)

    def repeat(self, times: int) -> Interventions:
        return _Decomposed(self.bank, self.owners.repeat_interleave(times))


@dataclass(frozen=True)
class DePT(Method):
    """`length` vectors in front of the text, and an update of `rank` of the embeddings at `positions` positions."""

    name: ClassVar[str] = "dept"
    summary: ClassVar[str] = "a short prompt, and word embeddings moved by position (Shi and Lipani 2024)"

    length: int = 40
    rank: int = 45
    positions: int = 256
    alpha: float = 8.0
    ratio: float = 0.1
    """The rate of A and B over that of the prompt."""

    def __post_init__(self) -> None:
        for name in ("length", "rank", "positions"):
            if getattr(self, name) < 1:
                raise UserError(f"dept: {name} {getattr(self, name)}: it must be at least 1")
        for name in ("alpha", "ratio"):
            if not 0 < getattr(self, name) < 1e6:
                raise UserError(f"dept: {name} {getattr(self, name):g}: it must be a number above 0")

    @property
    def reserved(self) -> int:
        return self.length

    @property
    def most_tokens(self) -> int:
        return self.positions

    def member(self, backbone: Backbone, task: Task, *, start: str, seed: int) -> Member:
        return self._around(initial_vectors(start, backbone, task, length=self.length, seed=seed), seed)

    def _around(self, vectors: Tensor, seed: int) -> Member:
        """A short prompt with words that stay where they are: A as Kaiming, B zero."""
        into = torch.empty(self.positions, self.rank)
        bound = self.rank**-0.5
        into.uniform_(-bound, bound, generator=torch.Generator().manual_seed(seed))
        return DecomposedMember([vectors, into, torch.zeros(self.rank, vectors.shape[1])], self.ratio)

    def outline(self, backbone: Backbone, task: Task) -> Member:
        with torch.device(backbone.device):
            sizes = (self.length, backbone.width), (self.positions, self.rank), (self.rank, backbone.width)
            return DecomposedMember([torch.empty(size) for size in sizes], self.ratio)

    def continued(self, start: From, backbone: Backbone) -> Member:
        """From its own kind, or from a plain prompt of its length, whose words stay where they are at first."""
        if start.tensors.keys() != {PROMPT_KEY}:
            return super().continued(start, backbone)
        vectors = start.tensors[PROMPT_KEY]
        if list(vectors.shape) != [self.length, backbone.width]:
            raise UserError(
                f"{start} is {list(vectors.shape)}, but {[self.length, backbone.width]} is needed on {backbone.name}: use "
                f"--length {len(vectors)}"
            )
        return self._around(vectors, 0)

    def check_fits(self, backbone: Backbone, tensors: Mapping[str, Tensor], name: str) -> None:
        width = tensors.get(PARTS[0], tensors.get(PROMPT_KEY, torch.empty(0, 0))).shape[1]
        if width != backbone.width:
            raise UserError(
                f"{name!r} is of width {width}, {backbone.name} has {backbone.width}: it is of another model"
            )

    def restored(self, tensors: Mapping[str, Tensor]) -> Member:
        if tensors.keys() != set(PARTS):
            raise UserError(f"dept holds {', '.join(PARTS)}, not {', '.join(sorted(tensors)) or 'nothing'}")
        width = tensors[PARTS[0]].shape[-1]
        wanted = [[self.length, width], [self.positions, self.rank], [self.rank, width]]
        found = [list(tensors[name].shape) for name in PARTS]
        if found != wanted:
            raise UserError(f"dept: {', '.join(PARTS)} are {found}, the settings say {wanted}")
        return DecomposedMember([tensors[name] for name in PARTS], self.ratio)

    def bank(self, backbone: Backbone, members: Sequence[Member]) -> DecomposedBank:
        prompts, into, out = (
            torch.stack([getattr(member, name).to(backbone.device) for member in members]) for name in PARTS
        )
        return DecomposedBank(prompts, into, out * (self.alpha / self.rank**0.5))

    def peft_config(self, *, family: str, tensors: Mapping[str, Tensor]) -> dict[str, Any] | None:
        return None
