"""The Lightning module: a bank of members of one method on one frozen backbone, each with a life of its own.

Losses of different members never meet: every row belongs to one member, so one backward pass gives each its own
gradient, and a loss that is not finite ends its own member only. A finished member leaves the batch.
Several processes (distributed/processes.py) each take a share of the rows of every step and all take the same step.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn
from torch.optim import Optimizer

from prompttransfer import signals
from prompttransfer.adaptations.adaptation import CurvePoint
from prompttransfer.adaptations.bank import Bank
from prompttransfer.adaptations.heads import bank_of_members
from prompttransfer.adaptations.method import Member, Method, Trial
from prompttransfer.backbones.base import Backbone
from prompttransfer.backbones.kernels.async_copies import HostCopy
from prompttransfer.evaluation.encoding import EncodedTask
from prompttransfer.evaluation.evaluate import Score, evaluate_bank, mean_scores
from prompttransfer.training.batches import BankData, MicroBatch
from prompttransfer.training.distillation import Teaching
from prompttransfer.training.progress import TrainingProgress
from prompttransfer.training.recipes import Recipe, make_optimizer
from prompttransfer.training.state import MemberState, kept_of, read_state, write_state
from prompttransfer.training.trials import RowTrial


class BankTraining(LightningModule):
    """Trains a bank of members; the frozen backbone is not part of its parameters."""

    def __init__(
        self,
        backbone: Backbone,
        method: Method,
        members: Sequence[Member],
        validation: Sequence[Sequence[EncodedTask]],
        recipe: Recipe,
        state_file: Path | None = None,
        progress: TrainingProgress | None = None,
        rates: Sequence[float] | None = None,
        teaching: Teaching | None = None,
    ):
        super().__init__()
        self.automatic_optimization = False
        self._backbone = (backbone,)  # in a tuple, so that Lightning does not take its weights for ours
        self.method = method
        self.members = nn.ModuleList(members)
        self.validation = validation
        self.recipe = recipe
        self.rates = rates or [recipe.lr] * len(members)
        self.state_file = state_file
        self.progress = progress
        self.teaching = teaching
        self.last_losses: list[float] = []
        """Of every member in the last step whose losses have arrived."""
        self.states = [MemberState(best=kept_of(member)) for member in members]
        self.together = _together(members)
        """Of each member those that it shares a parameter with, itself among them: they end together."""
        self.steps_done = 0
        self._losses: list[list[float]] = [[] for _ in members]
        self._unsettled: HostCopy | None = None
        self._optimizer_state: dict[str, Any] | None = None
        self._written = 0
        """Step of the state on disk."""

    @property
    def backbone(self) -> Backbone:
        """The frozen model that all members share."""
        return self._backbone[0]

    @property
    def active(self) -> list[int]:
        """Indices of the members that still train."""
        return [index for index, state in enumerate(self.states) if state.ended is None]

    def _bank(self, indices: Sequence[int] | None = None) -> Bank:
        """All members, or those of `indices`, as a bank; differentiable in their parameters."""
        chosen = range(len(self.members)) if indices is None else indices
        return bank_of_members(self.method, self.backbone, [self._member(index) for index in chosen])

    def _member(self, index: int) -> Member:
        member = self.members[index]
        assert isinstance(member, Member)
        return member

    def _optimizer(self) -> Optimizer:
        """One optimizer with a group of its own for each parameter of each member."""
        found = self._rated()
        return make_optimizer(self.recipe, [each for each, _ in found], [rate for _, rate in found])

    def _rated(self) -> list[tuple[Tensor, float]]:
        """Every parameter of every member, and its rate before the schedule; one that members share comes once."""
        found: dict[int, tuple[Tensor, float]] = {}
        for index, rate in enumerate(self.rates):
            own = self._member(index).rates()
            for name, parameter in self._member(index).named_parameters():
                found.setdefault(id(parameter), (parameter, rate * own.get(name, 1.0)))
        return list(found.values())

    def configure_optimizers(self) -> Optimizer:
        """The optimizer, where a killed run was."""
        optimizer = self._optimizer()
        if self._optimizer_state is not None:
            optimizer.load_state_dict(self._optimizer_state)
        return optimizer

    def on_train_start(self) -> None:
        """Measure every member before its first step; log what a run that goes on has measured already."""
        if self.steps_done == 0:
            self._evaluate()
            return
        for point, index in sorted(
            ((point, index) for index, state in enumerate(self.states) for point in state.curve),
            key=lambda pair: (pair[0].step, pair[1]),
        ):
            self._log(index, point)

    def training_step(self, micro_batches: list[MicroBatch], index: int) -> None:
        """One step of every active member; a loss that is not finite ends its own member only."""
        signals.check()
        optimizer = self.optimizers()
        assert not isinstance(optimizer, list)
        optimizer.zero_grad(set_to_none=True)
        processes = self.backbone.processes
        device = self.backbone.device
        losses = torch.zeros(len(self.members), device=device)
        for number, micro in enumerate(micro_batches, start=1):
            rows = self._row_losses(micro) * micro.weights
            total = rows.sum() * processes.count
            if number == len(micro_batches):
                total = self._with_penalties(total)
            with self._exchange(last=number == len(micro_batches)):
                # Over processes Lightning takes the mean of gradients; the sum is what one process alone would have.
                self.manual_backward(total)
            losses.index_put_((micro.owners,), rows.detach(), accumulate=True)
        self._settle()  # the step before this one: a GPU has been given work again
        self.steps_done += 1
        self._unsettled = HostCopy(self._found(processes.sum(losses)))
        for index in self.active:
            self._member(index).before_step(self.steps_done, self.recipe.steps)
        self._set_rates(optimizer)
        optimizer.step()
        for index in self.active:
            self._member(index).after_step(self.steps_done, self.recipe.steps)
            if self._member(index).searches:
                self._member(index).choose(partial(self._trial, index))
            if self.steps_done == self.recipe.embed_at:
                self.states[index].embedding = self._member(index).tensors()
        if device.type != "cuda":
            self._settle()
        if self.progress is not None:
            self.progress.step(self)

    def _row_losses(self, micro: MicroBatch) -> Tensor:
        """What each row costs, [batch]; with what its member's teacher says where one has any."""
        own = self._bank().rows(micro.owners)
        if self.teaching is None:
            return self.backbone.loss(own, micro.batch)
        return self.teaching.losses(own, micro.batch, micro.owners)

    def _trial(self, index: int, rows: int) -> Trial:
        """Rows of a member's job, others at every step, on which it may try members of its method."""
        data: BankData = self.trainer.datamodule  # type: ignore[attr-defined]
        drawn = data.drawn(index, self.steps_done, rows)
        trained = len(data.orders[index].step(self.steps_done - 1))
        return RowTrial(self.backbone, self.method, drawn, data.layout, trained)

    def _set_rates(self, optimizer: Any) -> None:
        """Give every parameter the rate that the schedule has for this step."""
        share = self.recipe.share_of_rate(self.steps_done)
        for group, (_, rate) in zip(optimizer.param_groups, self._rated(), strict=True):
            group["lr"] = share * rate

    def _with_penalties(self, total: Tensor) -> Tensor:
        """The loss of a step and what methods add to it; over processes the mean of gradients gives it once."""
        for index in self.active:
            penalty = self._member(index).penalty()
            if penalty is not None:
                total = total + penalty.to(total.device) * self.backbone.processes.count
        return total

    def _exchange(self, *, last: bool) -> AbstractContextManager[None]:
        """Processes exchange gradients once a step, behind its last micro-batch."""
        if last or self.backbone.processes.count == 1:
            return nullcontext()
        strategy: Any = self.trainer.strategy
        return strategy.block_backward_sync()

    def _found(self, losses: Tensor) -> Tensor:
        """The loss of every member in this step, NaN where its gradient is not finite; [members]."""
        found = []
        for loss, member in zip(losses, self.members, strict=True):
            for parameter in member.parameters():
                if parameter.grad is not None:
                    loss = torch.where(torch.isfinite(parameter.grad).all(), loss, math.nan)
            found.append(loss)
        return torch.stack(found)

    def _settle(self) -> None:
        """Take down the losses of the last step and end the members whose loss or gradient was not finite in it.

        On a GPU that is known only after the next step has been launched. A member that has ended touches no other, so
        what it does until then does not matter.
        """
        if self._unsettled is None:
            return
        found, self._unsettled = self._unsettled.read(), None
        self.last_losses = found
        active = set(self.active)
        for index, loss in enumerate(found):
            if index in active and math.isfinite(loss):
                self._losses[index].append(loss)
                continue
            for parameter in self.members[index].parameters():
                parameter.grad = None
            if index in active:
                self._end(index, "not finite")

    def _end(self, index: int, why: str) -> None:
        """End a member and those that it shares with, which would otherwise go on with what it has spoilt or left alone."""
        for each in self.together[index].intersection(self.active):
            self.states[each].ended, self.states[each].steps = why, self.steps_done

    def drop(self, indices: Iterable[int]) -> None:
        """End members before their time; what they were at their best stays."""
        for index in set(indices).intersection(self.active):
            self._end(index, "dropped")

    def on_train_end(self) -> None:
        """Keep the optimizer's state, with which training may go on behind a halt."""
        optimizer = self.optimizers(use_pl_optimizer=False)
        assert isinstance(optimizer, Optimizer)
        self._optimizer_state = optimizer.state_dict()

    def on_train_epoch_end(self) -> None:
        """Evaluate, decide who goes on, and write the state."""
        self._settle()
        self._evaluate()
        patience = self.recipe.patience
        waiting = {index for index in self.active if patience and self.states[index].since_best >= patience}
        for index in self.active:
            self.states[index].steps = self.steps_done
            if self.steps_done >= self.recipe.steps:
                self._end(index, "steps")
            elif self.together[index].intersection(self.active) <= waiting:
                self._end(index, "patience")
        if self.state_file is not None and self.backbone.processes.first:
            optimizer = self.optimizers(use_pl_optimizer=False)
            assert isinstance(optimizer, Optimizer)
            write_state(self.state_file, self.states, list(self.members), optimizer, self.steps_done)
            self._written = self.steps_done
        if not self.active:
            self.trainer.should_stop = True

    def _evaluate(self) -> None:
        """One point of the learning curve for every active member; members of the same tasks share the passes."""
        by_tasks: dict[tuple[int, ...], list[int]] = {}
        for index in self.active:
            by_tasks.setdefault(tuple(map(id, self.validation[index])), []).append(index)
        for indices in by_tasks.values():
            with torch.no_grad():
                bank = self._bank(indices)
            parts = [evaluate_bank(self.backbone, bank, task) for task in self.validation[indices[0]]]
            scores = mean_scores(parts)
            for index, score in zip(indices, scores, strict=True):
                self._take(index, score)
        if self.progress is not None:
            self.progress.evaluated(self)

    def _take(self, index: int, score: Score) -> None:
        """Add one evaluation to a member's curve, or end the member where its last step has left the finite numbers."""
        kept = kept_of(self._member(index))
        finite = score.loss is None or math.isfinite(score.loss)
        finite = finite and all(bool(torch.isfinite(tensor).all()) for tensor in kept.values())
        if not finite and self.steps_done > 0:
            self._end(index, "not finite")
            return
        losses, self._losses[index] = self._losses[index], []
        mean = sum(losses) / len(losses) if losses else None
        point = CurvePoint(self.steps_done, mean, score.value, score.loss if finite else None)
        self.states[index].add(point, kept)
        self._log(index, point)

    def _log(self, index: int, point: CurvePoint) -> None:
        values = {f"prompt{index}/validation": point.score}
        if point.loss is not None:
            values[f"prompt{index}/loss"] = point.loss
        for logger in self.loggers:
            logger.log_metrics(values, step=point.step)

    def kept(self) -> str:
        """What a stop in this moment would leave, in words."""
        if not self._written:
            return "no evaluation was kept yet; run the same command again"
        place = self.state_file.parent if self.state_file is not None else ""
        return f"step {self._written} is kept in {place}; the same command goes on from there"

    def resume(self) -> bool:
        """Go on from the state file if there is one."""
        if self.state_file is None or not self.state_file.exists():
            return False
        self.states, tensors, self._optimizer_state, self.steps_done = read_state(
            self.state_file, list(self.members), self._optimizer()
        )
        for member, values in zip(self.members, tensors, strict=True):
            member.load_state_dict(values)
        self._written = self.steps_done
        return True


def _together(members: Sequence[Member]) -> list[frozenset[int]]:
    """Of each member the numbers of those that it shares a parameter with, itself among them."""
    owners: dict[int, set[int]] = {}
    for index, member in enumerate(members):
        for parameter in member.parameters():
            owners.setdefault(id(parameter), set()).add(index)
    return [
        frozenset({index}).union(*(owners[id(parameter)] for parameter in member.parameters()))
        for index, member in enumerate(members)
    ]
