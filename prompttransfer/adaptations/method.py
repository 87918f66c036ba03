"""Methods: what is learned on a frozen backbone, and what it does to a pass.

A method is its settings (a frozen dataclass) with four verbs: make a `Member` to train, make one again from an
artifact's tensors, run members together as a `Bank`, and say what peft needs to read the artifact. One file a kind of
method in `methods/`, one entry in `METHODS`.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from prompttransfer.adaptations.bank import Bank
from prompttransfer.adaptations.random_prompts import rounds, scrambled
from prompttransfer.adaptations.starts import From, Mixture, Source, Start
from prompttransfer.backbones.layouts import USUAL, Encoding, Layout
from tasks.errors import UserError

if TYPE_CHECKING:
    from prompttransfer.backbones.base import Backbone
    from tasks.task import Example, Task


class Member(nn.Module, ABC):
    """What one job trains: its parameters are the trainable ones and nothing else.

    What else changes while it trains is in buffers; `state_dict()` is then all that a run needs to go on.
    """

    @abstractmethod
    def tensors(self) -> dict[str, Tensor]:
        """What the artifact holds, float32 on the CPU, under peft's names where peft has the method."""

    def encoder(self) -> dict[str, Tensor]:
        """What is needed to train on and is no part of the artifact proper; empty for most methods."""
        return {}

    def rates(self) -> dict[str, float]:
        """Name of a parameter -> what its learning rate is multiplied by; those that are not named have 1."""
        return {}

    def penalty(self) -> Tensor | None:
        """What is added to the loss of every step, a scalar; None for nothing."""
        return None

    def before_step(self, step: int, steps: int) -> None:
        """Called with the number of the step (from 1) and of all steps, when the gradients are there and before they are used."""

    def after_step(self, step: int, steps: int) -> None:
        """The same when they have been used."""

    searches: ClassVar[bool] = False
    """Whether `choose` is to be called."""

    def choose(self, trials: Callable[[int], Trial]) -> None:
        """Called behind every step of a member that searches, while its gradient is there: it may try other members on
        rows of its job, as many as it asks for, and become one of them."""

    def notes(self) -> dict[str, Any]:
        """What is kept of it in words beside its tensors, for JSON: the text that a hard prompt is."""
        return {}

    def spent(self) -> dict[str, Any]:
        """What it took beside the steps, for JSON, kept with the notes."""
        return {}


class Trial(Protocol):
    """Rows of a job on which members of its method can be tried, the same for all of them."""

    rows: int
    trained: int
    """Rows of the step that went before."""

    def losses(self, members: Sequence[Member]) -> Tensor:
        """The mean loss of each, [members] float32 on the CPU."""

    def gradients(self, members: Sequence[Member]) -> list[Tensor]:
        """Of that loss, for the one parameter of each, on the CPU."""


class Stored(NamedTuple):
    """What is written of an adaptation in place of its tensors, where that is smaller."""

    tensors: Mapping[str, Tensor]
    initial: Mapping[str, Tensor] | None
    """The same before the first step."""


