"""Banks: several members of one method on one frozen backbone, whose rows run together in one pass.

Every row of a batch names its member (`owners`); `rows` binds a bank to them. The training loop, the evaluation and
the matrices know only banks.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from prompttransfer.backbones.interventions import BARE, Interventions, Vectors
from prompttransfer.backbones.rows import Batch, of_rows, repeat


class Bank(Protocol):
    """Members that run together."""

    @property
    def members(self) -> int:
        """How many."""

    @property
    def reserved(self) -> int:
        """Positions that each takes from the text, by standing in front of it."""

    def rows(self, owners: Tensor) -> Interventions:
        """The members bound to the rows of a batch, `owners` [batch] of member numbers. Differentiable."""


def on_the_same(bank: Bank, batch: Batch) -> tuple[Interventions, Batch]:
    """Every member on the rows of `batch`: member 0 on all of them, then member 1, and so on."""
    owners = torch.arange(bank.members, device=batch.ids.device).repeat_interleave(batch.rows)
    return bank.rows(owners), repeat(batch, bank.members)


class BareBank:
    """The backbone without an adaptation, as a bank of one."""

    members = 1
    reserved = 0

    def rows(self, owners: Tensor) -> Interventions:
        return BARE


class VectorBank:
    """Soft prompts of equal shape, [members, length, width]."""

    def __init__(self, prompts: Tensor):
        self.prompts = prompts
        self.members, self.reserved = int(prompts.shape[0]), int(prompts.shape[1])

    def rows(self, owners: Tensor) -> Interventions:
        return Vectors(self.prompts.to(owners.device), owners)


class LowRankBank:
    """Updates of low rank at linear maps: y + B A x, with A and B of each row's member (LoRA, Hu et al. 2021, eq. 3).

    `into` and `out` hold A [members, rank, in] and B [members, out, rank], the scale taken into B, under the name of
    each linear map.
    """

    reserved = 0

    def __init__(self, into: Mapping[str, Tensor], out: Mapping[str, Tensor]):
        self.into, self.out = into, out
        self.members = len(next(iter(into.values())))

    def rows(self, owners: Tensor) -> Interventions:
        if self.members == 1:
            return _OneLowRank(self.into, self.out)
        return _LowRankRows(
            {site: of_rows(a, owners) for site, a in self.into.items()},
            {site: of_rows(b, owners) for site, b in self.out.items()},
        )


class _LowRankRows(Interventions):
    """A [batch, rank, in] and B [batch, out, rank] of every row."""

    def __init__(self, into: Mapping[str, Tensor], out: Mapping[str, Tensor]):
        self.into, self.out = into, out
        self.sites = into.keys()

    def linear(self, site: str, states: Tensor, output: Tensor) -> Tensor:
        if states.ndim == 2:  # one position a row
            return self.linear(site, states[:, None], output[:, None])[:, 0]
        into, out = (part[site].to(states.dtype) for part in (self.into, self.out))
        return torch.baddbmm(output, torch.bmm(states, into.mT), out.mT)

    def repeat(self, times: int) -> Interventions:
        return _LowRankRows(
            {site: a.repeat_interleave(times, dim=0) for site, a in self.into.items()},
            {site: b.repeat_interleave(times, dim=0) for site, b in self.out.items()},
        )


class _OneLowRank(Interventions):
    """The same for rows that all belong to one member."""

    alike = True

    def __init__(self, into: Mapping[str, Tensor], out: Mapping[str, Tensor]):
        self.into, self.out = into, out
        self.sites = into.keys()

    def linear(self, site: str, states: Tensor, output: Tensor) -> Tensor:
        into, out = (part[site][0].to(states.dtype) for part in (self.into, self.out))
        return output + F.linear(F.linear(states, into), out)
