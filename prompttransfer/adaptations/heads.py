"""Heads: W h + b over a task's classes in place of label words, trained beside an adaptation of any method.

h is the state that label words would be read from: the last hidden state at the mask, at a decoder's last position, or the
decoder's first output of a T5, as a probe has it. Where classes are too many for words to stand for them, a task asks for
a head (`head: true`). It starts at zero, is trained at a rate of its own, and lies beside the tensors of the adaptation, not
among them: a soft prompt with a head is a soft prompt, whose vectors are compared and carried as those of any other, and
whose random control has random vectors and the same head.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from prompttransfer.adaptations.bank import Bank
from prompttransfer.adaptations.method import Member, Method
from prompttransfer.backbones.interventions import Head as Logits
from prompttransfer.backbones.interventions import Interventions
from prompttransfer.backbones.label_words import ONE, SEVERAL, form_of
from prompttransfer.backbones.rows import of_rows
from tasks.documents import shortened
from tasks.errors import UserError

if TYPE_CHECKING:
    from prompttransfer.backbones.base import Backbone
    from tasks.task import Task

WEIGHT, BIAS = "head.weight", "head.bias"


@dataclass(frozen=True)
class Classes:
    """What a head tells apart, in the order of its outputs, and how: one of them is right, or any number."""

    labels: tuple[str, ...]
    form: str = ONE
    """One of FORMS (backbones/label_words.py)."""

    @classmethod
    def of(cls, task: Task) -> Classes:
        """Those of a task."""
        return cls(task.labels, form_of(task))

    @property
    def told(self) -> str:
        """In few words: how many, which come first, and whether several may be right."""
        said = f"{len(self.labels)} classes ({shortened(', '.join(self.labels), 60)})"
        return f"{said} of which several may be right" if self.form == SEVERAL else said


@dataclass(frozen=True, eq=False)
class Head:
    """A trained head and the classes that it tells apart."""

    classes: Classes
    weight: Tensor
    """[classes, width] float32 on the CPU."""
    bias: Tensor
    """[classes]"""

    def __post_init__(self) -> None:
        classes = len(self.classes.labels)
        if self.weight.ndim != 2 or len(self.weight) != classes or self.bias.shape != (classes,):
            raise UserError(
                f"a head of {classes} classes with weights {list(self.weight.shape)} and {list(self.bias.shape)} is none"
            )

    @property
    def labels(self) -> tuple[str, ...]:
        """The classes, in the order of its outputs."""
        return self.classes.labels

    @property
    def told(self) -> str:
        """Its classes in few words."""
        return self.classes.told

    def tensors(self) -> dict[str, Tensor]:
        """What is written of it."""
        return {WEIGHT: self.weight, BIAS: self.bias}


def head_of(classes: Classes, tensors: Mapping[str, Tensor]) -> Head:
    """The head whose `tensors()` these are. Raises UserError for others."""
    if tensors.keys() != {WEIGHT, BIAS}:
        raise UserError(f"a head holds {WEIGHT} and {BIAS}, not {', '.join(sorted(tensors)) or 'nothing'}")
    return Head(classes, tensors[WEIGHT], tensors[BIAS])


def needs_head(method: Method, task: Task) -> bool:
    """Whether a head has to stand beside what the method trains, so that it can answer a task."""
    return task.head and not method.brings_head


def check_head(method: Method, task: Task) -> None:
    """Raise UserError where a method can have no head, which a task needs."""
    if needs_head(method, task) and (not method.trains or method.searches):
        raise UserError(
            f"task {task.name!r} is answered by a trained head, but {method.name} follows no gradient that could train it: "
            f"use another method, or give the task label words"
        )


def mismatch(method: Method, classes: Classes | None, task: Task) -> str:
    """Why an adaptation of a method cannot answer a task unchanged, whose head tells `classes` apart (None for no head); empty
    where it can.

    A task with label words is read by these, whoever answers it. No adaptation is named: many have the same reason.
    """
    needed = Classes.of(task)
    if not needs_head(method, task) or classes == needed:
        return ""
    there = "no head" if classes is None else f"a head of {classes.told}"
    return (
        f"the {method.called} has {there}, and task {task.name!r} is answered by a head of {needed.told}: train on it "
        f"from there (`transfer --tune`, or `train --init from:PATH`), where the head is fresh"
    )


class HeadedMember(Member):
    """A member of any method and the head beside it, which `share` of the member's rate trains."""

    def __init__(self, own: Member, classes: Classes, width: int, share: float):
        super().__init__()
        self.own, self.classes, self.share = own, classes, share
        self.weight = nn.Parameter(torch.zeros(len(classes.labels), width))
        self.bias = nn.Parameter(torch.zeros(len(classes.labels)))

    def head(self) -> Head:
        """The head as it is now."""
        parts = (part.detach().float().cpu().clone() for part in (self.weight, self.bias))
        return Head(self.classes, *parts)

    def tensors(self) -> dict[str, Tensor]:
        return self.own.tensors()

    def encoder(self) -> dict[str, Tensor]:
        return self.own.encoder()

    def rates(self) -> dict[str, float]:
        inner = {f"own.{name}": rate for name, rate in self.own.rates().items()}
        return {**inner, "weight": self.share, "bias": self.share}

    def penalty(self) -> Tensor | None:
        return self.own.penalty()

    def before_step(self, step: int, steps: int) -> None:
        self.own.before_step(step, steps)

    def after_step(self, step: int, steps: int) -> None:
        self.own.after_step(step, steps)

    def notes(self) -> dict[str, Any]:
        return self.own.notes()

    def spent(self) -> dict[str, Any]:
        return self.own.spent()


