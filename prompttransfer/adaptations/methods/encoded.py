"""Prompts made by an encoder while they train (P-tuning, Liu et al. 2021, arXiv 2103.10385).

P = encoder(E) with E [length, width] free: an LSTM over the positions and a perceptron behind it, or the perceptron
alone, as in the authors' code and peft's. The encoder runs outside the frozen pass, once a step and member; what is
kept is P, a plain prompt, and beside it the encoder for training on. With `free` the last so many vectors are trained as
they are, behind the encoded ones: prompt tuning and P-tuning together.

With `shared` the members of a bank that start from the same encoder at the same rate (tasks of one seed, as a rule) have
one between them, each with its own E: the encoder learns from the sum of their losses. Each keeps the encoder as it was when
the member itself was best, so an artifact is whole without the others.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor, nn

from prompttransfer.adaptations.method import Member
from prompttransfer.adaptations.methods.made import MadeMember, MadePrompt, join_alike
from tasks.errors import UserError, unknown

if TYPE_CHECKING:
    from prompttransfer.backbones.base import Backbone

ENCODERS = ("mlp", "lstm")


class EncodedMember(MadeMember):
    """E, the encoder, and vectors that it does not make."""

    def __init__(self, vectors: Tensor, kind: str, hidden: int, free: int = 0):
        super().__init__()
        width, encoded = int(vectors.shape[1]), len(vectors) - free
        self.embedding = nn.Parameter(vectors[:encoded].detach().clone())
        self.free = nn.Parameter(vectors[encoded:].detach().clone()) if free else None
        self.lstm: nn.LSTM | None = None
        if kind == "lstm":
            self.lstm = nn.LSTM(width, hidden, num_layers=2, bidirectional=True, batch_first=True)
            self.head = nn.Sequential(
                nn.Linear(2 * hidden, 2 * hidden), nn.ReLU(), nn.Linear(2 * hidden, width)
            )
        else:
            self.head = nn.Sequential(
                nn.Linear(width, hidden),
                nn.ReLU(),
                nn.Linear(hidden, hidden),
                nn.ReLU(),
                nn.Linear(hidden, width),
            )

    def vectors(self) -> Tensor:
        """[length, width], differentiable."""
        states = self.embedding
        if self.lstm is not None:
            states = self.lstm(states[None])[0][0]
        encoded: Tensor = self.head(states)
        return encoded if self.free is None else torch.cat([encoded, self.free])

    def share(self, other: EncodedMember) -> None:
        """Take the encoder of `other` for its own from here on."""
        self.lstm, self.head = other.lstm, other.head

    def shares_with(self, other: EncodedMember) -> bool:
        """Whether both make the same vectors of the same E, bit for bit."""
        own, theirs = ({n: t for n, t in m.state_dict().items() if "." in n} for m in (self, other))
        return own.keys() == theirs.keys() and all(map(torch.equal, own.values(), theirs.values()))


@dataclass(frozen=True)
class PTuning(MadePrompt):
    """`length` vectors made by an encoder; folded into a plain prompt when they are kept."""

    name: ClassVar[str] = "p-tuning"
    summary: ClassVar[str] = "vectors made by an LSTM or MLP while they train (Liu et al. 2021)"

    encoder: str = "lstm"
    hidden: int = 0
    """Width of the encoder's inner layers; 0 takes the backbone's width."""
    free: int = 0
    """How many of the `length` vectors, the last ones, no encoder makes."""
    shared: bool = False
    """Whether tasks that are trained together have one encoder."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.encoder not in ENCODERS:
            raise unknown("encoder of p-tuning", self.encoder, ENCODERS)
        if self.hidden < 0:
            raise UserError(
                f"p-tuning: hidden {self.hidden}: it must be at least 1, or 0 for the backbone's width"
            )
        if self.free < 0:
            raise UserError(f"p-tuning: free {self.free}: it must be 0 or more")

    @property
    def shares(self) -> bool:
        return self.shared

    def made(self, vectors: Tensor, backbone: Backbone) -> EncodedMember:
        if self.free >= self.length:  # only now is the length sure to be what was asked for
            raise UserError(
                f"p-tuning: free {self.free} of length {self.length}: give at most {self.length - 1}, since the encoder makes "
                f"the others; for free vectors alone use prompt"
            )
        return EncodedMember(vectors, self.encoder, self.hidden or backbone.width, self.free)

    def join(self, members: Sequence[Member], rates: Sequence[float]) -> None:
        if self.shared:
            join_alike([member for member in members if isinstance(member, EncodedMember)], rates)
