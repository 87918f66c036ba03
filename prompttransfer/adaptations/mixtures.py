"""Mixtures: many weighted sums of the same adaptations in one bank, for what looks at more of them than it keeps.

A mixture of prompts is the sum of their vectors, one of LoRAs that of their products s B A, each times its weight. The
factors of all LoRAs lie side by side once, and a row multiplies what lies between them by its weights: a hundred mixtures
cost the memory of one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from prompttransfer.adaptations.adaptation import PROMPT_KEY
from prompttransfer.adaptations.bank import Bank, VectorBank
from prompttransfer.adaptations.composition import Part, check_parts
from prompttransfer.adaptations.methods.maps import beside
from prompttransfer.adaptations.updates import updates_of
from prompttransfer.backbones.base import Backbone
from prompttransfer.backbones.interventions import Interventions


def mixture_bank(backbone: Backbone, parts: Sequence[Part], weights: Tensor) -> Bank:
    """A bank of a member for each row of `weights` [members, parts]; the weights of `parts` themselves do not count.

    Raises UserError for parts that cannot be composed.
    """
    check_parts(parts)
    if PROMPT_KEY in parts[0].tensors:
        vectors = torch.stack([part.tensors[PROMPT_KEY] for part in parts])
        return VectorBank(torch.einsum("mp,plw->mlw", weights.to(vectors), vectors))
    every = [updates_of(backbone, part.method, part.tensors) for part in parts]
    place = backbone.device, backbone.dtype
    sites = list(every[0])
    into = {site: torch.cat([updates[site][0] for updates in every]).to(*place) for site in sites}
    out = {site: torch.cat([updates[site][1] for updates in every], dim=1).to(*place) for site in sites}
    ranks = torch.tensor([len(updates[sites[0]][0]) for updates in every])
    spread = weights.float().repeat_interleave(ranks, dim=1).to(backbone.device)
    return MixedLowRank(into, out, spread)


class MixedLowRank:
    """y + B (w * A x) at linear maps, with the same A [rank, in] and B [out, rank] for all members and w [members, rank]."""

    reserved = 0

    def __init__(self, into: Mapping[str, Tensor], out: Mapping[str, Tensor], weights: Tensor):
        self.into, self.out, self.shares = into, out, weights
        self.members = len(weights)

    def rows(self, owners: Tensor) -> Interventions:
        return _MixedRows(self.into, self.out, self.shares[owners])


class _MixedRows(Interventions):
    """The same with w [batch, rank] of every row."""

    def __init__(self, into: Mapping[str, Tensor], out: Mapping[str, Tensor], weights: Tensor):
        self.into, self.out, self.shares = into, out, weights
        self.sites = into.keys()

    def linear(self, site: str, states: Tensor, output: Tensor) -> Tensor:
        between = F.linear(states, self.into[site])
        return output + F.linear(between * beside(self.shares, between), self.out[site])

    def repeat(self, times: int) -> Interventions:
        return _MixedRows(self.into, self.out, self.shares.repeat_interleave(times, dim=0))
