"""What methods at linear maps share: members with a few tensors at each map, banks of them, and what they do to rows.

A member holds tensors of one or more kinds (A and B of a LoRA, a vector of scales) at each of its maps; those of maps of
equal shapes lie in one parameter, so that a step costs few calls. A bank holds them as [members, ...] a map, and binds them
to rows as [batch, ...], or as they are where there is one member: `times` and `beside` take both.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from prompttransfer.adaptations.method import Member
from prompttransfer.adaptations.random_prompts import rounds
from prompttransfer.backbones.interventions import Interventions
from prompttransfer.backbones.rows import of_rows
from tasks.errors import UserError

if TYPE_CHECKING:
    from prompttransfer.backbones.base import Backbone

PREFIX = "base_model.model."
"""What peft puts before a module's name."""

Table = Mapping[str, Tensor]
"""Full name of a linear map -> a tensor."""


class MapMember(Member):
    """Tensors of several kinds at linear maps; those in `frozen` are buffers, which do not train."""

    names: ClassVar[Mapping[str, str]]
    """Kind -> its name in an artifact, behind that of the map."""
    frozen: ClassVar[Collection[str]] = ()

    def __init__(self, tables: Mapping[str, Table]):
        super().__init__()
        self.kinds = tuple(tables)
        sites = next(iter(tables.values()))
        self.groups = _alike({site: tuple(tables[kind][site].shape for kind in tables) for site in sites})
        for kind, table in tables.items():
            stacks = [torch.stack([table[s].detach().float() for s in group]) for group in self.groups]
            if kind in self.frozen:
                for number, stack in enumerate(stacks):
                    self.register_buffer(f"{kind}_{number}", stack)
            else:
                setattr(self, kind, nn.ParameterList([nn.Parameter(stack) for stack in stacks]))

    def stacks(self, kind: str) -> list[Tensor]:
        """The tensors of a kind, [maps, ...], a group of maps of equal shapes each."""
        if kind in self.frozen:
            return [self.get_buffer(f"{kind}_{number}") for number in range(len(self.groups))]
        return list(getattr(self, kind))

    def table(self, kind: str) -> dict[str, Tensor]:
        """The tensor of a kind at every map, differentiable."""
        stacks = self.stacks(kind)
        return {
            s: t
            for group, stack in zip(self.groups, stacks, strict=True)
            for s, t in zip(group, stack, strict=True)
        }

    def tensors(self) -> dict[str, Tensor]:
        return {
            f"{PREFIX}{site}.{self.names[kind]}": value.detach().cpu().clone()
            for kind in self.kinds
            for site, value in self.table(kind).items()
        }


AMember = TypeVar("AMember", bound=MapMember)


def _alike(shapes: Mapping[str, tuple[torch.Size, ...]]) -> list[list[str]]:
    """The names of each shape, by name, so that a member read from a file is grouped as one that was made."""
    groups: dict[tuple[torch.Size, ...], list[str]] = {}
    for name, shape in sorted(shapes.items()):
        groups.setdefault(shape, []).append(name)
    return list(groups.values())


def parsed(
    tensors: Mapping[str, Tensor], names: Mapping[str, str], method: str
) -> dict[str, dict[str, Tensor]]:
    """An artifact's tensors as kind -> map -> tensor. Raises UserError for a name that is no kind's, or a missing one."""
    tables: dict[str, dict[str, Tensor]] = {kind: {} for kind in names}
    for name, tensor in tensors.items():
        own = name.removeprefix(PREFIX)
        kind = next((kind for kind, end in names.items() if own.endswith(f".{end}")), None)
        if kind is None:
            raise UserError(
                f"a tensor {name!r} of shape {list(tensor.shape)} is no part of {method}, which holds {', '.join(names.values())} "
                f"at each linear map"
            )
        tables[kind][own.removesuffix(f".{names[kind]}")] = tensor
    first, *rest = tables.values()
    if not first or any(table.keys() != first.keys() for table in rest):
        raise UserError(
            f"{method} holds {', '.join(names.values())} for every linear map; one of them is missing"
        )
    return {kind: {site: table[site] for site in first} for kind, table in tables.items()}


def of_kind(members: Sequence[Member], kind: type[AMember], method: str) -> list[AMember]:
    """`members` as what they are; UserError where they cannot run together."""
    parts = [member for member in members if isinstance(member, kind)]
    if len(parts) != len(members) or any(part.groups != parts[0].groups for part in parts):
        raise UserError(
            f"members of {method} at different linear maps cannot run together: evaluate them one after another"
        )
    return parts


