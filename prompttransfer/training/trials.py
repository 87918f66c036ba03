"""Trials: members of a method on rows of a job, for a member that searches (`Member.choose`)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from prompttransfer.adaptations.bank import on_the_same
from prompttransfer.adaptations.method import Member, Method
from prompttransfer.backbones.base import Backbone
from prompttransfer.backbones.layouts import Layout
from prompttransfer.backbones.rows import Row


class RowTrial:
    """A few rows on which any number of members are tried, many in one pass; processes share the rows."""

    def __init__(self, backbone: Backbone, method: Method, rows: Sequence[Row], layout: Layout, trained: int):
        self.backbone, self.method = backbone, method
        self.rows, self.trained = len(rows), trained
        own = backbone.processes.share(rows)
        # One that is left without a row runs one that counts for nothing, as a sharded model needs.
        self.weight = len(own) / len(rows)
        self.batch = backbone.batch(own or rows[:1], layout=layout)

    @torch.no_grad()
    def losses(self, members: Sequence[Member]) -> Tensor:
        parts = [self._means(part) for part in self._parts(members)]
        return self.backbone.processes.sum(torch.cat(parts)).cpu()

    def gradients(self, members: Sequence[Member]) -> list[Tensor]:
        found = []
        for part in self._parts(members):
            with torch.enable_grad():
                total = self._means(part).sum()
            found += torch.autograd.grad(total, [next(member.parameters()) for member in part])
        return [self.backbone.processes.sum(gradient).float().cpu() for gradient in found]

    def _means(self, members: Sequence[Member]) -> Tensor:
        """The mean loss of each on the rows of this process, times their share of all."""
        own, wide = on_the_same(self.method.bank(self.backbone, members), self.batch)
        return self.backbone.loss(own, wide).unflatten(0, (len(members), -1)).mean(dim=1) * self.weight

    def _parts(self, members: Sequence[Member]) -> Iterator[Sequence[Member]]:
        """As many as are worth running together."""
        reserved = self.method.bank(self.backbone, members[:1]).reserved
        tokens = self.batch.rows * (self.batch.ids.shape[1] + reserved)
        count = max(1, self.backbone.tokens_at_once // tokens)
        return (members[start : start + count] for start in range(0, len(members), count))
