"""A task of the user's own, from one YAML file and no code.

    name: my_reviews
    type: sentiment
    kind: sentence
    words:
      bad: [terrible, awful]
      good: great
    folder: my_reviews        # holds train.jsonl and validation.jsonl (or .csv, .tsv, .parquet); or --data DIR

In place of `folder` may stand `file: reviews.csv`, or `hub: {repo: ...}`. How files are read is said by `columns`, `labels`,
`splits` and `skip_empty`. The labels are the keys of `words`, in that order. Words may be given once, or per backbone family
(`words: {masked-lm: {...}, t5: {...}}`; causal-lm takes those of masked-lm where it has none of its own). `template` is how
a decoder reads a row, as in `template: "Review: {text} Sentiment:"`; without one it is that of the type and kind. With
`regression: {low: 0, high: 5}` the label of a row is a number, and the two words stand for its ends. With `head: true` there
are no words: a linear head is trained, for the `classes` that are listed, or else for those that the training rows have. With `multi-label: true` a row has any number
of these, as a list, or with ";" between them (`multi-label: "|"` names another separator).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from tasks.catalog import TASKS
from tasks.documents import PlainLoader, read_yaml, shortened
from tasks.errors import UserError, unknown
from tasks.loading import place_of
from tasks.proposing import classes_of, see_files, see_hub
from tasks.reading import AS_THEY_ARE, Reading
from tasks.task import FAMILIES, KINDS, NEEDED, HubSource, Scale, Task

SEPARATOR = ";"
"""What stands between labels where a task file does not say."""
WordList = str | list[str]


class _HubFile(BaseModel):
    """The `hub:` part of a task file."""

    model_config = ConfigDict(extra="forbid", strict=True)
    repo: str
    config: str | None = None
    revision: str | None = None
    train: str = "train"
    test: str = "validation"
    columns: dict[str, str] = Field(default_factory=dict)
    labels: dict[int | str, str | None] = Field(default_factory=dict)
    data_files: dict[str, str] | None = None


class _Bounds(BaseModel):
    """The `regression:` part of a task file."""

    model_config = ConfigDict(extra="forbid", strict=True)
    low: float
    high: float


class _TaskFile(BaseModel):
    """What a task file may say."""

    model_config = ConfigDict(extra="forbid", strict=True)
    name: str
    type: str
    kind: str
    metric: str = ""
    words: dict[str, WordList | dict[str, WordList]] = Field(default_factory=dict)
    aspect: bool = False
    columns: dict[str, str] = Field(default_factory=dict)
    labels: dict[int | str, str | None] = Field(default_factory=dict)
    splits: dict[str, str] = Field(default_factory=dict)
    skip_empty: bool = False
    folder: str | None = None
    file: str | None = None
    hub: _HubFile | None = None
    note: str = ""
    template: str = ""
    regression: _Bounds | None = None
    head: bool = False
    classes: list[str] = Field(default_factory=list)
    multi_label: bool | str = Field(default=False, alias="multi-label")


def read_task_file(path: Path, reading: Reading = AS_THEY_ARE, data: Path | None = None) -> Task:
    """The task that a YAML file describes; a relative `folder` is beside the file.

    `reading` and `data` are what a run says of its rows, which the classes of a head may have to be read from.
    """
    content = _read(path)
    _refuse_bare_booleans(path, content.get("words"))
    try:
        file = _TaskFile.model_validate(content)
    except ValidationError as error:
        raise UserError(f"{path}: {_explain(error)}") from None
    if file.name in TASKS or file.name.startswith("microworld-"):
        raise UserError(f"{path}: the name {file.name!r} belongs to a shipped task; choose another name")
    sources = [name for name in ("folder", "file", "hub") if getattr(file, name) is not None]
    if len(sources) > 1:
        raise UserError(f"{path}: both {sources[0]} and {sources[1]} are given; give one source")
    if file.hub and (given := _of_files(file)):
        raise UserError(f"{path}: {given} is about files of rows; what is on the hub is said under hub")
    try:
        return _task(file, path, reading, data)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None


def _task(file: _TaskFile, path: Path, reading: Reading, data: Path | None) -> Task:
    words = _words_by_family(file)
    hub = HubSource(**file.hub.model_dump()) if file.hub else None
    folder = str((path.parent / place).resolve()) if (place := file.folder or file.file) else None
    labels = tuple(next(iter(words.values()))) if words else ()
    if file.multi_label == "":
        raise UserError(
            f'multi-label: nothing stands between labels: write true for "{SEPARATOR}", or another separator'
        )
    separator = SEPARATOR if file.multi_label is True else file.multi_label or ""
    if file.regression and file.head and not file.classes:
        raise UserError(
            "regression and head: true are both given: the numbers of a regression are answered by its two words, and a head "
            "tells classes apart: leave one of the two out"
        )
    if (file.head or separator) and not words:
        labels = tuple(file.classes) or _classes(file, folder or data, hub, reading, separator)
    elif file.classes:
        raise UserError("classes are those of a head: give head: true, too, and no words")
    return Task(
        name=file.name,
        type=file.type,
        kind=file.kind,
        metric=file.metric,
        labels=labels,
        words=words,
        hub=hub,
        folder=folder,
        columns=file.columns,
        label_values=file.labels,
        splits=file.splits,
        skip_empty=file.skip_empty,
        aspect=file.aspect,
        note=file.note,
        template=file.template,
        scale=Scale(file.regression.low, file.regression.high) if file.regression else None,
        head=file.head,
        separator=separator,
    )


def _classes(
    file: _TaskFile, place: str | Path | None, hub: HubSource | None, reading: Reading, separator: str
) -> tuple[str, ...]:
    """The classes of a head that the file does not list: those that its values stand for, or those of its training rows."""
    given = (file.labels, file.hub.labels if file.hub else {}, reading.labels)
    if mapped := [label for labels in given for label in labels.values() if label is not None]:
        return tuple(dict.fromkeys(mapped))
    columns = {**file.columns, **(file.hub.columns if file.hub else {}), **reading.columns}
    read = Reading(columns)
    if hub is not None:
        return classes_of(see_hub(hub), read, separator)
    if place is None:
        raise UserError(
            "the classes of the head are neither listed nor are there rows to read them from: give classes: [...], or "
            "folder, file or --data"
        )
    splits = {**file.splits, **reading.splits}
    return classes_of(see_files(place_of(file.name, splits, Path(place)), splits), read, separator)


def _of_files(file: _TaskFile) -> str:
    """The first key that says how files are read; nothing where none is given."""
    return next((name for name in ("labels", "splits", "skip_empty") if getattr(file, name)), "")


def _words_by_family(file: _TaskFile) -> dict[str, dict[str, tuple[str, ...]]]:
    """`words` of the file, one mapping for all families or one each, as family -> label -> words."""
    if not file.words:
        if "label" in KINDS.get(file.kind, ()) and not (file.head or file.multi_label):
            raise UserError(
                "no label words: a task with labels needs `words`, one word or list of words a label, "
                "as in words: {bad: [terrible, awful], good: great}; head: true trains a head in their place"
            )
        return {}
    per_family = set(file.words) <= set(FAMILIES)
    given = file.words if per_family else dict.fromkeys(NEEDED, file.words)
    if missing := [family for family in NEEDED if family not in given]:
        raise UserError(
            f"words are given for {', '.join(given)} but not for {missing[0]}; give both, or one for all"
        )
    families = {}
    for family, words in given.items():
        if not isinstance(words, dict) or not all(isinstance(word, str | list) for word in words.values()):
            raise UserError(
                "words must be one word or a list of words a label, or first `masked-lm` and `t5` and then the labels"
            )
        families[family] = {label: (w,) if isinstance(w, str) else tuple(w) for label, w in words.items()}
    first = next(iter(families))
    if other := next((family for family in families if set(families[family]) != set(families[first])), None):
        raise UserError(f"words for {first} and {other} name different labels; name the same labels in both")
    return families


def _read(path: Path) -> dict[str, Any]:
    content = read_yaml(path, "task file", PlainLoader)
    if not isinstance(content, dict):
        raise UserError(f"{path}: a task file is a YAML mapping with name, type, kind and words")
    return content


def _refuse_bare_booleans(path: Path, part: Any, depth: int = 4) -> None:
    """YAML reads a bare yes, no, true, false, on, off as a boolean, and a bare number as a number.

    `words` are at most family, label, list, word deep; deeper is refused by the schema (or goes round in a circle).
    """
    if isinstance(part, bool | int | float):
        raise UserError(
            f"{path}: a label or word in `words` was read by YAML as {part!r} ({type(part).__name__}); put it in "
            'quotes, as in "yes": ["yes", right] (bare yes, no, true, false and numbers are not text in YAML)'
        )
    if isinstance(part, dict | list) and depth:
        values = part.values() if isinstance(part, dict) else ()
        for inner in [*part, *values]:
            _refuse_bare_booleans(path, inner, depth - 1)


def _explain(error: ValidationError) -> str:
    """The first problem as a line: the key, what was given, what was needed."""
    first = error.errors()[0]
    place = [str(step) for step in first["loc"] if str(step) not in {"str", "list[str]", "int"}]
    key = ".".join(place)
    if first["type"] == "extra_forbidden":
        models: dict[str, type[BaseModel]] = {"hub": _HubFile, "regression": _Bounds}
        known = models.get(place[0], _TaskFile).model_fields
        return str(unknown("key", place[-1], [field.alias or name for name, field in known.items()]))
    if first["type"] == "missing" and place[0] == "regression":
        return "regression needs both ends of its numbers, as in regression: {low: 0, high: 5}"
    if first["type"] == "missing":
        advice = {"kind": f", one of {', '.join(KINDS)}", "type": ", as in sentiment, nli, paraphrase, qa"}
        return f"no {key!r}; a task file needs name, type and kind ({key}{advice.get(key, '')})"
    return (
        f"{shortened(key)} is {shortened(repr(first['input']))}: {first['msg'][0].lower()}{first['msg'][1:]}"
    )