def at_maps(
    parts: Sequence[MapMember],
    kind: str,
    backbone: Backbone,
    *,
    then: Callable[[Tensor], Tensor] = lambda stack: stack,
    cast: bool = True,
) -> dict[str, Tensor]:
    """A kind of all members at every map, [members, ...], as `then` makes it, in the backbone's type unless not `cast`.

    All maps of a group at once, so that each map's product starts at once.
    """
    found: dict[str, Tensor] = {}
    every = [part.stacks(kind) for part in parts]
    for number, group in enumerate(parts[0].groups):
        stack = then(torch.stack([stacks[number].to(backbone.device) for stacks in every], dim=1))
        found |= zip(group, (stack.to(backbone.dtype) if cast else stack).unbind(0), strict=True)
    return found


class AtMaps(Interventions):
    """What members do at linear maps: `tables` as kind -> map -> [batch, ...], or [...] where all rows have one member."""

    def __init__(self, tables: Mapping[str, Table], *, alone: bool):
        self.tables, self.alone, self.alike = tables, alone, alone
        self.sites = next(iter(tables.values())).keys()

    def repeat(self, times: int) -> Interventions:
        if self.alone:
            return self
        again = copy.copy(self)
        again.tables = {
            kind: {site: tensor.repeat_interleave(times, dim=0) for site, tensor in table.items()}
            for kind, table in self.tables.items()
        }
        return again


class MapBank:
    """Members at the same linear maps: `tables` as kind -> map -> [members, ...], and what binds them to rows."""

    reserved = 0

    def __init__(self, tables: Mapping[str, Table], bound: Callable[..., Interventions]):
        self.tables, self.bound = tables, bound
        self.members = len(next(iter(next(iter(tables.values())).values())))

    def rows(self, owners: Tensor) -> Interventions:
        alone = self.members == 1
        return self.bound(
            {
                kind: {site: own[0] if alone else of_rows(own, owners) for site, own in table.items()}
                for kind, table in self.tables.items()
            },
            alone=alone,
        )


def times(states: Tensor, matrix: Tensor) -> Tensor:
    """`matrix` [out, in], or [batch, out, in] for each row its own, of states [batch, (time,) in]."""
    matrix = matrix.to(states.dtype)
    if matrix.ndim == 2:
        return F.linear(states, matrix)
    if states.ndim == 2:
        return torch.bmm(states[:, None], matrix.mT)[:, 0]
    return torch.bmm(states, matrix.mT)


def beside(vector: Tensor, states: Tensor) -> Tensor:
    """`vector` [width], or [batch, width] for each row its own, as it stands beside states [batch, (time,) width]."""
    vector = vector.to(states.dtype)
    return vector if vector.ndim == 1 or states.ndim == 2 else vector[:, None]


def frozen(backbone: Backbone, site: str) -> tuple[Tensor, Tensor | None]:
    """Weight [out, in] and bias of a frozen linear map."""
    module = backbone.model.get_submodule(site)
    weight = module.weight.detach()
    # GPT-2's maps (Conv1D of transformers) keep theirs the other way round.
    return weight if isinstance(module, nn.Linear) else weight.T, module.bias


def check_maps(
    backbone: Backbone, sizes: Mapping[str, tuple[int | None, int | None]], name: str, method: str
) -> None:
    """Raise UserError where the backbone lacks a map that adaptation `name` changes, or has one of another (in, out).

    A size that is None says nothing.
    """
    for site, (wide, high) in sizes.items():
        shape = backbone.linear_maps.get(site)
        if shape is None or wide not in (None, shape[0]) or high not in (None, shape[1]):
            there = "has none of that name" if shape is None else f"has one of [{shape[1]}, {shape[0]}]"
            raise UserError(
                f"{name!r} changes the linear map {site}; {backbone.name} {there}: a {method} runs on the model that it was "
                f"trained on"
            )


def randomised(
    given: Sequence[Mapping[str, Tensor]],
    draws: int,
    generator: torch.Generator,
    change: Callable[[str, Tensor], Tensor],
) -> list[dict[str, Tensor]]:
    """`Method.random_like` with a say of the method: `change` makes one random tensor of a given one and its name."""
    return [
        {name: change(name, tensor) for name, tensor in given[index].items()}
        for index in rounds(len(given), draws, generator)
    ]


def only_random(method: str, start: str, meaning: str) -> None:
    """Raise UserError for a start that a method at linear maps does not have."""
    if start != "random":
        raise UserError(f"{method} starts at 'random' ({meaning}), not {start!r}")


def sites_of(tensors: Mapping[str, Tensor], names: Mapping[str, str]) -> Iterator[str]:
    """Full names of the linear maps in an artifact's tensors, each once."""
    ends = tuple(f".{end}" for end in names.values())
    found = {name.removeprefix(PREFIX): end for name in tensors for end in ends if name.endswith(end)}
    yield from sorted({name.removesuffix(end) for name, end in found.items()})
