"""Tasks: what is asked of a frozen language model, as one frozen record each.

A record says where the rows are (hub data set, local folder, embedded world), what they look like (kind), which
label words stand for the labels on each backbone family, and how answers are scored. It holds no rows and no
model: rows are loaded by `loading.py`, words become token ids in a backbone. Types, label order and words of the
17 tasks follow Su et al. 2022 (arXiv 2111.06719), whose labels are numbered in the order of their verbaliser.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from tasks.documents import shortened
from tasks.errors import UserError, unknown
from tasks.templates import Frame, read_template, usual_template

TYPES = ("sentiment", "nli", "ethics", "paraphrase", "qa", "summarisation")
"""The six types of Su et al. A task of a user's own may name another."""

FAMILIES = ("masked-lm", "t5", "causal-lm")
"""Backbone families that label words are given for."""
LIKE = {"causal-lm": "masked-lm"}
"""A family that a task may have no words for -> the one whose words it then takes."""
NEEDED = tuple(family for family in FAMILIES if family not in LIKE)

KINDS: dict[str, tuple[str, ...]] = {
    "sentence": ("text", "label"),
    "pair": ("text_a", "text_b", "label"),
    "extractive-qa": ("question", "context", "answers"),
    "closed-book-qa": ("question", "answers"),
    "summarisation": ("document", "summary"),
}
"""Kind -> the neutral fields a row of it must have (`aspect` joins them where a task asks about an aspect)."""

LABEL_METRICS = ("accuracy", "macro-f1", "balanced-accuracy", "mcc", "1-ece")
OF_ONE_LABEL = "f1:"
"""Before the name of a label: F1 of it alone."""
METRICS_OF: dict[str, tuple[str, ...]] = {
    "sentence": LABEL_METRICS,
    "pair": LABEL_METRICS,
    "extractive-qa": ("token-f1", "exact-match"),
    "closed-book-qa": ("token-f1", "exact-match"),
    "summarisation": ("rouge-l",),
}
"""Kind -> the metrics that can score it (`metrics.py`), the default first; where there are labels also `f1:LABEL`."""
VALUE_METRICS = ("pearson", "spearman")
"""Those of a regression."""
SET_METRICS = ("micro-f1", "macro-f1", "subset-accuracy")
"""Those of tasks with any number of labels a row; also `f1:LABEL`."""

