"""Prompts whose vectors are made of something else while they train.

What makes them runs outside the frozen pass, once a step and member; what is kept is the vectors, a plain prompt, and
beside them the member's own state for training on.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import torch
from torch import Tensor

from prompttransfer.adaptations.adaptation import PROMPT_KEY
from prompttransfer.adaptations.initialisers import initial_vectors
from prompttransfer.adaptations.method import Member
from prompttransfer.adaptations.methods.prompt import PromptTuning
from prompttransfer.adaptations.starts import From
from tasks.errors import UserError

if TYPE_CHECKING:
    from prompttransfer.backbones.base import Backbone
    from tasks.task import Task


class MadeMember(Member):
    """What makes the vectors of a prompt."""

    @abstractmethod
    def vectors(self) -> Tensor:
        """[length, width], differentiable."""

    def tensors(self) -> dict[str, Tensor]:
        return {PROMPT_KEY: self.vectors().detach().cpu().clone()}

    def encoder(self) -> dict[str, Tensor]:
        return {name: value.detach().cpu().clone() for name, value in self.state_dict().items()}


class Sharing(Protocol):
    """A member that may have something in common with others."""

    def shares_with(self, other: Any) -> bool:
        """Whether what could be shared is the same in both, bit for bit."""

    def share(self, other: Any) -> None:
        """Take what `other` has of it for its own from here on."""


Alike = TypeVar("Alike", bound=Sharing)


def join_alike(members: Sequence[Alike], rates: Sequence[float]) -> None:
    """Let members share what is the same in them, where they also learn at one rate."""
    first: list[tuple[Alike, float]] = []
    for member, rate in zip(members, rates, strict=True):
        same = (other for other, at in first if at == rate and member.shares_with(other))
        if (other := next(same, None)) is not None:
            member.share(other)
        else:
            first.append((member, rate))


@dataclass(frozen=True)
class MadePrompt(PromptTuning):
    """`length` vectors that are made while they train, and folded into a plain prompt when they are kept."""

    @abstractmethod
    def made(self, vectors: Tensor, backbone: Backbone) -> MadeMember:
        """A member around `vectors` [length, width]; its other values are drawn from torch's global generator."""

    def member(self, backbone: Backbone, task: Task, *, start: str, seed: int) -> Member:
        vectors = initial_vectors(start, backbone, task, length=self.length, seed=seed)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)  # modules of torch take no generator
            return self.made(vectors, backbone)

    def outline(self, backbone: Backbone, task: Task) -> Member:
        with torch.device(backbone.device):
            return self.made(torch.empty(self.length, backbone.width), backbone)

    def continued(self, start: From, backbone: Backbone) -> Member:
        """The member whose state was kept; vectors alone say nothing of what made them."""
        with torch.random.fork_rng(devices=[]):
            member = self.made(torch.zeros(self.length, backbone.width), backbone)
        return taken_up(member, start, self.name)


def taken_up(member: MadeMember, start: From, method: str) -> MadeMember:
    """`member` in the state that a start holds. Raises UserError where that is of another method or other settings."""
    try:
        member.load_state_dict(dict(start.encoder))
    except RuntimeError:
        raise UserError(
            f"{method} goes on from an adaptation of {method} with the same settings and its encoder, which "
            f"{start} is not: train on with --method prompt, whose vectors it is"
        ) from None
    return member
