"""Evaluation: several prompts at once on the rows of one task, with no training.

Each row is tokenised once, rows run sorted by length so that little is padded, and all prompts of a bank pass over
the same rows together; only the label words' logits are computed. The score of one prompt does not depend on the
others in the bank beyond float rounding.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from prompttransfer.adaptations.bank import Bank, BareBank, on_the_same
from prompttransfer.backbones.answer_losses import answer_losses
from prompttransfer.backbones.base import Backbone
from prompttransfer.backbones.kernels.token_batching import cut
from prompttransfer.backbones.rows import Batch
from prompttransfer.distributed.processes import ALONE, Processes
from prompttransfer.evaluation.encoding import EncodedTask
from tasks.metrics import chance, needs_probabilities, score
from tasks.task import Task
from tasks.value_metrics import is_constant

NEW_TOKENS = {"extractive-qa": 20, "closed-book-qa": 20, "summarisation": 60}
"""Most tokens written per kind of task; Su et al. used 10 for questions and 50 for summaries."""


CONSTANT = "constant"
"""Among the values of a regression: the number that was said to every row, with which nothing correlates."""


@dataclass(frozen=True)
class Answered:
    """What was said to each row."""

    said: tuple[Any, ...]
    """Index of a label, a number, indices of labels, or the text that was written."""
    probabilities: tuple[tuple[float, ...], ...] | None
    """[rows, labels]; None where text is written."""


@dataclass(frozen=True)
class Score:
    """The value of a task's metric with what is needed to read it."""

    task: str
    metric: str
    value: float
    """0 to 1; `mcc` and correlations -1 to 1."""
    rows: int
    chance: float
    """The value of the majority answer (0 where text is written)."""
    values: dict[str, float]
    """All metrics of the task's kind; of a regression also `constant`, where that number was said to every row."""
    loss: float | None = None
    cut: float = 0.0
    """Share of rows whose text was cut to fit."""
    answered: Answered | None = field(default=None, repr=False, compare=False)
    """The answers themselves, where they were to be kept."""

    def as_dict(self) -> dict[str, Any]:
        """For JSON, without the answers."""
        return {name: value for name, value in vars(self).items() if name != "answered"}


def evaluate_bank(
    backbone: Backbone,
    bank: Bank,
    encoded: EncodedTask,
    *,
    advance: Callable[[int], None] | None = None,
    keep: bool = False,
) -> list[Score]:
    """Score every prompt of `bank` [prompts, length, width] on the same rows; one Score a prompt, in order.

    `BareBank()` measures the backbone alone. `advance` is called with the number of rows done. With `keep` the scores have
    their answers.
    """
    (found,) = _predict(backbone, bank, encoded, (None,), advance, keep=keep)
    return _scores(encoded, found, keep=keep)


def bare_score(backbone: Backbone, encoded: EncodedTask) -> Score | None:
    """The score of the backbone alone; None where a task is answered by a trained head, of which it has none."""
    return None if encoded.task.head else evaluate_bank(backbone, BareBank(), encoded)[0]


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
                answered=None,
            )
        )
    return found


def evaluate_calibrated(
    backbone: Backbone, bank: Bank, encoded: EncodedTask, bias: Tensor, *, keep: bool = False
) -> tuple[list[Score], list[Score]]:
    """The scores of every prompt as they are and less the `bias` of its label words, from the same passes.

    `bias` is [prompts, classes], the log-probabilities that evaluation/calibration.py takes for each prompt's bias.
    """
    raw, calibrated = _predict(backbone, bank, encoded, (None, bias), keep=keep)
    return _scores(encoded, raw, keep=keep), _scores(encoded, calibrated, keep=keep)


@dataclass(frozen=True)
class Predicted:
    """What a bank says to the rows of a task."""

    answers: list[list[Any]]
    """The answer of every prompt for every row: label index or text."""
    losses: Tensor | None
    """The mean loss [prompts] of label tasks."""
    probabilities: list[list[tuple[float, ...]]] | None = None
    """[prompts, rows, classes], where they were to be kept."""

    def of(self, prompt: int) -> Answered:
        """The answers of one prompt."""
        shares = None if self.probabilities is None else tuple(self.probabilities[prompt])
        return Answered(tuple(self.answers[prompt]), shares)


def _scores(encoded: EncodedTask, found: Predicted, *, keep: bool) -> list[Score]:
    """What the answers of each prompt are worth."""
    task = encoded.task
    base = chance(task, encoded.examples)
    scores = []
    for index in range(len(found.answers)):
        answered = found.of(index)
        values = score(
            task.metric,
            answered.said,
            encoded.examples,
            labels=task.labels,
            probabilities=answered.probabilities,
        )
        if task.scale is not None and is_constant(answered.said):
            values[CONSTANT] = float(answered.said[0])
        scores.append(
            Score(
                task=task.name,
                metric=task.metric,
                value=values[task.metric],
                rows=len(encoded.rows),
                chance=base,
                values=values,
                loss=None if found.losses is None else float(found.losses[index]),
                cut=encoded.cut,
                answered=answered if keep else None,
            )
        )
    return scores