Words = Mapping[str, tuple[str, ...]]
"""Label -> words that may stand for it, best first. The i-th words of the labels of a task belong together."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")


@dataclass(frozen=True)
class Example:
    """One row in neutral fields.

    `first` is the sentence (with its aspect behind it, where there is one), the first text of a pair, the question or
    the document; `second` the second text of a pair or the context. `label` is an index into the labels of the task;
    `references` are the accepted answers, or the one summary; `value` is the number that a regression asks for, `labels`
    the indices of all that are right where there may be several, or none. What came later does not show in `repr`, of which
    digests are made.
    """

    first: str
    second: str | None = None
    label: int | None = None
    references: tuple[str, ...] = ()
    value: float | None = field(default=None, repr=False)
    labels: tuple[int, ...] | None = field(default=None, repr=False)


@dataclass(frozen=True)
class HubSource:
    """Rows of a task in a Hugging Face data set.

    `columns`: neutral field -> column there, `a.b` for a nested one; a field that is not named has its own name.
    `labels`: value there -> label of the task, or None for rows to leave out (no gold label, a class that is not ours).
    `train` and `test` are split names; official validation data is our test split.
    `revision` stays None unless a commit is known for certain; what was loaded is recorded by `load_splits`.
    """

    repo: str
    config: str | None = None
    revision: str | None = None
    train: str = "train"
    test: str = "validation"
    columns: Mapping[str, str] = field(default_factory=dict, hash=False)
    labels: Mapping[int | str, str | None] = field(default_factory=dict, hash=False)
    data_files: Mapping[str, str] | None = field(default=None, hash=False)


@dataclass(frozen=True)
class Scale:
    """The bounds of the numbers that a regression asks for. Its two label words stand for them.

    A value is low * p(first word) + high * p(second word), and teaches the two probabilities that it is made of (LM-BFF,
    Gao et al. 2021, arXiv 2012.15723, section 3.2).
    """

    low: float
    high: float

    def __post_init__(self) -> None:
        if not (math.isfinite(self.low) and math.isfinite(self.high) and self.low < self.high):
            raise UserError(
                f"a regression from {self.low:g} to {self.high:g}: low must be below high, both finite"
            )

    def __str__(self) -> str:
        return f"{self.low:g} to {self.high:g}"

    def shares(self, value: float) -> tuple[float, float]:
        """The probabilities of the two words that a value stands for."""
        high = (value - self.low) / (self.high - self.low)
        return 1.0 - high, high

    def value(self, shares: Sequence[float]) -> float:
        """The value that two probabilities stand for."""
        return self.low * shares[0] + self.high * shares[1]


@dataclass(frozen=True)
class Task:
    """The record of one task; it cannot be built wrong.

    `words`: family -> label -> words; empty for tasks that generate; `words_of` has them for every family. `template` is
    how a decoder reads a row (templates.py); none given takes that of the type and kind. `world` is the name of the task in
    the embedded world. `folder` is a folder of the task's own with train.jsonl and validation.jsonl, or one file of rows
    (folder.py). Of such files, `columns` is neutral field -> column, `label_values` what stands for a label there -> label,
    or None for rows to leave out, `splits` train and test -> name of a file, and with `skip_empty` rows with an empty text
    are left out. `note` is what a reader of results should know. With a `scale` the answer is a number, and the first and
    the second label stand for its ends. With a `head` no words stand for the labels: a linear map is trained for them. With a
    `separator`, which stands between labels in a cell of a table, a row has any number of labels, each of which is right or
    wrong by itself, and a head.
    """

    name: str
    type: str
    kind: str
    metric: str = ""
    labels: tuple[str, ...] = ()
    words: Mapping[str, Words] = field(default_factory=dict, hash=False)
    hub: HubSource | None = None
    world: str | None = None
    folder: str | None = None
    columns: Mapping[str, str] = field(default_factory=dict, hash=False)
    aspect: bool = False
    note: str = ""
    template: str = ""
    label_values: Mapping[int | str, str | None] = field(default_factory=dict, hash=False)
    splits: Mapping[str, str] = field(default_factory=dict, hash=False)
    skip_empty: bool = False
    scale: Scale | None = None
    head: bool = False
    separator: str = ""

    def __post_init__(self) -> None:
        check_name("task", self.name)
        if self.separator:
            object.__setattr__(self, "head", True)
        if self.kind not in KINDS:
            raise unknown("kind of task", self.kind, KINDS)
        if not self.metric:
            object.__setattr__(self, "metric", self.metrics[0])
        _check_metric(self)
        if self.aspect and self.kind != "sentence":
            raise UserError(
                f"task {self.name!r}: only a sentence task can have an aspect, this is {self.kind!r}"
            )
        if unknown_fields := set(self.columns) - set(self.fields):
            raise unknown(f"field in the columns of task {self.name!r}:", min(unknown_fields), self.fields)
        if unknown_splits := set(self.splits) - {"train", "test"}:
            raise unknown(
                f"split in the splits of task {self.name!r}:", min(unknown_splits), ("train", "test")
            )
        if not self.template:
            object.__setattr__(self, "template", usual_template(self.type, self.kind))
        read_template(self.template, self.kind, self.name)
        if self.generates:
            _check_no_labels(self)
        else:
            _check_labels(self)
            _check_head(self) if self.head else _check_words(self)
        if self.scale is not None:
            _check_scale(self, self.scale)

    @property
    def generates(self) -> bool:
        """Whether the answer is free text (question answering, summarisation) and not one of the labels."""
        return "label" not in KINDS[self.kind]

    @property
    def has_words(self) -> bool:
        """Whether label words are read: its answer is not written and not a trained head's."""
        return not self.generates and not self.head

    @property
    def one_label(self) -> bool:
        """Whether one of its labels is right for a row: it asks for no text, no number and not for several."""
        return not self.generates and self.scale is None and not self.separator

    @property
    def metrics(self) -> tuple[str, ...]:
        """The metrics that can score it, the default first."""
        if self.separator:
            return SET_METRICS
        return METRICS_OF[self.kind] if self.scale is None else VALUE_METRICS

    def shares(self, example: Example) -> tuple[float, ...] | None:
        """What the probabilities of the labels should be, where a row has no one label that is right."""
        if self.scale is not None and example.value is not None:
            return self.scale.shares(example.value)
        if example.labels is not None:
            return tuple(float(index in example.labels) for index in range(len(self.labels)))
        return None

    @property
    def frame(self) -> Frame:
        """The parts of the template."""
        return read_template(self.template, self.kind, self.name)

    def words_of(self, family: str) -> Words:
        """Label -> words on a family of backbones; empty where the answer is written."""
        return self.words.get(family) or self.words.get(LIKE.get(family, ""), {})

    @property
    def fields(self) -> tuple[str, ...]:
        """The neutral fields that a row of this task must have."""
        return KINDS[self.kind] + (("aspect",) if self.aspect else ())


