"""Lessons and pairs: what trained prompts and backbones give a projector to learn from.

Pairs join the prompts of one task on the two models, seed by seed; lessons put the target model's task loss behind
the projector. Here backbones meet projectors; fitting.py knows tensors alone.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from projectors.closed_form import SharedWords, shared_words
from projectors.fitting import Lesson, Pair, TaskLoss
from prompttransfer.adaptations.adaptation import Adaptation
from prompttransfer.adaptations.bank import VectorBank
from prompttransfer.backbones.answer_losses import answer_losses
from prompttransfer.backbones.base import Backbone
from prompttransfer.backbones.interventions import Vectors
from prompttransfer.backbones.layouts import Encoding, Layout
from prompttransfer.backbones.rows import Row, of_rows
from prompttransfer.evaluation.encoding import encode_task
from prompttransfer.evaluation.evaluate import evaluate_bank
from prompttransfer.training.batches import RowOrder
from prompttransfer.training.distillation import divergence
from tasks.errors import UserError
from tasks.task import Example, Task

SMALLEST = 1e-8
"""Probability that a source gives a label at least, so that its logarithm is finite."""

PromptsByTask = Mapping[str, Sequence[Adaptation]]


def group_by_task(prompts: Sequence[Adaptation]) -> dict[str, list[Adaptation]]:
    """Task -> its prompts, in the order of their seeds."""
    grouped: dict[str, list[Adaptation]] = {}
    for prompt in sorted(
        prompts, key=lambda prompt: (prompt.task, prompt.seed is None, prompt.seed or 0, prompt.name)
    ):
        grouped.setdefault(prompt.task, []).append(prompt)
    return grouped


def check_covered(tasks: Sequence[str], prompts: PromptsByTask, side: str, role: str = "fitting") -> None:
    """Raise UserError naming the tasks of this role (`fitting`, `unseen`) that have no prompt on this side."""
    missing = [task for task in tasks if not prompts.get(task)]
    if missing:
        option = "--tasks" if role == "fitting" else "--unseen"
        raise UserError(
            f"no {side} prompt for {role} task{'s' * (len(missing) > 1)} {', '.join(missing)} (there are prompts for "
            f"{', '.join(sorted(prompts)) or 'no task'}): train them, or leave them out of {option}"
        )


def pairs_of(tasks: Sequence[str], source: PromptsByTask, target: PromptsByTask) -> list[Pair]:
    """Every source prompt of a task with every target prompt of it; equal seeds only, where both sides know them.

    A source seed that the target side lacks is paired with all of the target's, so that no prompt is lost.
    """
    check_covered(tasks, source, "source")
    check_covered(tasks, target, "target")
    pairs = []
    for task in tasks:
        for one in source[task]:
            same = [other for other in target[task] if other.seed == one.seed and one.seed is not None]
            pairs += [Pair(task, one.vectors, other.vectors) for other in same or target[task]]
    return pairs


def untrained_of(tasks: Sequence[str], target: PromptsByTask) -> Tensor | None:
    """[n, L_t, d_t] the target prompts before their first step, each once; None where none kept its start."""
    starts = [
        prompt.first_vectors
        for task in tasks
        for prompt in target.get(task, ())
        if prompt.first_vectors is not None
    ]
    if not starts:
        return None
    return torch.unique(torch.stack(starts), dim=0)


def lesson(
    backbone: Backbone,
    task: Task,
    examples: Sequence[Example],
    sources: Sequence[Adaptation],
    *,
    encoding: Encoding,
    length: int,
    batch: int = 32,
    seed: int = 0,
    answers: Tensor | None = None,
) -> Lesson:
    """The lesson of one fitting task: rows of it, shared out among the projected prompts of a step.

    `answers` are those of `source_answers` to the same rows, where the source's are learned from.
    """
    rows = backbone.encode(task, examples, encoding, reserved=length)
    layout = encoding.place(backbone.family)
    order = RowOrder(tuple(row.size for row in rows), batch, seed)
    vectors = torch.stack([prompt.vectors for prompt in sources])
    said = repr((backbone.name, backbone.revision, backbone.dtype, layout, rows, batch, seed))
    origin = hashlib.sha256(said.encode() + (b"" if answers is None else answers.numpy().tobytes()))
    loss = task_loss(backbone, rows, order, layout=layout, answers=answers)
    return Lesson(task.name, vectors, loss, origin.hexdigest())


def task_loss(
    backbone: Backbone,
    rows: Sequence[Row],
    order: RowOrder,
    *,
    layout: Layout,
    answers: Tensor | None = None,
) -> TaskLoss:
    """The mean loss of the rows of a step, row i under prompt i modulo k of the k that are given.

    `answers` [n, rows, classes] are what the source says under each of its n prompts, as log-probabilities; a loss with
    `distil` above 0 needs them.
    """

    def loss(prompts: Tensor, which: Tensor, step: int, distil: float = 0.0) -> Tensor:
        numbers = order.step(step)
        batch = backbone.batch([rows[number] for number in numbers], layout=layout)
        owners = torch.arange(batch.rows) % len(prompts)
        own = Vectors(of_rows(prompts.to(backbone.device), owners.to(backbone.device)))
        if not distil:
            return backbone.loss(own, batch).mean()
        assert answers is not None
        scores = backbone.label_scores(own, batch)
        wanted = answers[which[owners], torch.tensor(numbers)].to(scores)
        return (answer_losses(scores, batch) + distil * divergence(scores, wanted)).mean()

    return loss


def check_answers(task: Task) -> None:
    """Raise UserError for a task that is not answered by label words, whose scores a target could learn from."""
    if not task.has_words:
        raise UserError(
            f"task {task.name!r} has no label words, whose scores the target could learn from: leave out --distil-weight"
        )


def source_answers(
    backbone: Backbone,
    task: Task,
    examples: Sequence[Example],
    prompts: Sequence[Adaptation],
    encoding: Encoding,
) -> Tensor:
    """What the source says to each row under each of its prompts, [prompts, rows, classes], as log-probabilities."""
    encoded = encode_task(backbone, task, examples, encoding, reserved=prompts[0].length)
    bank = VectorBank(torch.stack([prompt.vectors for prompt in prompts]))
    scores = evaluate_bank(backbone, bank, encoded, keep=True)
    said = [score.answered.probabilities for score in scores if score.answered is not None]
    return torch.tensor(said).clamp_min(SMALLEST).log()


def words_between(source: Backbone, target: Backbone) -> SharedWords:
    """The words that both backbones hold whole, without special tokens, with their embeddings."""
    return shared_words(
        ordinary(source), source.embedding_table(), ordinary(target), target.embedding_table()
    )


def ordinary(backbone: Backbone) -> dict[str, int]:
    """Token -> id of the tokens of a backbone that stand for text."""
    kept = set(backbone.ordinary_tokens)
    return {token: index for token, index in backbone.tokenizer.get_vocab().items() if index in kept}