def predict(
    backbone: Backbone, bank: Bank, encoded: EncodedTask, *, advance: Callable[[int], None] | None = None
) -> tuple[list[list[Any]], Tensor | None]:
    """The answer of every prompt for every row (label index or text), and the mean loss [prompts] of label tasks.

    The processes of the backbone share the rows, and each has all answers in the end.
    """
    (found,) = _predict(backbone, bank, encoded, (None,), advance)
    return found.answers, found.losses


@torch.no_grad()
def _predict(
    backbone: Backbone,
    bank: Bank,
    encoded: EncodedTask,
    biases: Sequence[Tensor | None],
    advance: Callable[[int], None] | None = None,
    *,
    keep: bool = False,
) -> list[Predicted]:
    """What `predict` gives, once for each of the `biases` [prompts, classes] that are taken from the label words' scores.

    Probabilities of labels are kept where they are asked for, or where the metric looks at them.
    """
    count = bank.members
    keep = (keep or needs_probabilities(encoded.task.metric)) and not encoded.task.generates
    tallies = [_Tally(encoded, count, keep=keep) for _ in biases]
    for indices, batch in batches(backbone, encoded, prompts=count, processes=backbone.processes):
        own, wide = on_the_same(bank, batch)
        if encoded.task.generates:
            written = backbone.generate(own, wide, max_new_tokens=NEW_TOKENS[encoded.task.kind])
            for tally in tallies:
                tally.write(written, indices, batch.rows)
        else:
            scores = backbone.label_scores(own, wide)
            for tally, bias in zip(tallies, biases, strict=True):
                tally.choose(_less(scores, bias, batch.rows), wide, indices, batch.rows)
        if advance is not None:
            advance(len(indices))
    return [tally.finish(backbone.processes) for tally in tallies]


def _less(scores: Tensor, bias: Tensor | None, rows: int) -> Tensor:
    """Log-probabilities over the label words once their bias is taken off; `scores` [prompts x rows, classes]."""
    if bias is None:
        return scores
    return torch.log_softmax(scores - bias.to(scores).repeat_interleave(rows, dim=0), dim=-1)


def said(task: Task, scores: Tensor) -> list[Any]:
    """The answer to each row of a task, by the log-probabilities of its label words [rows, classes]: the index of the best
    label, or the number that the probabilities stand for; by log odds the indices of all labels that are likelier than not."""
    if task.separator:
        return [tuple(i for i, odds in enumerate(row) if odds > 0) for row in scores.tolist()]
    if task.scale is None:
        best: list[Any] = scores.argmax(dim=1).tolist()
        return best
    return [task.scale.value(shares) for shares in scores.double().exp().tolist()]


class _Tally:
    """The answers and losses of a bank on the rows of a task, as batches come in."""

    def __init__(self, encoded: EncodedTask, prompts: int, *, keep: bool):
        self.task, self.rows = encoded.task, len(encoded.rows)
        self.answers = self._empty(prompts)
        self.probabilities = self._empty(prompts) if keep else None
        self.losses = None if encoded.task.generates else torch.zeros(prompts, dtype=torch.float64)

    def _empty(self, prompts: int) -> list[list[Any]]:
        return [[None] * self.rows for _ in range(prompts)]

    def choose(self, scores: Tensor, wide: Batch, indices: Sequence[int], rows: int) -> None:
        """Take the answer of each row; of a batch of `rows` rows only those of `indices` count.

        `scores` [prompts x rows, classes] are of the rows of `wide`, once for each prompt.
        """
        assert self.losses is not None
        own = answer_losses(scores, wide).reshape(len(self.answers), -1)[:, : len(indices)]
        self.losses += own.double().sum(dim=1).cpu()
        self.write(said(self.task, scores), indices, rows)
        if self.probabilities is not None:
            shares = (scores.double().sigmoid() if wide.several else scores.double().softmax(dim=1)).tolist()
            self._put(self.probabilities, [tuple(share) for share in shares], indices, rows)

    def write(self, written: Sequence[Any], indices: Sequence[int], rows: int) -> None:
        """Put the answers of a batch at their places."""
        self._put(self.answers, written, indices, rows)

    @staticmethod
    def _put(places: list[list[Any]], values: Sequence[Any], indices: Sequence[int], rows: int) -> None:
        for position, value in enumerate(values):
            prompt, row = divmod(position, rows)
            if row < len(indices):
                places[prompt][indices[row]] = value

    def finish(self, processes: Processes) -> Predicted:
        """The answers of all processes, and the mean losses."""
        found = processes.gather((self.answers, self.losses, self.probabilities))
        answers, losses, probabilities = found[0]
        for others, more, shares in found[1:]:
            _fill(answers, others)
            if probabilities is not None and shares is not None:
                _fill(probabilities, shares)
            losses = None if losses is None or more is None else losses + more
        return Predicted(answers, None if losses is None else losses / self.rows, probabilities)


def _fill(known: list[list[Any]], others: Sequence[Sequence[Any]]) -> None:
    """Put what another process has for its own rows into the places that are empty here."""
    for mine, theirs in zip(known, others, strict=True):
        mine[:] = [new if old is None else old for old, new in zip(mine, theirs, strict=True)]


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
