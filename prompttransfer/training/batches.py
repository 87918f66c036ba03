"""Batches for training: a Lightning data module whose every step is a pure function of seeds and the step's number.

So a resumed run sees exactly the rows that an uninterrupted one would have seen, and no state of a sampler has to be
kept. Rows of similar length meet in a batch (shuffled within windows, where there are several), and the rows of all prompts of a bank are
sorted by length and run in a few micro-batches, so that little is padded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any, Protocol

import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

from prompttransfer.backbones.base import Backbone
from prompttransfer.backbones.kernels.async_copies import send
from prompttransfer.backbones.kernels.token_batching import WINDOW, cut, halve, sorts_by_length
from prompttransfer.backbones.layouts import Layout
from prompttransfer.backbones.rows import KINDS, Batch, Row

Planned = tuple[int, Row, float]
"""Owner, row and weight: one row that runs for one prompt."""


@dataclass(frozen=True)
class MicroBatch:
    """Rows that run together, and whose they are."""

    batch: Batch
    owners: Tensor
    """[batch] index of the prompt that each row trains."""
    weights: Tensor
    """[batch] 1 over the number of rows that its prompt has in this step, so that losses add up to means."""


@dataclass(frozen=True, eq=False)
class RowOrder:
    """The endless sequence of training batches of one prompt."""

    sizes: tuple[int, ...]
    batch: int
    seed: int

    def step(self, step: int) -> list[int]:
        """Indices of the rows of step `step` (from 0)."""
        per_epoch = max(1, len(self.sizes) // self.batch)
        return list(self._epoch(step // per_epoch)[step % per_epoch])

    def drawn(self, step: int, count: int) -> list[int]:
        """Indices of `count` rows beside those of step `step`, of all where there are no more; a pure function as well."""
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + step + 2**40)
        return torch.randperm(len(self.sizes), generator=generator)[:count].tolist()

    @cached_property
    def _epoch(self) -> Callable[[int], list[list[int]]]:
        # A cache of its own for every prompt: with a shared one, the prompts of a bank would push each other out.
        return lru_cache(maxsize=1)(self._arrange)

    def _arrange(self, epoch: int) -> list[list[int]]:
        """The batches of one pass over the rows."""
        count = len(self.sizes)
        if count <= self.batch:
            return [list(range(count))]
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + epoch)
        shuffled = torch.randperm(count, generator=generator).tolist()
        whole = shuffled[: count - count % self.batch]
        ordered = whole
        if sorts_by_length(count, self.batch):
            window = self.batch * WINDOW
            windows = (whole[start : start + window] for start in range(0, len(whole), window))
            ordered = [index for rows in windows for index in sorted(rows, key=self.sizes.__getitem__)]
        cut = [ordered[start : start + self.batch] for start in range(0, len(ordered), self.batch)]
        return [cut[i] for i in torch.randperm(len(cut), generator=generator).tolist()]


class Active(Protocol):
    """What the data module asks of the training module."""

    @property
    def active(self) -> list[int]: ...


class BankData(LightningDataModule):
    """Training rows of a bank of prompts, one stretch of steps between two evaluations an epoch."""

    def __init__(
        self,
        backbone: Backbone,
        rows: Sequence[Sequence[Row]],
        seeds: Sequence[int],
        *,
        batch: int,
        reserved: int,
        layout: Layout,
        steps: int,
        evaluate_every: int,
        apart: bool = False,
    ):
        super().__init__()
        self.backbone = backbone
        self.rows = rows
        self.reserved = reserved
        self.layout = layout
        self.steps = steps
        self.evaluate_every = evaluate_every
        self.apart = apart
        """Whether rows of different members never run together."""
        self.orders = [
            RowOrder(tuple(row.size for row in own), batch, seed)
            for own, seed in zip(rows, seeds, strict=True)
        ]
        self.bank: Active | None = None
        self.first_epoch = 0

    def train_dataloader(self) -> DataLoader:
        """The steps of the current stretch; asked for anew at each one."""
        epoch = self.first_epoch + (self.trainer.current_epoch if self.trainer else 0)
        start = epoch * self.evaluate_every
        stop = min(start + self.evaluate_every, self.steps)
        return DataLoader(_Steps(self, range(start, stop)), batch_size=None)

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        """The backbone has put the rows where it runs."""
        return batch

    def step(self, step: int) -> list[MicroBatch]:
        """The micro-batches of one step for the prompts that still train."""
        assert self.bank is not None
        return [self._micro(self.share(part)) for part in self.plan(step, self.bank.active)]

    def drawn(self, owner: int, step: int, count: int) -> list[Row]:
        """Rows of a prompt on which others are tried at a step."""
        return [self.rows[owner][index] for index in self.orders[owner].drawn(step, count)]

    def share(self, part: Sequence[Planned]) -> list[Planned]:
        """What this process runs of a micro-batch: its share of the rows, or where none is left one of weight 0.

        So all processes run the same number of micro-batches, which the weights of a sharded backbone need.
        """
        owner, row, _ = part[0]
        return self.backbone.processes.share(part) or [(owner, row, 0.0)]

    def plan(self, step: int, active: Sequence[int]) -> list[list[Planned]]:
        """Everything that runs in one step, in all processes together, a list a micro-batch."""
        picked = [
            (owner, self.rows[owner][index], 1 / len(indices))
            for owner in active
            for indices in [self.orders[owner].step(step)]
            for index in indices
        ]
        picked.sort(key=lambda item: item[1].size)
        together = (
            [[item for item in picked if item[0] == owner] for owner in active] if self.apart else [picked]
        )
        return [part for rows in together for part in self._split(rows)]

    def _split(self, picked: Sequence[Planned]) -> Iterator[list[Planned]]:
        """Cut rows in order of length where it pays (backbones/kernels/token_batching.py), apart by kind."""
        fixed = self.reserved + self.backbone.special_tokens
        count = self.backbone.processes.count
        for kind in KINDS:
            items = [item for item in picked if item[1].kind == kind]
            if not items:
                continue
            sizes = [row.size + fixed for _, row, _ in items]
            most = self.backbone.tokens_at_once // 2 * count
            if self.backbone.recording and self.backbone.recordable([row for _, row, _ in items]):
                parts = halve(sizes, most=most)
            else:
                parts = cut(sizes, most=most, call=self.backbone.call_tokens * count)
            for part in parts:
                yield items[part]

    def _micro(self, part: list[Planned]) -> MicroBatch:
        owners, rows, weights = zip(*part, strict=True)
        device = self.backbone.device
        return MicroBatch(
            self.backbone.batch(rows, layout=self.layout),
            send(torch.tensor(owners), device),
            send(torch.tensor(weights), device),
        )


class _Steps(IterableDataset):
    """The steps of one stretch, made when they are asked for."""

    def __init__(self, data: BankData, steps: range):
        self.data = data
        self.steps = steps

    def __iter__(self) -> Iterator[list[MicroBatch]]:
        for step in self.steps:
            yield self.data.step(step)

    def __len__(self) -> int:
        return len(self.steps)