def check_name(what: str, name: str) -> str:
    """Return a name that is safe as a folder name; a slash or `..` would leave the output folder."""
    if not _NAME.fullmatch(name) or ".." in name:
        raise UserError(
            f"{what} name {shortened(name)!r} cannot be used: a name has letters, digits, '_', '-' and single '.' only, "
            "begins with a letter or digit, and has at most 100 characters"
        )
    return name


def with_words(task: Task, words: Mapping[str, str]) -> Task:
    """The task with the given word for each named label, on every family; labels not named keep theirs."""
    if task.generates and words:
        raise UserError(f"task {task.name!r} generates text and has no label words; drop --label-words")
    if task.head and words:
        raise UserError(f"task {task.name!r} has a trained head and no label words; drop --label-words")
    for label, word in words.items():
        if label not in task.labels:
            raise unknown(f"label of task {task.name!r}", label, task.labels)
        if not word.strip():
            raise UserError(f"label word for {label!r} is empty; give one word, as in {label}=great")
    chosen = {label: (word.strip(),) for label, word in words.items()}
    families = {family: {**task.words_of(family), **chosen} for family in FAMILIES}
    return replace(task, words=families)


def parse_label_words(pairs: Iterable[str]) -> dict[str, str]:
    """`["negative=terrible", "positive=great"]` -> `{"negative": "terrible", "positive": "great"}`."""
    words: dict[str, str] = {}
    for pair in pairs:
        label, equals, word = pair.partition("=")
        if not (label.strip() and equals and word.strip()):
            raise UserError(f"label word {pair!r} is not of the form label=word, as in negative=terrible")
        if label.strip() in words:
            raise UserError(f"label {label.strip()!r} is given two words; give one")
        words[label.strip()] = word.strip()
    return words


def task_table(tasks: Iterable[Task]) -> list[dict[str, Any]]:
    """One plain row a task, for `tasks list`: name, type, kind, metric, labels, source."""
    return [
        {
            "name": task.name,
            "type": task.type,
            "kind": task.kind,
            "metric": task.metric,
            "labels": ", ".join(task.labels) or "-",
            "source": describe_source(task),
        }
        for task in tasks
    ]


