"""One example in a backbone's tokens, and rows that run together."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from prompttransfer.backbones.label_words import BY_HEAD, FORMS, Answers
from prompttransfer.backbones.layouts import Layout
from prompttransfer.backbones.templates import TokenFrame

WRITTEN = "written"
KINDS = (*FORMS, *(form + BY_HEAD for form in FORMS), WRITTEN)
"""Kinds of rows, in the order in which they run in a step."""


@dataclass(frozen=True)
class Row:
    """One example in the tokens of one backbone; the special tokens and the prompt are added by `batch`."""

    first: tuple[int, ...]
    second: tuple[int, ...] | None
    label: int | None
    answers: Answers | None
    target: tuple[int, ...] | None
    """Tokens that T5 has to write, for tasks without labels."""
    cut: bool
    """Whether the text was longer than its budget."""
    frame: TokenFrame | None = None
    """What a decoder reads around the texts."""
    shares: tuple[float, ...] | None = field(default=None, repr=False)
    """What the probabilities of the labels should be, where not one of them is right; None for a row to answer."""

    @property
    def kind(self) -> str:
        """One of KINDS: only rows of one kind run together."""
        return WRITTEN if self.answers is None else self.answers.kind

    @property
    def size(self) -> int:
        """Number of text tokens."""
        return len(self.first) + len(self.second or ())


@dataclass(frozen=True)
class Batch:
    """Rows that run together, padded on the right to the longest of them; the prompt is not in it yet."""

    ids: Tensor
    """[batch, time] token ids with special tokens."""
    mask: Tensor
    """[batch, time] 1 where there is a token."""
    layout: Layout
    candidates: Tensor | None
    """[batch, classes, pieces] token ids of the label words, -1 where there is none."""
    averaged: Tensor | None
    """[batch] 1 where the pieces of a word are averaged instead of summed."""
    labels: Tensor | None
    """[batch] index of the right label."""
    targets: Tensor | None
    """[batch, target time] token ids to write, -100 behind the end."""
    shares: Tensor | None = None
    """[batch, classes] what the probabilities of the labels should be, where no one label is right; else None. NaN for labels
    that a row does not have, and rows to answer."""
    several: bool = False
    """Whether each label is right or wrong by itself."""
    recordable: bool = False
    """Whether a call for training on it can be recorded (backbones/kernels/cuda_graphs.py)."""

    @property
    def by_head(self) -> bool:
        """Whether no words stand for its labels, so that a head has to tell them apart."""
        return self.candidates is not None and self.candidates.shape[2] == 0

    @property
    def rows(self) -> int:
        """Number of rows."""
        return int(self.ids.shape[0])


def cut_texts(
    first: tuple[int, ...], second: tuple[int, ...] | None, budget: int, *, keep_first: bool
) -> tuple[tuple[int, ...], tuple[int, ...] | None, bool]:
    """Cut one or two texts to `budget` tokens, from the end of the longer one.

    With `keep_first` the second is cut, and the first only where it takes more than half of the budget.
    """
    total = len(first) + len(second or ())
    if total <= budget:
        return first, second, False
    if second is None:
        return first[:budget], None, True
    if keep_first:
        room_first = min(len(first), budget // 2)
    else:
        room_first = min(len(first), max(budget - len(second), budget // 2))
    return first[:room_first], second[: budget - room_first], True


def of_rows(bank: Tensor, owners: Tensor) -> Tensor:
    """Each row's own prompt, [batch, length, width], of `bank` [prompts, length, width] and `owners` [batch].

    In the backward pass the rows of a prompt are added up in the same order every time; of torch's two ways to pick
    rows, one does so on CPUs only and the other on GPUs only (torch.use_deterministic_algorithms names both).
    """
    return bank[owners] if bank.is_cuda else bank.index_select(0, owners)


def pad(sequences: Sequence[Sequence[int]], value: int) -> Tensor:
    """[batch, time] int64 from lists of unequal length, padded on the right."""
    longest = max(len(sequence) for sequence in sequences)
    return torch.tensor([list(sequence) + [value] * (longest - len(sequence)) for sequence in sequences])


def _candidates(answers: Sequence[Answers]) -> tuple[Tensor, Tensor]:
    """[batch, classes, pieces] ids padded with -1, and [batch] 1 where pieces are averaged."""
    used = {id(a): a.scored for a in answers}
    classes = max(len(pieces) for pieces in used.values())
    width = max(len(piece) for pieces in used.values() for piece in pieces)
    tables = {
        key: [list(p) + [-1] * (width - len(p)) for p in pieces] + [[-1] * width] * (classes - len(pieces))
        for key, pieces in used.items()
    }
    candidates = torch.tensor([tables[id(a)] for a in answers], dtype=torch.long)
    return candidates, torch.tensor([float(a.aggregation == "mean") for a in answers])


def _shares(rows: Sequence[Row], classes: int) -> Tensor:
    """[batch, classes] what the probabilities of the labels should be, NaN for rows to answer and labels that a row lacks."""
    given = [list(row.shares or ()) for row in rows]
    return torch.tensor([shares + [math.nan] * (classes - len(shares)) for shares in given])


def only(batch: Batch, rows: Tensor) -> Batch:
    """Those of its rows with the numbers `rows`, padded as they are."""

    def chosen(tensor: Tensor | None) -> Tensor | None:
        return None if tensor is None else tensor[rows]

    return replace(
        batch,
        ids=batch.ids[rows],
        mask=batch.mask[rows],
        candidates=chosen(batch.candidates),
        averaged=chosen(batch.averaged),
        labels=chosen(batch.labels),
        targets=chosen(batch.targets),
        shares=chosen(batch.shares),
    )


def repeat(batch: Batch, times: int) -> Batch:
    """The same rows `times` over, one copy after another."""
    if times == 1:
        return batch

    def tile(tensor: Tensor | None) -> Tensor | None:
        return None if tensor is None else tensor.repeat(times, *[1] * (tensor.ndim - 1))

    return replace(
        batch,
        ids=batch.ids.repeat(times, 1),
        mask=batch.mask.repeat(times, 1),
        candidates=tile(batch.candidates),
        averaged=tile(batch.averaged),
        labels=tile(batch.labels),
        targets=tile(batch.targets),
        shares=tile(batch.shares),
    )
