"""Trials: members of a method on rows of a job, for a member that searches (`Member.choose`)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from prompttransfer.adaptations.bank import on_the_same
from prompttransfer.adaptations.method import Member, Method
from prompttransfer.backbones.base import Backbone
from prompttransfer.backbones.layouts import Layout
from prompttransfer.backbones.rows import Batch, Row

Shared = tuple[Batch, float]
"""Rows of one kind, and the share of all rows that they are in this process."""


class RowTrial:
    """A few rows on which any number of members are tried, many in one pass; processes share the rows."""

    def __init__(self, backbone: Backbone, method: Method, rows: Sequence[Row], layout: Layout, trained: int):
        self.backbone, self.method = backbone, method
        self.rows, self.trained = len(rows), trained
        kinds = [
            [row for row in rows if row.kind == kind] for kind in dict.fromkeys(row.kind for row in rows)
        ]
        self.batches = [self._batch(part, layout) for part in kinds]
        """One a kind of rows, of which a mixture has several: they run apart."""

    def _batch(self, rows: Sequence[Row], layout: Layout) -> Shared:
        own = self.backbone.processes.share(rows)
        # One that is left without a row runs one that counts for nothing, as a sharded model needs.
        return self.backbone.batch(own or rows[:1], layout=layout), len(own) / self.rows

    @torch.no_grad()
    def losses(self, members: Sequence[Member]) -> Tensor:
        found = [
            torch.cat([self._means(part, shared) for part in self._parts(members, shared)])
            for shared in self.batches
        ]
        return self.backbone.processes.sum(torch.stack(found).sum(dim=0)).cpu()

    def gradients(self, members: Sequence[Member]) -> list[Tensor]:
        found = [
            [gradient for part in self._parts(members, shared) for gradient in self._gradients(part, shared)]
            for shared in self.batches
        ]
        sums = [sum(each[1:], each[0]) for each in zip(*found, strict=True)]
        return [self.backbone.processes.sum(gradient).float().cpu() for gradient in sums]

    def _gradients(self, members: Sequence[Member], shared: Shared) -> Sequence[Tensor]:
        with torch.enable_grad():
            total = self._means(members, shared).sum()
        return torch.autograd.grad(total, [next(member.parameters()) for member in members])

    def _means(self, members: Sequence[Member], shared: Shared) -> Tensor:
        """The mean loss of each on the rows of this process, times their share of all."""
        batch, share = shared
        own, wide = on_the_same(self.method.bank(self.backbone, members), batch)
        return self.backbone.loss(own, wide).unflatten(0, (len(members), -1)).mean(dim=1) * share

    def _parts(self, members: Sequence[Member], shared: Shared) -> Iterator[Sequence[Member]]:
        """As many as are worth running together."""
        reserved, (batch, _) = self.method.bank(self.backbone, members[:1]).reserved, shared
        count = max(1, self.backbone.tokens_at_once // (batch.rows * (batch.ids.shape[1] + reserved)))
        return (members[start : start + count] for start in range(0, len(members), count))
