"""Adaptations that are compared, and what several indicators need of the model, computed once for all of them.

Nothing is loaded or run unasked: backbone and rows are functions, and passes over rows are kept for who asks next.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from prompttransfer.adaptations.adaptation import Adaptation
from prompttransfer.adaptations.running import common_encoding, groups_of, impossible
from prompttransfer.backbones.base import Backbone
from prompttransfer.backbones.layouts import USUAL, Encoding
from prompttransfer.transfers.gradients import fisher_diagonal, loss_gradients
from prompttransfer.transfers.observations import Observed, observe
from prompttransfer.transfers.zero_shot import Target
from tasks.errors import UserError


@dataclass(frozen=True)
class Compared:
    """Adaptations of one backbone, and ways to what some indicators ask for beside their tensors."""

    prompts: tuple[Adaptation, ...]
    types: Mapping[str, str] = field(default_factory=dict)
    """Task -> type."""
    backbone: Callable[[], Backbone] | None = None
    rows: Callable[[Sequence[str]], Sequence[Target]] | None = None
    """Names of tasks -> the tasks with a few labelled training rows each."""
    encoding: Encoding = USUAL
    _kept: dict[str, Any] = field(default_factory=dict, init=False, repr=False, compare=False)

    @property
    def names(self) -> list[str]:
        """The adaptations' names, which label both sides of a table."""
        return [prompt.name for prompt in self.prompts]

    @property
    def tasks(self) -> list[str]:
        """The tasks that the columns stand for, each once."""
        return list(dict.fromkeys(prompt.task for prompt in self.prompts))

    def model(self, indicator: str) -> Backbone:
        """The backbone, or a UserError that names the indicator that needs it."""
        if self.backbone is None:
            raise UserError(f"indicator {indicator} runs the backbone, and none is given: name it")
        return self.backbone()

    def targets(self, indicator: str) -> dict[str, Target]:
        """Task -> the task with its few rows, or a UserError that names the indicator that needs them."""
        if self.rows is None:
            raise UserError(f"indicator {indicator} needs labelled rows of every task, and none are given")
        if "targets" not in self._kept:
            self._kept["targets"] = {target.task.name: target for target in self.rows(self.tasks)}
        found: dict[str, Target] = self._kept["targets"]
        return found

    def observed(self, indicator: str, task: str) -> Observed:
        """All of them on the rows of one task, in one pass for all indicators that ask."""
        key = f"observed {task}"
        if key not in self._kept:
            target, backbone = self.targets(indicator)[task], self.model(indicator)
            encoding = common_encoding(backbone, self.prompts, self.encoding)
            self._kept[key] = observe(backbone, self.prompts, target.task, target.splits.train, encoding)
        found: Observed = self._kept[key]
        return found

    def gradients(self, indicator: str, task: str) -> dict[str, tuple[Tensor, Tensor]]:
        """Name -> gradient of one task's loss at an adaptation, and where it started; without those that have none."""
        key = f"gradients {task}"
        if key not in self._kept:
            self._kept[key] = _gradients(self, self.model(indicator), self.targets(indicator)[task])
        found: dict[str, tuple[Tensor, Tensor]] = self._kept[key]
        return found

    def fisher(self, indicator: str, adaptation: Adaptation) -> Tensor:
        """The Fisher information of one of them on rows of its own task."""
        key = f"fisher {adaptation.name}"
        if key not in self._kept:
            target, backbone = self.targets(indicator)[adaptation.task], self.model(indicator)
            encoding = common_encoding(backbone, self.prompts, self.encoding)
            self._kept[key] = fisher_diagonal(
                backbone, adaptation, target.task, target.splits.train, encoding
            )
        found: Tensor = self._kept[key]
        return found


def _gradients(group: Compared, backbone: Backbone, target: Target) -> dict[str, tuple[Tensor, Tensor]]:
    """`Compared.gradients` of one task."""
    encoding = common_encoding(backbone, group.prompts, group.encoding)
    if target.task.head:  # a head that starts fresh says nothing of where a source pulls
        return {}
    able = [p for p in group.prompts if p.initial is not None and not impossible(p, target.task)]
    found = {}
    for part in groups_of(able):
        method = part.adaptations[0].method
        points = [*(p.tensors for p in part.adaptations), *(p.initial for p in part.adaptations if p.initial)]
        gradients = loss_gradients(
            backbone, method, points, target.task, target.splits.train, encoding, reserved=part.reserved
        )
        here, start = gradients.chunk(2)
        for place, each in enumerate(part.adaptations):
            found[each.name] = here[place], start[place]
    return found
