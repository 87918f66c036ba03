"""Evaluation: several prompts at once on the rows of one task, with no training.

Each row is tokenised once, rows run sorted by length so that little is padded, and all prompts of a bank pass over
the same rows together; only the label words' logits are computed. The score of one prompt does not depend on the
others in the bank beyond float rounding.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import Tensor

from prompttransfer.backbones.base import Backbone, Batch, Row
from prompttransfer.batching import cut
from prompttransfer.layouts import Layout
from prompttransfer.processes import ALONE, Processes
from tasks.metrics import chance, score
from tasks.task import Example, Task

NEW_TOKENS = {"extractive-qa": 20, "closed-book-qa": 20, "summarisation": 60}
"""Most tokens written per kind of task; Su et al. used 10 for questions and 50 for summaries."""


@dataclass(frozen=True)
class Score:
    """The value of a task's metric with what is needed to read it."""

    task: str
    metric: str
    value: float
    """0 to 1."""
    rows: int
    chance: float
    """The value of the majority answer (0 where text is written)."""
    values: dict[str, float]
    """All metrics of the task's kind."""
    loss: float | None = None
    cut: float = 0.0
    """Share of rows whose text was cut to fit."""

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


@dataclass(frozen=True, eq=False)
class EncodedTask:
    """The rows of a task in the tokens of one backbone, made once and used by every prompt."""

    task: Task
    examples: tuple[Example, ...]
    rows: tuple[Row, ...]
    length: int
    layout: Layout

    @property
    def cut(self) -> float:
        """Share of rows whose text was cut."""
        return sum(row.cut for row in self.rows) / len(self.rows)


def encode_task(
    backbone: Backbone,
    task: Task,
    examples: Sequence[Example],
    *,
    length: int,
    layout: Layout,
    max_length: int | None = None,
    aggregation: str | None = None,
) -> EncodedTask:
    """Tokenise the rows of a task for prompts of `length` under `layout`."""
    rows = backbone.encode(
        task, examples, length=length, layout=layout, max_length=max_length, aggregation=aggregation
    )
    return EncodedTask(task, tuple(examples), tuple(rows), length, layout)


def evaluate_bank(
    backbone: Backbone, bank: Tensor, encoded: EncodedTask, *, advance: Callable[[int], None] | None = None
) -> list[Score]:
    """Score every prompt of `bank` [prompts, length, width] on the same rows; one Score a prompt, in order.

    A bank of length 0 measures the backbone without a prompt. `advance` is called with the number of rows done.
    """
    predictions, losses = predict(backbone, bank, encoded, advance=advance)
    task = encoded.task
    base = chance(task, encoded.examples)
    scores = []
    for index, predicted in enumerate(predictions):
        values = score(task.metric, predicted, encoded.examples)
        scores.append(
            Score(
                task=task.name,
                metric=task.metric,
                value=values[task.metric],
                rows=len(encoded.rows),
                chance=base,
                values=values,
                loss=None if losses is None else float(losses[index]),
                cut=encoded.cut,
            )
        )
    return scores


@torch.no_grad()
def predict(
    backbone: Backbone, bank: Tensor, encoded: EncodedTask, *, advance: Callable[[int], None] | None = None
) -> tuple[list[list[Any]], Tensor | None]:
    """The answer of every prompt for every row (label index or text), and the mean loss [prompts] of label tasks.

    The processes of the backbone share the rows, and each has all answers in the end.
    """
    count = len(bank)
    answers: list[list[Any]] = [[None] * len(encoded.rows) for _ in range(count)]
    losses = None if encoded.task.generates else torch.zeros(count, dtype=torch.float64)
    for indices, batch in batches(backbone, encoded, prompts=count, processes=backbone.processes):
        prompts = bank.to(backbone.device).repeat_interleave(batch.rows, dim=0)
        wide = repeat(batch, count)
        if losses is None:
            written: Sequence[Any] = backbone.generate(
                prompts, wide, max_new_tokens=NEW_TOKENS[encoded.task.kind]
            )
        else:
            scores = backbone.label_scores(prompts, wide)
            assert wide.labels is not None
            row_losses = -scores.gather(1, wide.labels.clamp(min=0)[:, None]).squeeze(1)
            own = row_losses.reshape(count, -1)[:, : len(indices)]
            losses += own.double().sum(dim=1).cpu()
            written = scores.argmax(dim=1).tolist()
        for position, answer in enumerate(written):
            prompt, row = divmod(position, batch.rows)
            if row < len(indices):
                answers[prompt][indices[row]] = answer
        if advance is not None:
            advance(len(indices))
    answers, losses = _joined(backbone.processes.gather((answers, losses)))
    return answers, None if losses is None else losses / len(encoded.rows)


def _joined(
    found: Sequence[tuple[list[list[Any]], Tensor | None]],
) -> tuple[list[list[Any]], Tensor | None]:
    """The answers and summed losses of several processes, each of which has those of its own rows, as one."""
    answers, losses = found[0]
    for others, more in found[1:]:
        for known, new in zip(answers, others, strict=True):
            known[:] = [b if a is None else a for a, b in zip(known, new, strict=True)]
        losses = None if losses is None or more is None else losses + more
    return answers, losses


def batches(
    backbone: Backbone, encoded: EncodedTask, *, prompts: int, processes: Processes = ALONE
) -> Iterator[tuple[list[int], Batch]]:
    """Rows in order of length, as many at a time as `prompts` copies of them are worth running together (batching.py).

    Of `processes`, each gets its share of every batch. One that is left without a row gets a row that counts for
    nothing (there is no index for it), because all of them run the same number of batches.
    """
    order = sorted(range(len(encoded.rows)), key=lambda index: encoded.rows[index].size)
    fixed = encoded.length + backbone.special_tokens
    parts = cut(
        [encoded.rows[index].size + fixed for index in order],
        most=backbone.tokens_at_once * processes.count,
        call=backbone.call_tokens * processes.count,
        copies=prompts,
    )
    for part in parts:
        indices = processes.share(order[part])
        rows = [encoded.rows[i] for i in indices or order[part][:1]]
        yield indices, backbone.batch(rows, layout=encoded.layout)


def batch_sizes(backbone: Backbone, encoded: EncodedTask, *, prompts: int) -> set[tuple[int, int]]:
    """Rows and time, padding and prompts included, of the batches that an evaluation of `prompts` prompts runs."""
    return {
        (prompts * batch.rows, batch.ids.shape[1] + encoded.length)
        for _, batch in batches(backbone, encoded, prompts=prompts, processes=backbone.processes)
    }


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
    )
