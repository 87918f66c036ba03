"""Full fine-tuning: every weight of the model trains, the upper row of a comparison.

The backbone stays as it is. What trains, in float32, is what each parameter changes by, so it starts at zero, and what runs
is W + change in the backbone's type: the same as a float32 copy of W that trains. What is kept is the change: the whole of a
parameter, or of a table or matrix the rows that moved (of word embeddings those of words that occurred), and nothing of what
did not. Weights that the model ties are one parameter. Each member has weights of its own, so those of a bank run one after
another, on the plain engine.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from prompttransfer.adaptations.method import Member, Method
from prompttransfer.adaptations.methods.maps import only_random, randomised
from prompttransfer.adaptations.random_prompts import scrambled
from prompttransfer.adaptations.starts import From
from prompttransfer.backbones.interventions import Interventions, OwnWeights
from tasks.errors import UserError, unknown

if TYPE_CHECKING:
    from prompttransfer.backbones.base import Backbone
    from tasks.task import Task

CHANGE, ROWS = "change.", "rows."
"""What stands before a parameter's name: its change, and the numbers of the rows that the change is of, where not of all.

Numbers are kept as float32 like all else, which is exact below 2^24 rows.
"""
KEEP = ("changed", "all")

Changes = Mapping[str, tuple[Tensor, Tensor | None]]
"""Full name of a parameter -> its change, and the rows that this is of; None for all."""


class FullMember(Member):
    """What each parameter changes by."""

    def __init__(self, changes: Changes, keep: str):
        super().__init__()
        self.keep = keep
        self.names = tuple(changes)
        self.change = nn.ParameterList(
            [nn.Parameter(change.detach().float().clone()) for change, _ in changes.values()]
        )
        for index, (_, rows) in enumerate(changes.values()):
            self.register_buffer(f"rows_{index}", rows)

    def changes(self) -> dict[str, tuple[Tensor, Tensor | None]]:
        """Differentiable."""
        return {
            name: (change, getattr(self, f"rows_{index}"))
            for index, (name, change) in enumerate(zip(self.names, self.change, strict=True))
        }

    def tensors(self) -> dict[str, Tensor]:
        found: dict[str, Tensor] = {}
        for name, (change, rows) in self.changes().items():
            found |= _kept(name, change.detach().cpu(), None if rows is None else rows.cpu(), self.keep)
        if not found:  # nothing moved; an artifact holds something
            least = min(self.names, key=lambda name: self.changes()[name][0].numel())
            found[f"{CHANGE}{least}"] = torch.zeros(self.changes()[least][0].shape)
        return found


def _kept(name: str, change: Tensor, rows: Tensor | None, keep: str) -> dict[str, Tensor]:
    """What an artifact holds of one parameter."""
    if keep == "changed" and not change.any():
        return {}
    if keep == "changed" and change.ndim > 1:
        moved = change.flatten(1).any(dim=1).nonzero()[:, 0]
        if len(moved) < len(change):
            change, rows = change[moved], moved if rows is None else rows[moved]
    found = {f"{CHANGE}{name}": change.clone()}
    return found if rows is None else found | {f"{ROWS}{name}": rows.float()}


class FullBank:
    """Members with weights of their own, on one backbone."""

    reserved = 0

    def __init__(self, backbone: Backbone, members: Sequence[FullMember]):
        self.backbone, self.members = backbone, len(members)
        self._changes = [
            {
                name: tuple(None if part is None else part.to(backbone.device) for part in parts)
                for name, parts in member.changes().items()
            }
            for member in members
        ]

    def rows(self, owners: Tensor) -> Interventions:
        if self.members == 1:
            return _Weights([(partial(self.weights, 0), torch.arange(len(owners), device=owners.device))])
        return _Weights(
            [
                (partial(self.weights, member), (owners == member).nonzero()[:, 0])
                for member in owners.unique().tolist()
            ]
        )

    def weights(self, member: int) -> dict[str, Tensor]:
        """W + change of every parameter that a member changes, in the backbone's type."""
        found = {}
        for name, (change, rows) in self._changes[member].items():
            own = self.backbone.model.get_parameter(name).detach()
            full = own.float() + change if rows is None else own.float().index_add(0, rows, change)
            found[name] = full.to(own.dtype)
        return found


class _Weights(Interventions):
    def __init__(self, weights: Sequence[OwnWeights]):
        self.weights = weights


