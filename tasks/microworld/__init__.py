"""The embedded world: a seeded generator of small English-like tasks that mirror the types of Su et al. 2022.

One idea: everything that a task asks can be worked out from relations between words that the frozen backbones met in
pre-training, so that a soft prompt has something to elicit. The rows are made, not collected; the names start with
`microworld-` so that nobody mistakes them for the data sets that they mirror.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import lru_cache

from tasks.errors import UserError, unknown
from tasks.microworld import answers, ethics, inference, paraphrase, sentiment, summaries
from tasks.task import Example, Task

Builder = Callable[[random.Random, int], Example]

BUILDERS: dict[str, Builder] = {
    "microworld-imdb": sentiment.imdb,
    "microworld-sst2": sentiment.sst2,
    "microworld-rotten-tomatoes": sentiment.rotten_tomatoes,
    "microworld-laptop": sentiment.laptop,
    "microworld-restaurant": sentiment.restaurant,
    "microworld-tweet": sentiment.tweet,
    "microworld-mnli": inference.mnli,
    "microworld-snli": inference.snli,
    "microworld-qnli": inference.qnli,
    "microworld-deontology": ethics.deontology,
    "microworld-justice": ethics.justice,
    "microworld-qqp": paraphrase.qqp,
    "microworld-mrpc": paraphrase.mrpc,
    "microworld-squad": answers.squad,
    "microworld-nq-open": answers.nq_open,
    "microworld-samsum": summaries.samsum,
    "microworld-multi-news": summaries.multi_news,
}
"""Task -> the function that makes one row of it with the given label."""

_LABEL_WORDS = {
    "sentiment": {"negative": "terrible", "neutral": "okay", "positive": "great"},
    "nli": {"contradiction": "no", "not_entailment": "no", "neutral": "maybe", "entailment": "yes"},
    "ethics": {"unreasonable": "wrong", "reasonable": "fine"},
    "paraphrase": {"not_paraphrase": "false", "paraphrase": "true"},
}


def _classification(name: str, type_: str, kind: str, labels: str) -> Task:
    words = {label: (_LABEL_WORDS[type_][label],) for label in labels.split()}
    return Task(
        name=f"microworld-{name}",
        type=type_,
        kind=kind,
        labels=tuple(labels.split()),
        words={"masked-lm": words, "t5": words},
        world=f"microworld-{name}",
    )


def _generation(name: str, type_: str, kind: str) -> Task:
    return Task(name=f"microworld-{name}", type=type_, kind=kind, world=f"microworld-{name}")


_ALL = (
    _classification("imdb", "sentiment", "sentence", "negative positive"),
    _classification("sst2", "sentiment", "sentence", "negative positive"),
    _classification("rotten-tomatoes", "sentiment", "sentence", "negative positive"),
    _classification("laptop", "sentiment", "sentence", "negative positive"),
    _classification("restaurant", "sentiment", "sentence", "negative positive"),
    _classification("tweet", "sentiment", "sentence", "negative neutral positive"),
    _classification("mnli", "nli", "pair", "contradiction neutral entailment"),
    _classification("snli", "nli", "pair", "contradiction neutral entailment"),
    _classification("qnli", "nli", "pair", "not_entailment entailment"),
    _classification("deontology", "ethics", "pair", "unreasonable reasonable"),
    _classification("justice", "ethics", "sentence", "unreasonable reasonable"),
    _classification("qqp", "paraphrase", "pair", "not_paraphrase paraphrase"),
    _classification("mrpc", "paraphrase", "pair", "not_paraphrase paraphrase"),
    _generation("squad", "qa", "extractive-qa"),
    _generation("nq-open", "qa", "closed-book-qa"),
    _generation("samsum", "summarisation", "summarisation"),
    _generation("multi-news", "summarisation", "summarisation"),
)

WORLD_TASKS: dict[str, Task] = {task.name: task for task in _ALL}

ROWS = {"train": 2000, "test": 400}
"""Rows of a split unless told; the closed book has fewer different questions."""
CLOSED_BOOK_ROWS = {"train": 800, "test": 200}


PATIENCE = 20_000
"""Rows drawn in vain, one after the other, after which a task is taken to have no more."""


def generate(name: str, split: str, rows: int | None = None, seed: int = 0) -> list[Example]:
    """Rows of one task, the same on every machine: near-balanced labels, no row twice, no test row in train."""
    if name not in BUILDERS:
        raise unknown("task of the embedded world", name, BUILDERS)
    if split not in ROWS:
        raise unknown("split", split, ROWS)
    sizes = CLOSED_BOOK_ROWS if name == "microworld-nq-open" else ROWS
    if rows is not None and rows < 1:
        raise UserError(f"{rows} rows of {name} were asked for; at least 1 is needed")
    return list(_rows(name, split, rows or sizes[split], seed))


def texts(example: Example) -> frozenset[str]:
    """What makes two rows the same: the set of their texts, whichever stands first."""
    return frozenset(text for text in (example.first, example.second) if text is not None)


@lru_cache(maxsize=64)
def _rows(name: str, split: str, rows: int, seed: int) -> tuple[Example, ...]:
    taken: set[frozenset[str]] = set()
    if split == "train":
        sizes = CLOSED_BOOK_ROWS if name == "microworld-nq-open" else ROWS
        taken = {texts(example) for example in _rows(name, "test", sizes["test"], seed)}
    rng = random.Random(f"{name}|{split}|{seed}")
    classes = max(len(WORLD_TASKS[name].labels), 1)
    made: list[Example] = []
    vain = 0
    while len(made) < rows:
        example = BUILDERS[name](rng, rng.randrange(classes))
        if texts(example) not in taken:
            taken.add(texts(example))
            made.append(example)
            vain = 0
        elif (vain := vain + 1) == PATIENCE:
            raise UserError(f"{name} has fewer than {rows} different rows: ask for {len(made)} at most")
    return tuple(made)
