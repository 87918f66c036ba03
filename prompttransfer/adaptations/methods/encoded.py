"""Prompts made by an encoder while they train (P-tuning, Liu et al. 2021, arXiv 2103.10385).

P = encoder(E) with E [length, width] free: an LSTM over the positions and a perceptron behind it, or the perceptron
alone, as in the authors' code and peft's. The encoder runs outside the frozen pass, once a step and member; what is
kept is P, a plain prompt, and beside it the encoder for training on.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor, nn

from prompttransfer.adaptations.adaptation import PROMPT_KEY
from prompttransfer.adaptations.initialisers import initial_vectors
from prompttransfer.adaptations.method import Member
from prompttransfer.adaptations.methods.prompt import PromptTuning
from prompttransfer.adaptations.starts import From
from tasks.errors import UserError, unknown

if TYPE_CHECKING:
    from prompttransfer.backbones.base import Backbone
    from tasks.task import Task

ENCODERS = ("mlp", "lstm")


class EncodedMember(Member):
    """E and the encoder."""

    def __init__(self, vectors: Tensor, kind: str, hidden: int):
        super().__init__()
        width = int(vectors.shape[1])
        self.embedding = nn.Parameter(vectors.detach().clone())
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
        return encoded

    def tensors(self) -> dict[str, Tensor]:
        return {PROMPT_KEY: self.vectors().detach().cpu().clone()}

    def encoder(self) -> dict[str, Tensor]:
        return {name: value.detach().cpu().clone() for name, value in self.state_dict().items()}


@dataclass(frozen=True)
class PTuning(PromptTuning):
    """`length` vectors made by an encoder; folded into a plain prompt when they are kept."""

    name: ClassVar[str] = "p-tuning"
    summary: ClassVar[str] = "vectors made by an LSTM or MLP while they train (Liu et al. 2021)"

    encoder: str = "lstm"
    hidden: int = 0
    """Width of the encoder's inner layers; 0 takes the backbone's width."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.encoder not in ENCODERS:
            raise unknown("encoder of p-tuning", self.encoder, ENCODERS)
        if self.hidden < 0:
            raise UserError(
                f"p-tuning: hidden {self.hidden}: it must be at least 1, or 0 for the backbone's width"
            )

    def member(self, backbone: Backbone, task: Task, *, start: str, seed: int) -> Member:
        vectors = initial_vectors(start, backbone, task, length=self.length, seed=seed)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)  # nn.Linear and nn.LSTM take no generator
            return EncodedMember(vectors, self.encoder, self.hidden or backbone.width)

    def outline(self, backbone: Backbone, task: Task) -> Member:
        with torch.device(backbone.device):
            return EncodedMember(
                torch.empty(self.length, backbone.width), self.encoder, self.hidden or backbone.width
            )

    def continued(self, start: From, backbone: Backbone) -> Member:
        """The member whose encoder was kept; vectors alone say nothing of what made them."""
        try:
            member = EncodedMember(
                torch.zeros_like(start.encoder["embedding"]), self.encoder, self.hidden or backbone.width
            )
            member.load_state_dict(dict(start.encoder))
        except (KeyError, RuntimeError):
            raise UserError(
                f"p-tuning goes on from an adaptation of p-tuning with the same settings and its encoder, which {start} "
                f"is not: train on with --method prompt, whose vectors it is"
            ) from None
        return member
