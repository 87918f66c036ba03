"""A task from the data alone: `--task reviews.csv`, `--task hub:owner/name`, and what `tasks new` writes down.

What the columns hold is said by the user, or (`tasks new`) guessed from their names; labels are the values that there are,
label words those of the shipped tasks where the labels are theirs, else the names of the labels.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tasks.catalog import ANSWERABLE, JUDGEMENT, NLI, POLARITY, SAMENESS, TASKS
from tasks.documents import shortened
from tasks.errors import UserError
from tasks.folder import rows_of_files, train_files
from tasks.hub import tables_of
from tasks.reading import AS_THEY_ARE, Reading
from tasks.rows import number_of, several, shown
from tasks.tables import is_data_file
from tasks.task import KINDS, NEEDED, HubSource, Scale, Task, Words

HUB = "hub:"
MOST_LABELS = 100
"""Different values of a column above which it holds no labels that words could stand for."""
SEPARATORS = (";", "|", ",")
"""What stands between labels in a cell, as far as it is guessed."""
MOST_CLASSES = 10_000
"""The same for a head."""
ENDS = ("low", "high")
"""What the labels of a proposed regression are called."""
OWN_TYPE = "own"
"""The type of a task whose labels tell none of the shipped ones."""
ORDER = ("pair", "extractive-qa", "closed-book-qa", "summarisation", "sentence")
"""Kinds in the order in which columns are held against them: what needs more is tried first."""

USUAL_NAMES: dict[str, tuple[str, ...]] = {
    "text_a": ("premise", "sentence1", "sentence_1", "question1", "text1", "first"),
    "text_b": ("hypothesis", "sentence2", "sentence_2", "question2", "text2", "second"),
    "question": ("query",),
    "context": ("passage", "paragraph"),
    "answers": ("answer",),
    "document": ("article", "dialogue", "body"),
    "summary": ("highlights", "abstract"),
    "text": ("sentence", "review", "content", "tweet", "comment", "message", "post", "body", "title"),
    "label": ("labels", "class", "category", "target", "sentiment", "stance", "gold", "rating", "stars", "y"),
}
"""Neutral field -> what people call its column."""

KNOWN: tuple[tuple[str, Mapping[str, Words]], ...] = (
    ("sentiment", dict.fromkeys(NEEDED, POLARITY)),
    ("nli", {family: NLI[family] for family in NEEDED}),
    ("nli", {family: ANSWERABLE[family] for family in NEEDED}),
    ("ethics", dict.fromkeys(NEEDED, JUDGEMENT)),
    ("paraphrase", dict.fromkeys(NEEDED, SAMENESS)),
)
"""Type, and family -> label -> words, of labels that the shipped tasks have."""


@dataclass(frozen=True)
class Seen:
    """What is known of a data set before anything is made of it."""

    where: str
    columns: tuple[str, ...]
    values: Mapping[str, Sequence[Any]]
    """Column -> its values, of a column whose values may be labels."""
    names: Mapping[str, Sequence[str]]
    """Column -> names of its classes, where the data set has them (0 is the first of them)."""
    places: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """Column -> file and line of each of its values, of files."""


@dataclass(frozen=True)
class Asked:
    """What the labels of proposed tasks are."""

    scale: Scale | None = None
    """Numbers, within these bounds."""
    head: bool = False
    """Classes of a trained head, without words."""
    separator: str = ""
    """What stands between labels where a row may have several; empty where it has one."""


def is_proposed(name: str) -> bool:
    """Whether a name is that of data and not of a task."""
    return name.startswith(HUB) or is_data_file(name)


def task_of_data(
    name: str,
    reading: Reading = AS_THEY_ARE,
    scale: Scale | None = None,
    *,
    head: bool = False,
    separator: str = "",
) -> Task:
    """The task in a file of rows or a folder of them, or in a data set of the hub (`hub:owner/name`, `hub:owner/name:config`).

    With a `scale` its labels are read as numbers, with a `head` no words are proposed for them; with a
    `separator` a row has any number of them.
    """
    asked = Asked(scale, head or bool(separator), separator)
    return (
        _task_of_hub(name, reading, asked)
        if name.startswith(HUB)
        else _task_of_file(Path(name), reading, asked)
    )


def _task_of_file(path: Path, reading: Reading, asked: Asked) -> Task:
    seen = see_files(path, reading.splits)
    kind = kind_of(seen, reading.columns)
    labels, type_, words = _labels(seen, kind, reading, asked)
    if (
        asked.scale is None
        and not asked.separator
        and any(isinstance(value, bool | float) for value in seen.values.get(_label_column(reading), ()))
    ):
        reading = replace(reading, labels=reading.labels or {label: label for label in labels})
    return reading.of(
        Task(
            free_name(path.stem), type_, kind, labels=labels, words=words, folder=str(path.resolve()),
            aspect="aspect" in reading.columns, scale=asked.scale, head=asked.head,
            separator=asked.separator,
        )
    )  # fmt: skip


def _task_of_hub(name: str, reading: Reading, asked: Asked) -> Task:
    if reading.skip_empty:
        raise UserError(f"{name}: rows of the hub with an empty text are always left out; drop --skip-empty")
    source, seen = _see_hub(name, reading)
    kind = kind_of(seen, reading.columns)
    labels, type_, words = _labels(seen, kind, reading, asked)
    values = _hub_values(seen, kind, reading, asked.separator) if asked.scale is None else {}
    source = replace(source, columns=dict(reading.columns), labels=values)
    repo = Path(source.repo).name if Path(source.repo).is_absolute() else source.repo
    called = "-".join(filter(None, (repo, source.config)))
    return Task(
        free_name(called), type_, kind, labels=labels, words=words, hub=source,
        aspect="aspect" in reading.columns, scale=asked.scale, head=asked.head,
        separator=asked.separator,
    )  # fmt: skip


# What is there ---------------------------------------------------------------------------------------------------


def see(name: str, reading: Reading = AS_THEY_ARE) -> Seen:
    """What the training rows of data are made of: of a file, a folder of files, or a data set of the hub."""
    return _see_hub(name, reading)[1] if name.startswith(HUB) else see_files(Path(name), reading.splits)


def _see_hub(name: str, reading: Reading) -> tuple[HubSource, Seen]:
    """A data set of the hub with its splits, and what its training rows are made of."""
    repo, _, config = name.removeprefix(HUB).partition(":")
    if not repo:
        raise UserError(f"{name!r} names no data set: write hub:OWNER/NAME, or hub:OWNER/NAME:CONFIG")
    source = HubSource(str(Path(repo).resolve()) if Path(repo).is_dir() else repo, config or None)
    tables, _ = tables_of(source, f"for task {name!r}")
    train = reading.splits.get("train", "train")
    test = reading.splits.get("test") or next((s for s in ("validation", "dev", "test") if s in tables), "")
    if missing := [split for split in (train, test) if split not in tables]:
        raise UserError(
            f"{name} has no split {missing[0] or 'to test on'!r}, only {', '.join(tables)}: say which are meant, as in "
            f"--splits train={next(iter(tables))} test={list(tables)[-1]}"
        )
    return replace(source, train=train, test=test), _see_table(tables[train], name)


def see_hub(source: HubSource) -> Seen:
    """What the training rows of a known data set of the hub are made of."""
    where = f"hub {source.repo}" + (f" ({source.config})" if source.config else "")
    tables, _ = tables_of(source, f"for {where}")
    if source.train not in tables:
        raise UserError(f"{where} has no split {source.train!r}, only {', '.join(tables)}")
    return _see_table(tables[source.train], where)


def see_files(place: Path, splits: Mapping[str, str] | None = None) -> Seen:
    """What the training rows of a file, or of a folder of files, are made of."""
    files = train_files(place, splits or {})
    rows = rows_of_files(files)
    if not rows:
        raise UserError(f"{files[0]} holds no rows: there is nothing to make a task of")
    columns = tuple(dict.fromkeys(name for _, row in rows for name in row))
    there = {name: [(row[name], at) for at, row in rows if row.get(name) is not None] for name in columns}
    values, places = ({name: [each[k] for each in found] for name, found in there.items()} for k in (0, 1))
    return Seen(str(files[0]), columns, values, {}, places)


def _see_table(table: Any, where: str) -> Seen:
    columns = tuple(table.column_names)
    features = {
        c: getattr(table.features[c], "feature", table.features[c]) for c in columns
    }  # that of a list's items
    names = {c: list(n) for c in columns if (n := getattr(features[c], "names", None))}
    plain = [c for c in columns if c not in names and hasattr(table.features[c], "dtype")]
    return Seen(where, columns, _Values(table, plain), names)


class _Values(dict[str, Sequence[Any]]):
    """Column -> its values, each read when it is asked for: a table of the hub can be large."""

    def __init__(self, table: Any, columns: Iterable[str]):
        super().__init__(dict.fromkeys(columns, ()))
        self.table = table

    def __getitem__(self, column: str) -> Sequence[Any]:
        found: list[Any] = [value for value in self.table[column] if value is not None]
        return found


def kind_of(seen: Seen, columns: Mapping[str, str]) -> str:
    """The kind of task whose fields are there, under their own names or those that the user gives."""
    there = {*columns, *seen.columns}
    told = set(columns) - {"aspect", "label"}
    for column in columns.values():
        if column.split(".")[0] not in seen.columns:
            raise UserError(f"{seen.where} has no column {column!r}, only {', '.join(seen.columns)}")
    found = [kind for kind in ORDER if set(KINDS[kind]) <= there and told <= set(KINDS[kind])]
    if not found:
        raise UserError(
            f"{seen.where} has the columns {shortened(', '.join(seen.columns))}: say which is which, as in --columns "
            f"text={seen.columns[0]} label={seen.columns[-1]} (text_a and text_b for a pair, question and answers, "
            f"document and summary)"
        )
    return found[0]


def guess_columns(seen: Seen) -> dict[str, str]:
    """Neutral field -> column, of the first kind whose fields are called as people call them; what must be asked is left out."""
    lower = {column.lower(): column for column in seen.columns}
    names = {
        field: next((lower[n] for n in (field, *usual) if n in lower), None)
        for field, usual in USUAL_NAMES.items()
    }
    for kind in ORDER:
        found = {field: column for field in KINDS[kind] if (column := names[field]) is not None}
        if len(found) == len(KINDS[kind]) and len(set(found.values())) == len(found):
            return {field: column for field, column in found.items() if field != column}
    return {f: c for f in ("text", "label") if (c := names[f]) is not None and f != c}


# Labels and their words ------------------------------------------------------------------------------------------


def _labels(
    seen: Seen, kind: str, reading: Reading, asked: Asked
) -> tuple[tuple[str, ...], str, dict[str, Words]]:
    """The labels, the type of task that they tell, and the words proposed for them."""
    if asked.scale is not None:
        words = dict(zip(ENDS, (POLARITY["negative"], POLARITY["positive"]), strict=True))
        return ENDS, OWN_TYPE, dict.fromkeys(NEEDED, words)
    if "label" not in KINDS[kind]:
        return (), "summarisation" if kind == "summarisation" else "qa", {}
    if asked.head:
        labels = classes_of(seen, reading, asked.separator)
        return labels, words_for(labels)[0], {}
    labels = tuple(dict.fromkeys(reading.labels.values())) or _classes(seen, _label_column(reading))
    return labels, *words_for(labels)


def classes_of(seen: Seen, reading: Reading, separator: str = "") -> tuple[str, ...]:
    """The classes that a head is to tell apart: those that `reading` names, or all that stand in the training rows.

    With a `separator` rows have any number of them.
    """
    column = _label_column(reading)
    if separator and column in seen.columns and column not in seen.names:
        where = f"{seen.where}, {column}"
        values = [each for value in seen.values[column] for each in several(separator, value, where)]
        seen = replace(seen, values={column: values})
    return tuple(dict.fromkeys(reading.labels.values())) or _classes(seen, column, most=MOST_CLASSES)


def separator_of(seen: Seen, reading: Reading) -> str:
    """What stands between labels in the cells of a column: the mark that is in most of them, `;` where none is."""
    cells = [value for value in seen.values.get(_label_column(reading), ()) if isinstance(value, str)]
    return max(SEPARATORS, key=lambda mark: sum(mark in cell for cell in cells))


def scale_of(seen: Seen, reading: Reading, low: float | None, high: float | None) -> Scale:
    """The bounds of a regression: the given ones, or the whole numbers around those that stand in the training rows."""
    column = _label_column(reading)
    _check_column(seen, column)
    if column in seen.names:
        names = shortened(", ".join(seen.names[column]))
        raise UserError(
            f"{seen.where}: column {column!r} holds classes ({names}), and a regression needs numbers: name another with "
            f"--columns label=..., or drop --kind regression"
        )
    values = seen.values[column]
    if not values:
        raise UserError(f"{seen.where}: column {column!r} is empty: name another with --columns label=...")
    numbers = [number_of(value) for value in values]
    wrong = next((place for place, number in enumerate(numbers) if not math.isfinite(number)), None)
    if wrong is not None:
        at = seen.places[column][wrong] if column in seen.places else seen.where
        raise UserError(
            f"{at}: {column} is {shown(values[wrong])}, and a regression needs a number, with a point for its fraction: mend it, "
            f"leave the row out, or name another column with --columns label=..."
        )
    found = (math.floor(min(numbers)), math.ceil(max(numbers)))
    return Scale(float(found[0] if low is None else low), float(found[1] if high is None else high))


def _label_column(reading: Reading) -> str:
    return reading.columns.get("label", "label")


def _check_column(seen: Seen, column: str) -> None:
    if column not in seen.columns:
        raise UserError(
            f"{seen.where} has no column {column!r}, only {', '.join(seen.columns)}: say which it is, as in --columns label=..."
        )


def _classes(seen: Seen, column: str, *, most: int = MOST_LABELS) -> tuple[str, ...]:
    """Names of the classes of a column: those that it has, or its values."""
    if column in seen.names:
        return tuple(seen.names[column])
    _check_column(seen, column)
    if column not in seen.values or any(isinstance(value, list | dict) for value in seen.values[column]):
        raise UserError(f"{seen.where}: column {column!r} holds lists or objects: name one of labels")
    values = [v.strip() if isinstance(v, str) else v for v in seen.values[column]]
    if any(isinstance(value, float) and not value.is_integer() for value in values):
        raise UserError(f"{seen.where}: column {column!r} holds numbers with a fraction: those are no labels")
    found = Counter("" if value == "" else value for value in values)
    if "" in found:
        raise UserError(f"{seen.where}: {found['']} row(s) have no label in column {column!r}: fill them in, or leave them out")  # fmt: skip
    if not 2 <= len(found) <= most:
        many = len(found) > most == MOST_LABELS
        advice = ", or train a head for them with --head" if many else ""
        raise UserError(
            f"{seen.where}: column {column!r} has {len(found)} different value(s), as {shortened(', '.join(map(str, list(found)[:3])), 60)}; "
            f"labels are 2 to {most}: name another column with --columns label=...{advice}"
        )
    whole = all(str(value).lstrip("-").isdigit() for value in found)
    return tuple(str(value) for value in sorted(found, key=(lambda v: int(v)) if whole else str))


def _hub_values(seen: Seen, kind: str, reading: Reading, separator: str) -> dict[int | str, str | None]:
    """What a HubSource calls labels: value there -> label.

    The hub's -1 is a row without one; of others that `--labels` does not name the first row is an error.
    """
    if "label" not in KINDS[kind]:
        return {}
    column, asked = _label_column(reading), reading.labels
    if column in seen.names:
        given = dict(enumerate(seen.names[column]))
        called = {
            place: asked.get(name) or asked.get(str(place)) if asked else name
            for place, name in given.items()
        }
        return {**{place: name for place, name in called.items() if name}, -1: None}
    if separator:
        return {value: label for value, label in asked.items()}
    named = {
        value: asked.get(str(value)) if asked else str(value).strip()
        for value in dict.fromkeys(seen.values[column])
    }
    # True and 1.0 are found under 1, and a record keeps whole numbers and text alone
    return {v if isinstance(v, str) else int(v): name for v, name in named.items() if name}


def words_for(labels: Sequence[str]) -> tuple[str, dict[str, Words]]:
    """The type of task that labels tell, and words for them: the shipped tasks', or the labels' own names."""
    for type_, families in KNOWN:
        if set(labels) <= set(families["t5"]):
            return type_, {f: {label: words[label] for label in labels} for f, words in families.items()}
    own = {label: (re.sub(r"[_-]+", " ", label).strip().lower() or label,) for label in labels}
    return OWN_TYPE, dict.fromkeys(NEEDED, own)


def free_name(text: str) -> str:
    """A name for a task that no shipped one has."""
    name = re.sub(r"[^A-Za-z0-9_.-]+|\.{2,}", "-", text).strip("-._") or "task"
    return f"own-{name}" if name in TASKS or name.startswith("microworld-") else name
