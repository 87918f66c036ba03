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

from prompttransfer.adaptations.bank import Bank, on_the_same
from prompttransfer.backbones.base import Backbone
from prompttransfer.backbones.kernels.token_batching import cut
from prompttransfer.backbones.rows import Batch
from prompttransfer.distributed.processes import ALONE, Processes
from prompttransfer.evaluation.encoding import EncodedTask
from tasks.metrics import chance, score

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


def evaluate_bank(
    backbone: Backbone, bank: Bank, encoded: EncodedTask, *, advance: Callable[[int], None] | None = None
) -> list[Score]:
    """Score every prompt of `bank` [prompts, length, width] on the same rows; one Score a prompt, in order.

    `BareBank()` measures the backbone alone. `advance` is called with the number of rows done.
    """
    return _scores(encoded, *predict(backbone, bank, encoded, advance=advance))


def mean_scores(scores: Sequence[Sequence[Score]]) -> list[Score]:
    """The mean score of every prompt over several tasks, of each of which `scores` has a list; of one task its own.

    The loss is the mean over tasks that have one.
    """
    if len(scores) == 1:
        return list(scores[0])
    found = []
    for own in zip(*scores, strict=True):
        losses = [score.loss for score in own if score.loss is not None]
        metrics = {score.metric for score in own}
        found.append(
            replace(
                own[0],
                task="+".join(score.task for score in own),
                metric=metrics.pop() if len(metrics) == 1 else "mean",
                value=sum(score.value for score in own) / len(own),
                values={score.task: score.value for score in own},
                rows=sum(score.rows for score in own),
                chance=sum(score.chance for score in own) / len(own),
                cut=sum(score.cut for score in own) / len(own),
                loss=sum(losses) / len(losses) if losses else None,
            )
        )
    return found


def evaluate_calibrated(
    backbone: Backbone, bank: Bank, encoded: EncodedTask, bias: Tensor
) -> tuple[list[Score], list[Score]]:
    """The scores of every prompt as they are and less the `bias` of its label words, from the same passes.

    `bias` is [prompts, classes], the log-probabilities that evaluation/calibration.py takes for each prompt's bias.
    """
    raw, calibrated = _predict(backbone, bank, encoded, (None, bias))
    return _scores(encoded, *raw), _scores(encoded, *calibrated)


def _scores(encoded: EncodedTask, predictions: list[list[Any]], losses: Tensor | None) -> list[Score]:
    """What the answers of each prompt are worth."""
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


Predicted = tuple[list[list[Any]], Tensor | None]
"""The answer of every prompt for every row, and the mean loss [prompts] of label tasks."""


def predict(
    backbone: Backbone, bank: Bank, encoded: EncodedTask, *, advance: Callable[[int], None] | None = None
) -> Predicted:
    """The answer of every prompt for every row (label index or text), and the mean loss [prompts] of label tasks.

    The processes of the backbone share the rows, and each has all answers in the end.
    """
    return _predict(backbone, bank, encoded, (None,), advance)[0]


@torch.no_grad()
def _predict(
    backbone: Backbone,
    bank: Bank,
    encoded: EncodedTask,
    biases: Sequence[Tensor | None],
    advance: Callable[[int], None] | None = None,
) -> list[Predicted]:
    """What `predict` gives, once for each of the `biases` [prompts, classes] that are taken from the label words' scores."""
    count = bank.members
    tallies = [_Tally(encoded, count) for _ in biases]
    for indices, batch in batches(backbone, encoded, prompts=count, processes=backbone.processes):
        own, wide = on_the_same(bank, batch)
        if encoded.task.generates:
            written = backbone.generate(own, wide, max_new_tokens=NEW_TOKENS[encoded.task.kind])
            for tally in tallies:
                tally.write(written, indices, batch.rows)
        else:
            scores = backbone.label_scores(own, wide)
            assert wide.labels is not None
            for tally, bias in zip(tallies, biases, strict=True):
                tally.choose(_less(scores, bias, batch.rows), wide.labels, indices, batch.rows)
        if advance is not None:
            advance(len(indices))
    return [tally.finish(backbone.processes) for tally in tallies]


def _less(scores: Tensor, bias: Tensor | None, rows: int) -> Tensor:
    """Log-probabilities over the label words once their bias is taken off; `scores` [prompts x rows, classes]."""
    if bias is None:
        return scores
    return torch.log_softmax(scores - bias.to(scores).repeat_interleave(rows, dim=0), dim=-1)


class _Tally:
    """The answers and losses of a bank on the rows of a task, as batches come in."""

    def __init__(self, encoded: EncodedTask, prompts: int):
        self.rows = len(encoded.rows)
        self.answers: list[list[Any]] = [[None] * self.rows for _ in range(prompts)]
        self.losses = None if encoded.task.generates else torch.zeros(prompts, dtype=torch.float64)

    def choose(self, scores: Tensor, labels: Tensor, indices: Sequence[int], rows: int) -> None:
        """Take the best label of each row; of a batch of `rows` rows only those of `indices` count."""
        assert self.losses is not None
        row_losses = -scores.gather(1, labels.clamp(min=0)[:, None]).squeeze(1)
        own = row_losses.reshape(len(self.answers), -1)[:, : len(indices)]
        self.losses += own.double().sum(dim=1).cpu()
        self.write(scores.argmax(dim=1).tolist(), indices, rows)

    def write(self, written: Sequence[Any], indices: Sequence[int], rows: int) -> None:
        """Put the answers of a batch at their places."""
        for position, answer in enumerate(written):
            prompt, row = divmod(position, rows)
            if row < len(indices):
                self.answers[prompt][indices[row]] = answer

    def finish(self, processes: Processes) -> Predicted:
        """The answers of all processes, and the mean losses."""
        answers, losses = _joined(processes.gather((self.answers, self.losses)))
        return answers, None if losses is None else losses / self.rows


def _joined(found: Sequence[Predicted]) -> Predicted:
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
    """Rows in order of length, as many at a time as `prompts` copies of them are worth running together (backbones/kernels/token_batching.py).

    Of `processes`, each gets its share of every batch. One that is left without a row gets a row that counts for
    nothing (there is no index for it), because all of them run the same number of batches.
    """
    order = sorted(range(len(encoded.rows)), key=lambda index: encoded.rows[index].size)
    fixed = encoded.reserved + backbone.special_tokens
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
        (prompts * batch.rows, batch.ids.shape[1] + encoded.reserved)
        for _, batch in batches(backbone, encoded, prompts=prompts, processes=backbone.processes)
    }
