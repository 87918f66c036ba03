"""In-context learning (Brown et al. 2020, arXiv 2005.14165): labelled training rows in front of each row, nothing is trained.

A row that is shown stands as every row stands in its family, with its answer filled in: a masked LM reads the label word
where the mask would be, a T5 behind the texts, a decoder behind the cue. What is kept are the backbone's own embeddings of
these tokens, so that the rows shown are a prompt like any other: on a decoder they are computed once for all rows behind
them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch

from prompttransfer.adaptations.method import Member
from prompttransfer.adaptations.methods.text import Words, WordsMember
from prompttransfer.adaptations.starts import RANDOM, Start
from prompttransfer.backbones.layouts import USUAL, Encoding
from tasks.errors import UserError

if TYPE_CHECKING:
    from prompttransfer.backbones.base import Backbone
    from tasks.task import Example, Task

LEAST_TEXT = 8
"""Positions that a row's own text must have."""


@dataclass(frozen=True)
class InContext(Words):
    """`k` labelled training rows in front of the text."""

    name: ClassVar[str] = "in-context"
    summary: ClassVar[str] = (
        "labelled training rows in front of the text, nothing is trained (Brown et al. 2020)"
    )

    k: int = 4

    def __post_init__(self) -> None:
        if self.k < 1:
            raise UserError(f"in-context: k {self.k}: at least 1 row is shown")

    def member(self, backbone: Backbone, task: Task, *, start: str, seed: int) -> Member:
        return self.started(backbone, task, RANDOM, seed=seed)

    def started(
        self,
        backbone: Backbone,
        task: Task,
        start: Start,
        *,
        seed: int,
        rows: Sequence[Example] = (),
        encoding: Encoding = USUAL,
    ) -> Member:
        """A member that shows a draw of the training `rows`."""
        self.check_start(str(start))
        place = encoding.place(backbone.family)
        self.check_place(place, backbone.family)
        chosen = drawn(rows, self.k, seed, task)
        shown = [backbone.shown(row, place) for row in backbone.encode(task, chosen, encoding, reserved=0)]
        ids = [index for row in shown for index in row]
        self._check_fits(backbone, task, encoding, len(ids))
        text = backbone.tokenizer.decode(ids)
        return WordsMember(backbone.word_vectors(torch.tensor(ids)), text=text, rows=len(chosen))

    def outline(self, backbone: Backbone, task: Task) -> Member:
        # Which rows are shown is not known yet: as long as they may be at most.
        most = self.k * (backbone.text_budget(task, reserved=0) + backbone.fixed_tokens(task))
        return WordsMember(torch.empty(most, backbone.width, device=backbone.device))

    def _check_fits(self, backbone: Backbone, task: Task, encoding: Encoding, shown: int) -> None:
        limit = backbone.max_positions
        if limit is None:
            return
        free = limit - backbone.fixed_tokens(task, encoding) - LEAST_TEXT
        if shown > free:
            fewer = self.k * free // shown
            instead = f"in-context:k={fewer} or " if fewer else ""
            raise UserError(
                f"{self.k} rows of task {task.name!r} take {shown} positions, but only {free} of the {limit} of "
                f"{backbone.name} are free for them: use {instead}a smaller --max-length"
            )


def drawn(rows: Sequence[Example], count: int, seed: int, task: Task) -> list[Example]:
    """`count` of the rows in random order, of each label as many as of any other, to within one where there are enough.

    The same seed draws the same rows. Raises UserError where there are fewer rows.
    """
    if count > len(rows):
        raise UserError(
            f"in-context: {count} rows are to be shown, but task {task.name!r} has {len(rows)} training rows: use "
            f"in-context:k={len(rows)}"
            if rows
            else f"in-context: task {task.name!r} comes without training rows, which are what it shows"
        )
    generator = torch.Generator().manual_seed(seed)
    order = [rows[i] for i in torch.randperm(len(rows), generator=generator).tolist()]
    found: dict[int | None, int] = {}
    ranked = []
    for row in order:  # the first of each label, then the second of each, and so on
        ranked.append((found.setdefault(row.label, 0), row))
        found[row.label] += 1
    ranked.sort(key=lambda pair: pair[0])
    chosen = [row for _, row in ranked[:count]]
    return [chosen[i] for i in torch.randperm(count, generator=generator).tolist()]
