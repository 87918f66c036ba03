"""Answers for rows that each name an adaptation: rows of different adaptations, methods and tasks run together.

Adaptations that can run together stand in one bank; a batch holds rows of any of its members and of any tasks, in order
of length. What is asked is answered as the adaptation was trained: with its layout, length of texts and label words.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch

from prompttransfer.adaptations.adaptation import Adaptation
from prompttransfer.adaptations.bank import Bank
from prompttransfer.adaptations.running import bank_of, check_on, check_reads
from prompttransfer.backbones.base import Backbone
from prompttransfer.backbones.kernels.token_batching import cut
from prompttransfer.backbones.layouts import Encoding
from prompttransfer.backbones.rows import Row
from prompttransfer.evaluation.evaluate import NEW_TOKENS
from prompttransfer.evaluation.grouped import alike
from tasks.task import Example, Task, with_words


@dataclass(frozen=True)
class Question:
    """A row of a task, and which adaptation (its place among those that are there) is to answer it."""

    place: int
    task: Task
    example: Example


@dataclass(frozen=True)
class Answer:
    """What an adaptation says to a row."""

    label: str | None
    """The likeliest label; None where text is written, or a number or several labels are asked for."""
    probabilities: dict[str, float]
    """Label -> probability; they sum to 1 where one label is right. Empty where text is written."""
    text: str | None
    """The text that is written, or the word of the label; None where no word is read (a probe)."""
    value: float | None = None
    """The number, of a regression."""
    labels: tuple[str, ...] | None = None
    """All labels that are likelier than not, where a row may have several; probabilities are then each label's own."""

    def as_dict(self) -> dict[str, Any]:
        """For JSON; a number or several labels only where these are asked for."""
        given = asdict(self)
        return {key: v for key, v in given.items() if key not in ("value", "labels") or v is not None}


class Answers:
    """Adaptations of any methods on one backbone, ready to answer.

    Raises UserError for one that was not trained on this backbone, unless it `takes_any`.
    """

    def __init__(
        self,
        backbone: Backbone,
        adaptations: Sequence[Adaptation],
        *,
        max_length: int | None = None,
        template: str | None = None,
        other_layout: bool = False,
    ):
        self.backbone = backbone
        self.max_length, self.template = max_length, template
        self.adaptations = tuple(adaptations)
        for each in adaptations:
            _check(backbone, each, template, other_layout)
        self.groups = alike(adaptations, template=template)
        self.banks = [bank_of(backbone, group.adaptations) for group, _ in self.groups]
        self.homes = {
            place: (number, member)
            for number, (group, _) in enumerate(self.groups)
            for member, place in enumerate(group.places)
        }
        """Place of an adaptation -> its bank, and which member of it."""

    def __call__(
        self, questions: Sequence[Question], *, advance: Callable[[int], None] | None = None
    ) -> list[Answer]:
        """The answers, in the order of the questions; `advance` is called with the number of rows done."""
        rows, encodings = self._rows(questions)
        together: dict[tuple[int, int | None, str], list[int]] = {}
        for index, question in enumerate(questions):
            written = NEW_TOKENS[question.task.kind] if question.task.generates else None
            key = (self.homes[question.place][0], written, rows[index].kind)
            together.setdefault(key, []).append(index)
        found: list[Any] = [None] * len(questions)
        for (number, written, _), indices in together.items():
            for part in self._parts(number, indices, rows):
                answers = self._run(number, written, [(questions[i], rows[i], encodings[i]) for i in part])
                for index, answer in zip(part, answers, strict=True):
                    found[index] = answer
                if advance is not None:
                    advance(len(part))
        return found

    def _rows(self, questions: Sequence[Question]) -> tuple[list[Row], list[tuple[Task, Encoding]]]:
        """Each question in tokens, and the task and encoding that it is read by."""
        alike_rows: dict[tuple[int, Task], list[int]] = {}
        for index, question in enumerate(questions):
            alike_rows.setdefault((question.place, question.task), []).append(index)
        rows: list[Any] = [None] * len(questions)
        read: list[Any] = [None] * len(questions)
        for (place, task), indices in alike_rows.items():
            own = self.adaptations[place]
            task = in_own_words(task, own)
            encoding = replace(
                own.encoding,
                max_length=self.max_length or own.encoding.max_length,
                template=self.template or own.encoding.template,
            )
            reserved = self.groups[self.homes[place][0]][0].reserved
            examples = [questions[index].example for index in indices]
            encoded = self.backbone.encode(task, examples, encoding, reserved=reserved)
            for index, row in zip(indices, encoded, strict=True):
                rows[index], read[index] = row, (task, encoding)
        return rows, read

    def _parts(self, number: int, indices: Sequence[int], rows: Sequence[Row]) -> list[list[int]]:
        """Rows of one bank that run together, in order of length."""
        order = sorted(indices, key=lambda index: rows[index].size)
        fixed = self.groups[number][0].reserved + self.backbone.special_tokens
        sizes = [rows[index].size + fixed for index in order]
        parts = cut(sizes, most=self.backbone.tokens_at_once, call=self.backbone.call_tokens)
        return [order[part] for part in parts]

    @torch.no_grad()
    def _run(
        self, number: int, written: int | None, asked: Sequence[tuple[Question, Row, tuple[Task, Encoding]]]
    ) -> list[Answer]:
        backbone, bank = self.backbone, self.banks[number]
        own = bank.rows(self._owners(bank, [question.place for question, _, _ in asked]))
        layout = asked[0][2][1].place(backbone.family)
        batch = backbone.batch([row for _, row, _ in asked], layout=layout)
        if written is not None:
            texts = backbone.generate(own, batch, max_new_tokens=written)
            return [Answer(None, {}, text) for text in texts]
        scores = backbone.label_scores(own, batch)
        shares = (scores.sigmoid() if batch.several else scores.exp()).cpu().tolist()
        return [
            self._labelled(task, encoding, share, worded=not own.has_head)
            for share, (_, _, (task, encoding)) in zip(shares, asked, strict=True)
        ]

    def _owners(self, bank: Bank, places: Sequence[int]) -> torch.Tensor:
        return torch.tensor([self.homes[place][1] for place in places], device=self.backbone.device)

    def _labelled(self, task: Task, encoding: Encoding, shares: Sequence[float], *, worded: bool) -> Answer:
        probabilities = dict(zip(task.labels, shares, strict=False))  # rows of fewer classes are padded
        if task.separator:
            likely = tuple(name for name, share in probabilities.items() if share > 0.5)
            return Answer(None, probabilities, None, labels=likely)
        if task.scale is not None:
            return Answer(None, probabilities, None, task.scale.value(shares))
        label = max(probabilities, key=lambda name: probabilities[name])
        words = self.backbone.answers(task, encoding) if worded and task.has_words else None
        return Answer(label, probabilities, words.mapping[label] if words else None)


def in_own_words(task: Task, adaptation: Adaptation) -> Task:
    """The adaptation's own task with the label words that it was trained with; another task as it is."""
    words = {label: word for label, word in adaptation.origin.words.items() if label in task.labels}
    return with_words(task, words) if words and task.name == adaptation.task else task


def _check(backbone: Backbone, adaptation: Adaptation, template: str | None, other_layout: bool) -> None:
    check_on(
        adaptation,
        backbone,
        layout=adaptation.layout,
        other_backbone=backbone.takes_any,
    )
    check_reads(adaptation, backbone, template or adaptation.encoding.template, other_layout=other_layout)
    adaptation.method.check_fits(backbone, adaptation.tensors, adaptation.name)
