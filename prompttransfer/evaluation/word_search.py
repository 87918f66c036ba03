"""Label words searched for: words of the model's own vocabulary that its answers to a few labelled rows lean to.

As LM-BFF does it (Gao et al. 2021, arXiv 2012.15723, section 5.1): of each label the words that a few of its rows make
likely, then combinations of them by validation rows. A word counts by how much likelier the rows of its label make it than
the others' do (Schick et al. 2020, arXiv 2010.13641), not by its likelihood alone, in which common words win for every label.
All combinations go to the validation rows, which costs no pass: the accuracy of 32 rows, by which LM-BFF prunes them, is mostly
chance. The task's own words are candidates too. The model is asked as it is, without an adaptation.

One pass scores many words: they are the labels of a task that is made for it. A word that stands in every such task ties
the passes together, as differences of scores do not depend on what else was asked.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product

import numpy as np
import torch
from numpy.typing import NDArray

from prompttransfer.adaptations.bank import BareBank, on_the_same
from prompttransfer.backbones.base import Backbone
from prompttransfer.backbones.layouts import USUAL, Encoding
from prompttransfer.evaluation.encoding import encode_task
from prompttransfer.evaluation.evaluate import evaluate_bank
from tasks.errors import UserError
from tasks.loading import Splits, drawn_by_label
from tasks.task import FAMILIES, Example, Task

Floats = NDArray[np.float64]
Columns = tuple[int, ...]
"""Of each label, the column of its word."""

TOGETHER = 500
"""Words of one pass."""
ROWS_TOGETHER = 32
LIKELY = 0.2
"""The share of the words, the likeliest of a label's rows, that its candidates are among."""
MOST_COMBINATIONS = 50_000
"""Above this many, combinations are searched label by label."""
KEPT = 20
"""Combinations that are told of."""


@dataclass(frozen=True)
class Words:
    """Words for the labels of a task, and what they are worth without any adaptation."""

    words: dict[str, str]
    """Label -> word."""
    learned: float
    """Accuracy on the labelled rows that proposed them."""
    validation: float
    """Accuracy on the validation rows that chose among them."""


@dataclass(frozen=True)
class Search:
    """What was found."""

    default: Words
    """Those that the task has."""
    found: tuple[Words, ...]
    """The best first."""
    rows: int
    validation_rows: int
    combinations: int
    """How many the validation rows chose among."""
    pool: int
    """Words of the vocabulary that were asked about."""


def search_words(
    backbone: Backbone,
    task: Task,
    splits: Splits,
    encoding: Encoding = USUAL,
    *,
    shots: int = 16,
    candidates: int = 20,
    pool: int = 4000,
    seed: int = 0,
) -> Search:
    """Words for the labels of `task` by `shots` training rows of each; the default's scores beside them.

    Only training and validation rows are looked at. Raises UserError for a task without labels, too few rows of one, or a
    vocabulary without words.
    """
    if not task.has_words:
        how = "writes its answers" if task.generates else "is answered by a trained head"
        raise UserError(f"task {task.name!r} {how}: it has no label words to search for")
    if not task.one_label:
        raise UserError(
            f"task {task.name!r} has no one label a row, by which words could be searched: choose them yourself"
        )
    answers = backbone.answers(task, encoding)
    assert answers is not None
    rows = drawn_by_label(splits.train, task.labels, seed, shots, splits.source)
    default = [word for word in answers.words if _is_whole(backbone, word)]
    words = [*default, *(word for word in whole_words(backbone, pool) if word not in default)]
    if len(words) < 2 * len(task.labels):
        raise UserError(f"{backbone.name} has {len(words)} words of one token: too few to choose among")
    truth = np.array([row.label for row in rows])
    scores = word_scores(backbone, task, words, rows, encoding)
    chosen = _candidates(scores, truth, len(task.labels), candidates)
    for own, word in zip(chosen, answers.words, strict=True):
        if word in words and words.index(word) not in own:
            own.append(words.index(word))
    columns = sorted({0, *(column for own in chosen for column in own)})
    held = np.array([row.label for row in splits.validation])
    validation = np.full((len(held), len(words)), np.nan)
    asked = [words[column] for column in columns]
    validation[:, columns] = word_scores(backbone, task, asked, splits.validation, encoding)
    ranked = sorted(_combinations(validation, held, chosen), reverse=True)

    def worth(combination: Columns) -> Words:
        return Words(
            dict(zip(task.labels, (words[column] for column in combination), strict=True)),
            _accuracy(scores, truth, combination),
            _accuracy(validation, held, combination),
        )

    before = _default(backbone, task, answers.mapping, (rows, splits.validation), encoding)
    found = tuple(worth(combination) for _, combination in ranked[:KEPT])
    return Search(before, found, len(rows), len(held), len(ranked), len(words))


def whole_words(backbone: Backbone, most: int) -> list[str]:
    """Words of one token, in the order of the vocabulary: lower case, of letters alone."""
    found: dict[str, None] = {}
    for index in backbone.ordinary_tokens:
        word = backbone.tokenizer.decode([index]).strip()
        if (
            len(word) > 1
            and word.isalpha()
            and word.islower()
            and word not in found
            and _is_whole(backbone, word)
        ):
            found[word] = None
            if len(found) == most:
                break
    return list(found)


