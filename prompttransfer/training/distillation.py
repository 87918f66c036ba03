"""Distillation: a member learns from the right answers, and from what a frozen teacher answers to the same rows.

    loss of a row = cross entropy + weight * distance(student, teacher)

The teacher is an adaptation of the same backbone and task. The distance is of the scores of the label words (log-probabilities
over them, which are their logits but for one number a row), of the states that the answers are read from (the last layer's, at
the answer slot), or the sum of both. PANDA (Zhong et al. 2022, arXiv 2208.10160) and MPT (Wang et al. 2023, arXiv 2303.02861,
eq. 3 and 4) are settings of it. Members of one bank have a teacher and a weight each, or none, which then costs them nothing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor
from torch.nn import functional as F

from prompttransfer.adaptations.adaptation import Adaptation
from prompttransfer.adaptations.method import Method
from prompttransfer.adaptations.running import bank_of, check_on, check_reads, impossible
from prompttransfer.backbones.answer_losses import answer_losses
from prompttransfer.backbones.base import Backbone
from prompttransfer.backbones.interventions import Interventions, Watched
from prompttransfer.backbones.layouts import Encoding
from prompttransfer.backbones.rows import Batch, Row, only
from tasks.errors import UserError, unknown
from tasks.task import Task

LOGITS, STATES, BOTH = "logits", "states", "both"
PARTS = (LOGITS, STATES, BOTH)


def squared_difference(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean over each row's label words of the squared difference of their scores, [batch]; scores [batch, classes]."""
    there = teacher.isfinite()
    apart = student.masked_fill(~there, 0.0) - teacher.masked_fill(~there, 0.0)
    return apart.square().sum(dim=-1) / there.sum(dim=-1)


def divergence(student: Tensor, teacher: Tensor, temperature: float = 1.0) -> Tensor:
    """T^2 KL(teacher || student) of softmax(scores / T), [batch]; scores [batch, classes], -inf where there is no word."""
    there = teacher.isfinite()
    own = F.log_softmax(student / temperature, dim=-1).masked_fill(~there, 0.0)
    others = F.log_softmax(teacher / temperature, dim=-1).masked_fill(~there, 0.0)
    shares = others.exp().masked_fill(~there, 0.0)
    return temperature**2 * (shares * (others - own)).sum(dim=-1)


DISTANCES = ("squared", "kl")


@dataclass(frozen=True)
class Distance:
    """How far a student is from its teacher on a row."""

    on: str = LOGITS
    """One of PARTS."""
    of_logits: str = "kl"
    """`squared`, or `kl`; states are always compared by the mean of their squared differences."""
    temperature: float = 1.0
    """That scores are divided by under `kl`."""

    def __post_init__(self) -> None:
        if self.on not in PARTS:
            raise unknown("part to distil", self.on, PARTS)
        if self.of_logits not in DISTANCES:
            raise unknown("distance to a teacher", self.of_logits, DISTANCES)
        if not 0 < self.temperature < math.inf:
            raise UserError(
                f"temperature {self.temperature:g} of a distillation: give a number above 0, such as 2"
            )

    def of_rows(self, student: Answered, teacher: Answered) -> Tensor:
        """[batch]"""
        parts = []
        if self.on != STATES and self.of_logits == "squared":
            parts.append(squared_difference(student.scores, teacher.scores))
        elif self.on != STATES:
            parts.append(divergence(student.scores, teacher.scores, self.temperature))
        if self.on != LOGITS:
            parts.append((student.states.float() - teacher.states.float()).square().mean(dim=-1))
        return torch.stack(parts).sum(dim=0)


@dataclass(frozen=True, eq=False)
class Answered:
    """What a bank answered to the rows of a batch."""

    scores: Tensor
    """Log-probabilities of the label words, [batch, classes]."""
    states: Tensor
    """What they were read from, [batch, width]."""

    def at(self, rows: Tensor) -> Answered:
        """Those of the rows with these numbers."""
        return Answered(self.scores[rows], self.states[rows])


def answered(backbone: Backbone, own: Interventions, batch: Batch) -> Answered:
    """What `own` answers to rows with label words; differentiable."""
    watched = Watched(own)
    scores = backbone.label_scores(cast(Interventions, watched), batch)
    return Answered(scores, watched.state)