@dataclass(frozen=True)
class Full(Method):
    """Every weight of the model; `keep` says whether a file holds what changed or all."""

    name: ClassVar[str] = "full"
    summary: ClassVar[str] = "every weight of the model (full fine-tuning)"
    apart: ClassVar[bool] = True

    keep: str = "changed"

    def __post_init__(self) -> None:
        if self.keep not in KEEP:
            raise unknown("keep of full", self.keep, KEEP)

    def member(self, backbone: Backbone, task: Task, *, start: str, seed: int) -> Member:
        only_random(self.name, start, "the backbone's own weights")
        _check_own(backbone)
        return self._dense(backbone, {})

    def outline(self, backbone: Backbone, task: Task) -> Member:
        return self._dense(backbone, {}, device=backbone.device)

    def continued(self, start: From, backbone: Backbone) -> Member:
        self.check_fits(backbone, start.tensors, str(start))
        return self._dense(backbone, _parsed(start.tensors))

    def _dense(self, backbone: Backbone, changes: Changes, device: torch.device | None = None) -> Member:
        """A member that changes every parameter, by `changes` or by zero."""
        found: dict[str, tuple[Tensor, Tensor | None]] = {}
        for name, own in backbone.model.named_parameters():
            dense = torch.zeros(own.shape, device=device or "cpu")
            if name in changes:
                change, rows = changes[name]
                dense = change if rows is None else dense.index_add(0, rows, change)
            found[name] = (dense, None)
        return FullMember(found, self.keep)

    def remarks(self, backbone: Backbone, tasks: Sequence[str] = ()) -> list[str]:
        numbers = sum(parameter.numel() for parameter in backbone.model.parameters())
        most = "at most " if self.keep == "changed" else ""
        return [
            f"full: {numbers:,} numbers train, on engine plain; a file takes {most}{4 * numbers / 1e6:,.1f} MB"
            + (", less what did not move" if most else "")
        ]

    def check_fits(self, backbone: Backbone, tensors: Mapping[str, Tensor], name: str) -> None:
        _check_own(backbone)
        own = dict(backbone.model.named_parameters())
        for parameter, (change, rows) in _parsed(tensors).items():
            shape = list(own[parameter].shape) if parameter in own else None
            if rows is None or shape is None:
                fits = list(change.shape) == shape
            else:
                fits = list(change.shape[1:]) == shape[1:] and int(rows.max()) < shape[0]
            if not fits:
                there = "has none of that name" if shape is None else f"has one of {shape}"
                raise UserError(
                    f"{name!r} changes the weight {parameter} {list(change.shape)}; {backbone.name} {there}: what was "
                    f"fine-tuned runs on the model that it was trained on"
                )

    def restored(self, tensors: Mapping[str, Tensor]) -> Member:
        return FullMember(_parsed(tensors), self.keep)

    def bank(self, backbone: Backbone, members: Sequence[Member]) -> FullBank:
        _check_own(backbone)
        return FullBank(backbone, [member for member in members if isinstance(member, FullMember)])

    def peft_config(self, *, family: str, tensors: Mapping[str, Tensor]) -> dict[str, Any] | None:
        return None

    def random_like(
        self, given: Sequence[Mapping[str, Tensor]], draws: int, generator: torch.Generator
    ) -> list[dict[str, Tensor]]:
        """The same rows changed by as much, in random directions."""

        def change(name: str, tensor: Tensor) -> Tensor:
            return tensor if name.startswith(ROWS) else scrambled(tensor, generator)

        return randomised(given, draws, generator, change)


def _check_own(backbone: Backbone) -> None:
    """Raise UserError for a backbone whose weights are not all here as numbers that can change."""
    if backbone.processes.count > 1:
        raise UserError("full trains and runs on one device: leave --devices and --strategy out")
    if backbone.quantised:
        raise UserError(
            "full changes weights, and those of a backbone in nf4 cannot change: use --precision bf16 or fp32, or lora"
        )


def _parsed(tensors: Mapping[str, Tensor]) -> dict[str, tuple[Tensor, Tensor | None]]:
    """An artifact's tensors by parameter. Raises UserError for a name that is none, or rows that do not fit their change."""
    found = {}
    for name in _names(tensors):
        change, rows = tensors[f"{CHANGE}{name}"], tensors.get(f"{ROWS}{name}")
        if rows is not None:
            numbers = rows.long()
            alike = rows.ndim == 1 and len(rows) == len(change) and len(numbers.unique()) == len(rows)
            if not (alike and torch.equal(numbers.float(), rows) and (numbers >= 0).all()):
                raise UserError(
                    f"full: {ROWS}{name} are not the numbers of the {len(change)} rows that changed"
                )
            rows = numbers
        found[name] = (change, rows)
    return found


def _names(tensors: Mapping[str, Tensor]) -> Iterator[str]:
    """The parameters that an artifact changes."""
    for name in tensors:
        if name.startswith(CHANGE):
            yield name.removeprefix(CHANGE)
        elif not (name.startswith(ROWS) and f"{CHANGE}{name.removeprefix(ROWS)}" in tensors):
            raise UserError(f"a tensor {name!r} is no part of full, which holds {CHANGE}NAME and {ROWS}NAME")
