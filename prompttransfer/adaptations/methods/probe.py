"""A linear probe: logits = W h + b over a task's labels, from the state that the answer is read from.

h is the last hidden state at the mask, or the decoder's first output. Nothing inside the model changes and label words
play no part, so a probe says what the frozen features hold: the lower row of a comparison. W and b start at zero.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from prompttransfer.adaptations.heads import BIAS, WEIGHT, logits, stacked
from prompttransfer.adaptations.method import Member, Method
from prompttransfer.backbones.interventions import Interventions
from prompttransfer.backbones.rows import of_rows
from tasks.errors import UserError

if TYPE_CHECKING:
    from prompttransfer.backbones.base import Backbone
    from tasks.task import Task


class ProbeMember(Member):
    """W [classes, width] and b [classes]."""

    def __init__(self, weight: Tensor, bias: Tensor):
        super().__init__()
        self.weight, self.bias = (nn.Parameter(part.detach().float().clone()) for part in (weight, bias))

    def tensors(self) -> dict[str, Tensor]:
        return {WEIGHT: self.weight.detach().cpu().clone(), BIAS: self.bias.detach().cpu().clone()}


class ProbeBank:
    """Probes, [members, classes, width] and [members, classes]; classes that a member lacks have a bias of -inf."""

    reserved = 0

    def __init__(self, weight: Tensor, bias: Tensor):
        self.weight, self.bias = weight, bias
        self.members = len(weight)

    def rows(self, owners: Tensor) -> Interventions:
        if self.members == 1:
            return _OneProbe(self.weight[0], self.bias[0])
        return _ProbeRows(of_rows(self.weight, owners), of_rows(self.bias, owners))


class _OneProbe(Interventions):
    """The probe of one member, for all rows."""

    has_head = True

    def __init__(self, weight: Tensor, bias: Tensor):
        self.weight, self.bias = weight, bias

    def head(self, state: Tensor) -> Tensor:
        return logits(state, self.weight, self.bias)


class _ProbeRows(_OneProbe):
    """The probe of every row."""

    def repeat(self, times: int) -> Interventions:
        return _ProbeRows(*(part.repeat_interleave(times, dim=0) for part in (self.weight, self.bias)))


@dataclass(frozen=True)
class Probe(Method):
    """Logistic regression on frozen features."""

    name: ClassVar[str] = "probe"
    summary: ClassVar[str] = "a linear classifier on the frozen state of the answer"
    called: ClassVar[str] = "probe"
    changes_states: ClassVar[bool] = False
    brings_head: ClassVar[bool] = True

    def member(self, backbone: Backbone, task: Task, *, start: str, seed: int) -> Member:
        if start != "random":
            raise UserError(f"probe starts at 'random' (which for it is zero), not {start!r}")
        if not task.labels:
            raise UserError(
                f"task {task.name!r} ({task.kind}) has no labels, which a probe tells apart: use another method"
            )
        classes = len(task.labels)
        return ProbeMember(torch.zeros(classes, backbone.state_width), torch.zeros(classes))

    def restored(self, tensors: Mapping[str, Tensor]) -> Member:
        if tensors.keys() != {WEIGHT, BIAS}:
            raise UserError(
                f"a probe holds {WEIGHT} and {BIAS}, not {', '.join(sorted(tensors)) or 'nothing'}"
            )
        weight, bias = tensors[WEIGHT], tensors[BIAS]
        if weight.ndim != 2 or bias.shape != weight.shape[:1]:
            raise UserError(f"a probe of shapes {list(weight.shape)} and {list(bias.shape)} is none")
        return ProbeMember(weight, bias)

    def check_fits(self, backbone: Backbone, tensors: Mapping[str, Tensor], name: str) -> None:
        width = tensors[WEIGHT].shape[1]
        if width != backbone.state_width:
            raise UserError(
                f"{name!r} reads states of width {width}, {backbone.name} has {backbone.state_width}: it is of another model"
            )

    def bank(self, backbone: Backbone, members: Sequence[Member]) -> ProbeBank:
        parts = [member for member in members if isinstance(member, ProbeMember)]
        for part in parts:
            self.check_fits(backbone, {WEIGHT: part.weight}, "a probe")
        return ProbeBank(*stacked([(part.weight, part.bias) for part in parts], backbone.device))

    def check_cell(self, tensors: Mapping[str, Tensor], task: Task) -> None:
        classes = len(tensors[BIAS])
        if task.generates or classes != len(task.labels):
            there = f"{len(task.labels)} labels" if task.labels else "no labels"
            raise UserError(
                f"a probe of {classes} classes cannot answer task {task.name!r}, which has {there}: a probe transfers between "
                f"tasks with as many labels"
            )

    def peft_config(self, *, family: str, tensors: Mapping[str, Tensor]) -> dict[str, Any] | None:
        return None