def describe_source(task: Task) -> str:
    """Where the rows come from when no `--data` is given."""
    if task.world:
        return "embedded world"
    if task.folder:
        return task.folder
    if task.hub:
        return f"hub {task.hub.repo}" + (f" ({task.hub.config})" if task.hub.config else "")
    return "--data only"


def with_head(task: Task) -> Task:
    """The task with a trained head in place of label words."""
    if task.generates:
        raise UserError(
            f"task {task.name!r} writes its answers, for which no head can stand: leave --head out"
        )
    return replace(task, words={}, head=True)


def with_metric(task: Task, metric: str | None) -> Task:
    """The task scored by another metric; as it is for None."""
    return task if metric is None else replace(task, metric=metric)


def _check_metric(task: Task) -> None:
    known = task.metrics
    label = task.metric.removeprefix(OF_ONE_LABEL)
    if task.metric.startswith(OF_ONE_LABEL) and task.labels and task.scale is None:
        if label not in task.labels:
            raise unknown(f"label in the metric {task.metric!r} of task {task.name!r}:", label, task.labels)
    elif task.metric not in known:
        of_one = [f"{OF_ONE_LABEL}LABEL"] if task.labels and task.scale is None else []
        what = (
            "regression"
            if task.scale
            else "task of several labels"
            if task.separator
            else f"task of kind {task.kind!r}"
        )
        raise unknown(f"metric for a {what}:", task.metric, [*known, *of_one])


def _check_no_labels(task: Task) -> None:
    if task.labels or task.words or task.head:
        raise UserError(
            f"task {task.name!r}: a task of kind {task.kind!r} generates its answer and has no labels, words or head"
        )


def _check_labels(task: Task) -> None:
    if len(task.labels) < 2:
        raise UserError(
            f"task {task.name!r}: a {task.kind} task needs at least 2 labels, {len(task.labels)} given"
        )
    if len(set(task.labels)) < len(task.labels):
        raise UserError(f"task {task.name!r}: labels {list(task.labels)} are not all different")
    for where, values in (("hub labels", task.hub.labels if task.hub else {}), ("labels", task.label_values)):
        strange = {label for label in values.values() if label is not None} - set(task.labels)
        if strange:
            raise unknown(f"label in the {where} of task {task.name!r}:", min(strange), task.labels)


def _check_scale(task: Task, scale: Scale) -> None:
    if task.generates:
        raise UserError(
            f"task {task.name!r}: a task of kind {task.kind!r} writes its answer and is no regression"
        )
    if len(task.labels) != 2:
        raise UserError(
            f"task {task.name!r}: a regression has two labels, the first for {scale.low:g} and the second for {scale.high:g}, "
            f"{len(task.labels)} given: {', '.join(task.labels)}"
        )
    if task.separator:
        raise UserError(
            f"task {task.name!r}: its rows have one number or several labels, not both: leave one of them out"
        )
    if task.label_values or (task.hub and task.hub.labels):
        raise UserError(
            f"task {task.name!r}: a regression reads numbers, for which no labels stand: leave `labels` out"
        )


def _check_head(task: Task) -> None:
    if task.words:
        raise UserError(
            f"task {task.name!r}: a head stands in place of label words, and both are given: leave one of them out"
        )


def _check_words(task: Task) -> None:
    for family, words in task.words.items():
        if family not in FAMILIES:
            raise unknown(f"backbone family in the words of task {task.name!r}:", family, FAMILIES)
        for label in words:
            if label not in task.labels:
                raise unknown(f"label in the words of task {task.name!r}:", label, task.labels)
    for family in dict.fromkeys((*NEEDED, *task.words)):
        for label in task.labels:
            given = task.words.get(family, {}).get(label, ())
            if (
                isinstance(given, str)
                or not given
                or not all(isinstance(w, str) and w.strip() for w in given)
            ):
                raise UserError(
                    f"task {task.name!r}: label {label!r} has no word for {family} backbones; "
                    f"give every label one or more words, as in words: {{{label}: [great, good]}}"
                )