def _is_whole(backbone: Backbone, word: str) -> bool:
    pieces = backbone.word_pieces(word)
    return pieces is not None and len(pieces[0]) == 1


@torch.no_grad()
def word_scores(
    backbone: Backbone, task: Task, words: Sequence[str], rows: Sequence[Example], encoding: Encoding = USUAL
) -> Floats:
    """Log-probabilities over `words` of each being the answer, [rows, words], by the backbone alone."""
    place = encoding.place(backbone.family)
    bank = BareBank()
    parts = []
    for group in _together(words):
        asked = _asked(task, [words[0], *group])
        encoded = backbone.encode(asked, [replace(row, label=None) for row in rows], encoding, reserved=0)
        found = []
        for start in range(0, len(encoded), ROWS_TOGETHER):
            batch = backbone.batch(encoded[start : start + ROWS_TOGETHER], layout=place)
            found.append(backbone.label_scores(*on_the_same(bank, batch)).double().cpu())
        scores = torch.cat(found).numpy()
        parts.append(scores[:, 1:] - scores[:, :1])
    logits = np.concatenate([np.zeros((len(rows), 1)), *parts], axis=1)
    top = logits.max(axis=1, keepdims=True)
    normalised: Floats = logits - top - np.log(np.exp(logits - top).sum(axis=1, keepdims=True))
    return normalised


def _together(words: Sequence[str]) -> Iterator[Sequence[str]]:
    """All words but the first, in groups of one pass."""
    for start in range(1, len(words), TOGETHER):
        yield words[start : start + TOGETHER]


def _asked(task: Task, words: Sequence[str]) -> Task:
    """The task with words for labels, each standing for itself."""
    own = {word: (word,) for word in words}
    return replace(
        task,
        labels=tuple(words),
        words=dict.fromkeys(FAMILIES, own),
        metric="accuracy",
        hub=None,
        label_values={},
    )


def _candidates(scores: Floats, truth: NDArray[np.int_], labels: int, most: int) -> list[list[int]]:
    """For each label the columns of the words that its rows make likelier than the others' rows do, the best first."""
    means = np.stack([scores[truth == label].mean(axis=0) for label in range(labels)])
    found = []
    for label in range(labels):
        likely = np.argsort(-means[label])[: max(most, int(LIKELY * scores.shape[1]))]
        ratio = means[label] - np.delete(means, label, axis=0).mean(axis=0)
        found.append([int(column) for column in likely[np.argsort(-ratio[likely], kind="stable")][:most]])
    return found


def _accuracy(scores: Floats, truth: NDArray[np.int_], combination: Columns) -> float:
    return float((scores[:, list(combination)].argmax(axis=1) == truth).mean())


def _rank(scores: Floats, truth: NDArray[np.int_], combination: Columns) -> tuple[float, float]:
    """Accuracy, and where that is equal the mean log-probability of the right one."""
    own = scores[:, list(combination)]
    shares = own - np.log(np.exp(own - own.max(axis=1, keepdims=True)).sum(axis=1, keepdims=True))
    shares -= own.max(axis=1, keepdims=True)
    right = shares[np.arange(len(truth)), truth].mean()
    return float((own.argmax(axis=1) == truth).mean()), float(right)


def _combinations(
    scores: Floats, truth: NDArray[np.int_], chosen: Sequence[Sequence[int]]
) -> list[tuple[tuple[float, float], Columns]]:
    """Combinations of different words with their ranks on the rows: all of them, or those that a search label by label meets."""
    count = 1
    for own in chosen:
        count *= len(own)
    if count <= MOST_COMBINATIONS:
        return [(_rank(scores, truth, c), c) for c in product(*chosen) if len(set(c)) == len(c)]
    met: dict[Columns, tuple[float, float]] = {}
    best = _first_distinct(chosen)
    for _ in range(3):
        for label, own in enumerate(chosen):
            tried = [(*best[:label], column, *best[label + 1 :]) for column in own]
            met |= {c: _rank(scores, truth, c) for c in tried if len(set(c)) == len(c)}
            best = max(met, key=lambda combination: met[combination])
    return [(rank, combination) for combination, rank in met.items()]


def _first_distinct(chosen: Sequence[Sequence[int]]) -> Columns:
    """Of each label its best word that no label before it has."""
    found: list[int] = []
    for own in chosen:
        found.append(next((column for column in own if column not in found), own[0]))
    return tuple(found)


def _default(
    backbone: Backbone,
    task: Task,
    mapping: dict[str, str],
    parts: tuple[Sequence[Example], Sequence[Example]],
    encoding: Encoding,
) -> Words:
    """The task's own words, of however many tokens, scored as an evaluation scores them."""
    scored = replace(task, metric="accuracy")
    learned, validation = (
        evaluate_bank(backbone, BareBank(), encode_task(backbone, scored, rows, encoding, reserved=0))[
            0
        ].value
        for rows in parts
    )
    return Words(mapping, learned, validation)