def head_beside(member: Member) -> Head | None:
    """The head of a member that has one."""
    return member.head() if isinstance(member, HeadedMember) else None


def bank_of_members(method: Method, backbone: Backbone, members: Sequence[Member]) -> Bank:
    """`members` as a bank, with the heads of those that have one; differentiable in their parameters."""
    bank = method.bank(backbone, [m.own if isinstance(m, HeadedMember) else m for m in members])
    heads = [(m.weight, m.bias) if isinstance(m, HeadedMember) else None for m in members]
    return with_heads(bank, heads, backbone)


def with_heads(bank: Bank, heads: Sequence[tuple[Tensor, Tensor] | None], backbone: Backbone) -> Bank:
    """A bank whose members have these heads, W [classes, width] and b [classes]; itself where none has any."""
    there = [head for head in heads if head is not None]
    if not there:
        return bank
    if other := next((w.shape[1] for w, _ in there if w.shape[1] != backbone.state_width), None):
        raise UserError(
            f"a head reads states of width {other}, {backbone.name} has {backbone.state_width}: it is of another model"
        )
    none = torch.zeros(0, backbone.state_width), torch.zeros(0)
    return HeadedBank(bank, *stacked([head or none for head in heads], backbone.device))


def stacked(heads: Sequence[tuple[Tensor, Tensor]], device: torch.device) -> tuple[Tensor, Tensor]:
    """Heads of any number of classes as [members, classes, width] and [members, classes]; classes that one lacks have a bias
    of -inf."""
    classes = max(len(bias) for _, bias in heads)
    weights, biases = [], []
    for weight, bias in heads:
        room = classes - len(bias)
        weights.append(F.pad(weight.to(device), (0, 0, 0, room)))
        biases.append(F.pad(bias.to(device), (0, room), value=float("-inf")))
    return torch.stack(weights), torch.stack(biases)


def logits(state: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """W h + b in float32, [batch, classes]: one head [classes, width] for all rows, or each row's own [batch, classes, width]."""
    if weight.ndim == 2:
        return F.linear(state.float(), weight, bias)
    return torch.baddbmm(bias[..., None], weight, state.float()[..., None])[..., 0]


class HeadedBank:
    """A bank whose members have heads beside what they do."""

    def __init__(self, bank: Bank, weight: Tensor, bias: Tensor):
        self.bank, self.weight, self.bias = bank, weight, bias
        self.members, self.reserved = bank.members, bank.reserved

    def rows(self, owners: Tensor) -> Interventions:
        return cast(Interventions, _Headed(self.bank.rows(owners), self.weight, self.bias, owners))


class _Headed:
    """Interventions with a head, which counts where a task has no label words, and do nothing else than their own."""

    def __init__(self, own: Interventions, weight: Tensor, bias: Tensor, owners: Tensor):
        self._own, self._head, self._owners = own, (weight, bias), owners

    def __getattr__(self, name: str) -> Any:
        return getattr(self._own, name)

    def read(self, words: Tensor, mask: Tensor) -> tuple[Interventions, Tensor]:
        own, words = self._own.read(words, mask)
        return cast(Interventions, _Headed(own, *self._head, self._owners)), words

    def repeat(self, times: int) -> Interventions:
        owners = self._owners.repeat_interleave(times)
        return cast(Interventions, _Headed(self._own.repeat(times), *self._head, owners))

    def without_head(self) -> Interventions:
        return self._own

    def head(self, state: Tensor) -> Tensor:
        return self._logits(state, self._owners)

    def head_of(self, rows: Tensor) -> Logits:
        return lambda state: self._logits(state, self._owners[rows])

    def _logits(self, state: Tensor, owners: Tensor) -> Tensor:
        weight, bias = self._head
        if len(weight) == 1:
            return logits(state, weight[0], bias[0])
        return logits(state, of_rows(weight, owners), of_rows(bias, owners))