@dataclass(frozen=True, eq=False)
class Teacher:
    """What a member is drawn to beside the right answers."""

    adaptation: Adaptation
    weight: float
    """Of the distance beside the cross entropy."""
    distance: Distance = Distance()

    def __post_init__(self) -> None:
        if not 0 <= self.weight < math.inf:
            raise UserError(
                f"weight {self.weight:g} of teacher {self.adaptation.name!r}: give a number of 0 or more"
            )

    def record(self) -> dict[str, Any]:
        """All that decides what is learned from it, for JSON."""
        return {
            "teacher": self.adaptation.name,
            "digest": self.adaptation.digest,
            "weight": self.weight,
            "on": self.distance.on,
            "distance": self.distance.of_logits,
            "temperature": self.distance.temperature,
        }


def check_learns(backbone: Backbone, method: Method) -> None:
    """Raise UserError where a method cannot learn from a teacher on a backbone."""
    if not method.trains or method.searches:
        raise UserError(
            f"{method.name} follows no gradient, so a teacher tells it nothing: leave --distil out"
        )
    if backbone.sharded:
        raise UserError("a teacher needs the whole backbone in each process: leave --strategy fsdp out")


def check_teacher(
    teacher: Teacher, backbone: Backbone, task: Task, rows: Sequence[Row], encoding: Encoding
) -> None:
    """Raise UserError where an adaptation cannot teach `task` on a backbone, whose `rows` stand as `encoding` says."""
    own = teacher.adaptation
    what = f"teacher {own.name!r} of task {task.name!r}"
    if own.task != task.name:
        raise UserError(f"{what} was trained on {own.task!r}: give one that was trained on {task.name!r}")
    if task.separator:
        raise UserError(
            f"{what}: a task of several labels a row has no one distribution to distil; leave it out"
        )
    if task.generates:
        raise UserError(f"{what}: a task whose answer is written has no label words to distil; leave it out")
    check_on(
        own,
        backbone,
        layout=encoding.layout,
        other_backbone=backbone.takes_any,
    )
    check_reads(own, backbone, encoding.template)
    own.method.check_fits(backbone, own.tensors, own.name)
    if reason := impossible(own, task):
        raise UserError(f"{what}: {reason}")
    reserved = own.length if own.has_vectors else own.method.reserved
    budget = backbone.text_budget(task, encoding, reserved=reserved)
    if (longest := max(row.size for row in rows)) > budget:
        raise UserError(
            f"{what} leaves {budget} positions for text, a row has {longest}: give --max-length {budget} or less"
        )


class Teaching:
    """The teachers of a bank, and what its rows cost with them."""

    def __init__(self, backbone: Backbone, teachers: Sequence[Teacher | None]):
        given = [teacher for teacher in teachers if teacher is not None]
        distances = {teacher.distance for teacher in given}
        if len(distances) > 1:
            raise UserError("members of one bank learn from their teachers by one distance: train them apart")
        (self.distance,) = distances
        self.backbone = backbone
        self.bank = bank_of(backbone, [teacher.adaptation for teacher in given])
        numbers = iter(range(len(given)))
        own = [-1 if teacher is None else next(numbers) for teacher in teachers]
        self.numbers = torch.tensor(own, device=backbone.device)
        """[members] of each the number of its teacher, -1 for none."""
        weights = [0.0 if teacher is None else teacher.weight for teacher in teachers]
        self.weights = torch.tensor(weights, device=backbone.device)

    def losses(self, own: Interventions, batch: Batch, owners: Tensor) -> Tensor:
        """The loss of each row, [batch]; `own` is bound to the rows, whose members are `owners` [batch]."""
        taught = (self.numbers[owners] >= 0).nonzero().flatten()
        if batch.labels is None or not len(taught):
            return self.backbone.loss(own, batch)
        student = answered(self.backbone, own, batch)
        losses = answer_losses(student.scores, batch)
        chosen = owners[taught]
        with torch.no_grad():
            bound = self.bank.rows(self.numbers[chosen])
            teacher = answered(self.backbone, bound, only(batch, taught))
        apart = self.distance.of_rows(student.at(taught), teacher)
        return losses.index_add(0, taught, self.weights[chosen] * apart)


def teaching_of(backbone: Backbone, teachers: Sequence[Teacher | None]) -> Teaching | None:
    """The teachers of a bank; None where no member has one."""
    return Teaching(backbone, teachers) if any(teachers) else None