@dataclass(frozen=True)
class Method(ABC):
    """The settings of a method; subclasses check themselves."""

    name: ClassVar[str]
    summary: ClassVar[str]
    """One line for lists and help."""
    called: ClassVar[str] = "adaptation"
    """What one of it is called in messages."""
    is_prompt: ClassVar[bool] = False
    """Whether what is kept is a soft prompt, vectors in front of the text."""
    compared_by: ClassVar[str] = ""
    """What of its tensors is compared beside those of another: `products` B A, `prefixes`; of prompts their vectors."""
    changes_states: ClassVar[bool] = True
    """Whether the backbone's states are others with it than without; not with what only reads them."""
    brings_head: ClassVar[bool] = False
    """Whether it reads a task's labels off the states itself, without words, so that it needs no head beside it."""
    trains: ClassVar[bool] = True
    """Whether it is trained at all; a run of one that is not takes no step."""
    searches: ClassVar[bool] = False
    """Whether its members search (`Member.choose`) instead of following an optimizer."""
    apart: ClassVar[bool] = False
    """Whether members run one after another, each with weights of its own, so that a bank may be of any shapes."""

    @property
    def has_gradients(self) -> bool:
        """Whether members have parameters that follow gradients, as many in each."""
        return self.trains and not self.searches and not self.apart

    @property
    def reserved(self) -> int:
        """Positions that it takes from the text, by standing in front of it, as far as its settings tell; its bank knows."""
        return 0

    @property
    def most_tokens(self) -> int | None:
        """Most tokens that a row may have, special ones counted; None for any number."""
        return None

    @property
    def shares(self) -> bool:
        """Whether what a member learns depends on who else is in its bank."""
        return False

    @property
    def shares_among_tasks(self) -> bool:
        """Whether members of different tasks share something, so that tasks may be trained together by it."""
        return self.shares

    @abstractmethod
    def member(self, backbone: Backbone, task: Task, *, start: str, seed: int) -> Member:
        """A member at a start that is no other adaptation's. The same seed gives the same member, bit for bit.

        Raises UserError for a backbone that lacks what the method changes, or a start that the method does not have.
        """

    def started(
        self,
        backbone: Backbone,
        task: Task,
        start: Start,
        *,
        seed: int,
        rows: Sequence[Example] = (),
        encoding: Encoding = USUAL,
    ) -> Member:
        """A member at any start, for methods that are made of them from the training `rows` of the task.

        Raises what `member` raises, and UserError for an adaptation that it cannot go on from.
        """
        if isinstance(start, Mixture):
            start = start.summed()
        if isinstance(start, From):
            member = self.continued(start, backbone)
            self.check_fits(backbone, start.tensors, str(start))
        else:
            member = self.member(backbone, task, start=str(start), seed=seed)
        return self.settled(member, backbone, task, start, rows)

    def settled(
        self, member: Member, backbone: Backbone, task: Task, start: Start, rows: Sequence[Example]
    ) -> Member:
        """A member that has its start (no mixture any more), for methods that make more of it for a task and its training rows."""
        return member

    def remarks(self, backbone: Backbone, tasks: Sequence[str] = ()) -> list[str]:
        """What a user should know before training on a backbone, for tasks of these names, a line each."""
        return []

    def join(self, members: Sequence[Member], rates: Sequence[float]) -> None:
        """Let members that will train together, each at its rate, share what they share; called before the first step."""
        return None

    def outline(self, backbone: Backbone, task: Task) -> Member:
        """A member of the shape that one has on a backbone without values (`outline_backbone`)."""
        return self.member(backbone, task, start="random", seed=0)

    def continued(self, start: From, backbone: Backbone) -> Member:
        """A member that goes on from another adaptation."""
        return self.restored(start.tensors)

    def check_fits(self, backbone: Backbone, tensors: Mapping[str, Tensor], name: str) -> None:
        """Raise UserError where an adaptation, called `name` in the message, is not for a model of this shape."""
        return None

    @abstractmethod
    def restored(self, tensors: Mapping[str, Tensor]) -> Member:
        """The member whose `tensors()` these are. Raises UserError for names or shapes that are not this method's."""

    @abstractmethod
    def bank(self, backbone: Backbone, members: Sequence[Member]) -> Bank:
        """`members` as a bank, differentiable in their parameters."""

    def check_complete(self) -> None:
        """Raise UserError where a setting is missing that only a member needs, before anything is read or loaded."""
        return None

    def check_place(self, place: Layout, family: str) -> None:
        """Raise UserError if it cannot stand where a layout puts it on a family of backbones."""
        return None

    def check_cell(self, tensors: Mapping[str, Tensor], task: Task) -> None:
        """Raise UserError if what a member has learned (its `tensors()`) cannot be used on `task` at all."""
        return None  # most methods take any task

    @abstractmethod
    def peft_config(self, *, family: str, tensors: Mapping[str, Tensor]) -> dict[str, Any] | None:
        """What stands in peft's adapter_config.json beside model and task type; None where peft has no such method."""

    def among(
        self, library: Mapping[str, Source], backbone: Backbone, task: Task, *, start: str, seed: int
    ) -> Member:
        """A member whose sources are the prompts of `library`, by name, for methods with `sources=library:COUNT`."""
        raise UserError(f"{self.name} takes no prompts of a library as its sources")

    def stored(self, encoder: Mapping[str, Tensor]) -> Stored | None:
        """What is written in place of the tensors of a member with this encoder; None for the tensors themselves."""
        return None

    def read(self, stored: Stored) -> tuple[dict[str, Tensor], dict[str, Tensor], dict[str, Tensor]]:
        """Tensors, initial tensors and encoder of what `stored` gave. Raises UserError for anything else."""
        raise UserError(f"{self.name} holds no {', '.join(sorted(stored.tensors)) or 'nothing'}")

    def random_like(
        self, given: Sequence[Mapping[str, Tensor]], draws: int, generator: torch.Generator
    ) -> list[dict[str, Tensor]]:
        """`draws` random adaptations, the control for what any of that size do (adaptations/random_prompts.py).

        They go round the given ones. Every vector (what lies along a tensor's last axis) has a random direction and the
        norm of one of the given tensor's own, in random order.
        """
        return [
            {name: scrambled(tensor, generator) for name, tensor in given[index].items()}
            for index in rounds(len(given), draws, generator)
        ]

    def settings(self) -> dict[str, Any]:
        """The settings, for JSON."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    def __str__(self) -> str:
        changed = ",".join(
            f"{field.name.replace('_', '-')}={spelled(getattr(self, field.name))}"
            for field in fields(self)
            if getattr(self, field.name) != field.default
        )
        return f"{self.name}:{changed}" if changed else self.name


def spelled(value: Any) -> str:
    """A setting as `parse_method` reads it."""
    if isinstance(value, tuple):
        return "+".join(map(str, value))
    if isinstance(value, bool):
        return str(value).lower()
    plain = str(value)
    ends = plain != plain.strip()
    quoted = isinstance(value, str) and (ends or any(sign in plain for sign in ',"\n') or not plain)
    return json.dumps(plain, ensure_ascii=False) if quoted else plain
