"""Label words: how the labels of a task are spoken by one backbone.

A task lists alternatives per label; the first that the backbone's vocabulary holds whole is taken. A masked LM
answers with one token, so a word of several tokens is an error there unless an aggregation over its pieces is
asked for. T5 and decoders write their answer, so its words may have several pieces and the whole sequence is scored.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from tasks.errors import UserError, unknown
from tasks.task import Task

AGGREGATIONS = ("mean", "sum", "first")
WRITING = ("t5", "causal-lm")
"""Families that write their answer token by token."""

ONE, SHARES, SEVERAL = "one", "shares", "several"
FORMS = (ONE, SHARES, SEVERAL)
"""What is right of the labels of a row: one of them, shares of probability, or any number of them, each by itself."""
BY_HEAD = " by a head"
"""Behind the form of answers that no words stand for."""

Pieces = tuple[tuple[int, ...], tuple[str, ...]]
"""Token ids of a word and how the tokenizer spells them."""


@dataclass(frozen=True)
class Answers:
    """The label words of one task on one backbone, in the order of the task's labels; none where a head answers it."""

    labels: tuple[str, ...]
    words: tuple[str, ...]
    pieces: tuple[tuple[int, ...], ...]
    """Token ids of each word, one tuple a label."""
    aggregation: str
    """How the scores of a word's pieces become one score: `mean`, `sum` or `first`."""
    form: str = field(default=ONE, repr=False)
    """One of FORMS."""

    @property
    def scored(self) -> tuple[tuple[int, ...], ...]:
        """Token ids of each word that are scored: all of them, or the first alone."""
        return tuple(piece[:1] for piece in self.pieces) if self.aggregation == "first" else self.pieces

    @property
    def mapping(self) -> dict[str, str]:
        """label -> word; empty for a head."""
        return dict(zip(self.labels, self.words, strict=True)) if self.words else {}

    @property
    def kind(self) -> str:
        """Which rows can run with those that are answered by these."""
        return self.form if self.words else self.form + BY_HEAD


def form_of(task: Task) -> str:
    """Which of FORMS a task's answers have."""
    if task.separator:
        return SEVERAL
    return ONE if task.scale is None else SHARES


def head_answers(task: Task) -> Answers:
    """The labels of a task that a head answers, of which none has a word."""
    return Answers(task.labels, (), ((),) * len(task.labels), "first", form_of(task))


def choose_answers(
    task: Task,
    *,
    family: str,
    backbone: str,
    pieces_of: Callable[[str], Pieces | None],
    aggregation: str | None = None,
) -> Answers:
    """Pick one word a label.

    `pieces_of` gives a word's tokens on this backbone, None where the vocabulary does not know it. The words that a
    task lists at one place (the i-th of every label) belong together and are taken together where they are all one
    token; else the first one-token word of each label. Raises a UserError when a label has none and no aggregation
    was asked for, when two labels end up with the same tokens, or (T5, decoders) when one label's tokens begin another's.
    """
    if aggregation is not None and aggregation not in AGGREGATIONS:
        raise unknown("aggregation", aggregation, AGGREGATIONS)
    words = {label: candidates_of(task, family, label) for label in task.labels}
    pieces = {word: pieces_of(word) for candidates in words.values() for word in candidates}
    whole = {word for word, piece in pieces.items() if piece is not None and len(piece[0]) == 1}
    together = next(
        (group for group in zip(*words.values(), strict=False) if whole.issuperset(group)),
        None,
    )
    writes = family in WRITING
    several = writes or aggregation is not None
    chosen = together or tuple(
        _first_word(task, backbone, label, words[label], pieces, several=several) for label in task.labels
    )
    ids = tuple(piece[0] for word in chosen if (piece := pieces[word]) is not None)
    combined = aggregation or ("sum" if writes else "first")
    scored = tuple(pieces[:1] for pieces in ids) if combined == "first" else ids
    _check_distinct(task, backbone, chosen, scored, prefixes=writes)
    return Answers(task.labels, chosen, ids, combined, form_of(task))


def _first_word(
    task: Task,
    backbone: str,
    label: str,
    candidates: Sequence[str],
    pieces: Mapping[str, Pieces | None],
    *,
    several: bool,
) -> str:
    """The first word of one token, or of several where that is allowed."""
    known = {word: piece for word in candidates if (piece := pieces[word]) is not None}
    whole = [word for word, piece in known.items() if len(piece[0]) == 1]
    if whole or (known and several):
        return (whole or list(known))[0]
    spelled = "; ".join(
        f"{word!r} = {' + '.join(known[word][1])}" if word in known else f"{word!r} is not in its vocabulary"
        for word in candidates
    )
    raise UserError(
        f"label {label!r} of task {task.name!r} has no word of one token on {backbone} ({spelled}): "
        f"give another with --label-words {label}=WORD, or choose --aggregation {'|'.join(AGGREGATIONS)}"
    )


def candidates_of(task: Task, family: str, label: str) -> tuple[str, ...]:
    """The words that a task lists for a label on a family of backbones, in order of preference."""
    try:
        return tuple(task.words_of(family)[label])
    except KeyError:
        raise UserError(
            f"task {task.name!r} has no word for label {label!r} on a {family} backbone: "
            f"give one with --label-words {label}=WORD"
        ) from None


def _check_distinct(
    task: Task,
    backbone: str,
    words: tuple[str, ...],
    pieces: tuple[tuple[int, ...], ...],
    *,
    prefixes: bool,
) -> None:
    for i, first in enumerate(pieces):
        for j, second in enumerate(pieces):
            if i != j and (first == second or (prefixes and second[: len(first)] == first)):
                raise UserError(
                    f"labels {task.labels[i]!r} and {task.labels[j]!r} of task {task.name!r} cannot be told apart on "
                    f"{backbone}: {words[i]!r} and {words[j]!r} begin with the same tokens; choose others with "
                    f"--label-words"
                )
