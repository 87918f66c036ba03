"""From a row in neutral fields to an `Example`, or one clear line that says what is wrong with the row.

Folders, the hub and a user's own files all pass through here, so a row is checked the same way wherever it is from.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from tasks.documents import parse_json, shortened
from tasks.errors import UserError, unknown
from tasks.task import Example, Scale, Task

GOLD = ("label", "answers", "summary")
"""The neutral fields that hold the right answer."""


def question_of(task: Task, row: Mapping[str, Any], where: str) -> Example:
    """The example in a row of neutral fields whose right answer is not asked for, and not looked at where it is there."""
    nothing = {"label": _any_label(task), "answers": ["-"], "summary": "-"}
    whole = {key: value for key, value in row.items() if key not in GOLD}
    needed = [name for name in task.fields if name not in GOLD]
    if missing := [name for name in needed if name not in whole]:
        raise UserError(
            f"{where}: no {missing[0]!r}; task {task.name!r} needs {', '.join(needed)}, this row has "
            f"{', '.join(map(str, row)) or 'nothing'}"
        )
    example = example_of(task, {**nothing, **whole}, where)
    return replace(example, label=None, references=(), value=None, labels=None)


def _any_label(task: Task) -> Any:
    """What may stand for the label of a row that is only to be answered."""
    if task.separator:
        return []
    if task.scale is not None:
        return task.scale.low
    return task.labels[0] if task.labels else None


def example_of(task: Task, row: Mapping[str, Any], where: str) -> Example:
    """The example in a row of neutral fields; `where` (file:line) begins every complaint.

    A sentence with an aspect becomes `sentence + " " + aspect` (Su et al. 2022, authors' code).
    """
    if missing := [name for name in task.fields if name not in row]:
        raise UserError(
            f"{where}: no {missing[0]!r}; task {task.name!r} needs {', '.join(task.fields)}, "
            f"this row has {', '.join(map(str, row)) or 'nothing'}"
        )
    if task.kind == "sentence":
        text = _text(row, "text", where)
        if task.aspect:
            text = f"{text} {_text(row, 'aspect', where)}"
        return Example(text, **_gold(task, row["label"], where))
    if task.kind == "pair":
        first, second = _text(row, "text_a", where), _text(row, "text_b", where)
        return Example(first, second, **_gold(task, row["label"], where))
    if task.kind == "summarisation":
        return Example(_text(row, "document", where), references=_references(row, "summary", where))
    question, answers = _text(row, "question", where), _references(row, "answers", where)
    context = _text(row, "context", where) if task.kind == "extractive-qa" else None
    return Example(question, context, references=answers)


def neutral(
    task: Task, row: Mapping[str, Any], where: str, *, left_out: Collection[str] = ()
) -> dict[str, Any]:
    """The row under neutral names, where the task says that its files have columns of their own.

    `left_out`: neutral names whose columns need not be there, and are not renamed.
    """
    renamed = dict(row)
    for name, column in task.columns.items():
        if name in left_out:
            continue
        if column not in row:
            raise UserError(
                f"{where}: no column {column!r}, which task {task.name!r} reads as {name!r}; "
                f"this row has {', '.join(row) or 'nothing'}"
            )
        renamed[name] = row[column]
    return renamed


def empty_text(task: Task, row: Mapping[str, Any]) -> str:
    """The first field of a row that should be text and has none; nothing where all have some."""
    texts = [name for name in task.fields if name != "label"]
    return next((name for name in texts if isinstance(v := row.get(name), str) and not v.strip()), "")


def mapped(task: Task, row: dict[str, Any], where: str) -> dict[str, Any] | None:
    """The row with the name of its label in place of what stands for it there; None for one that the task leaves out.

    A value is known by how it is written: 1 and "1" are the same, as in a file all of whose values are text.
    """
    if not task.label_values or "label" not in row:
        return row
    if task.separator:  # of several, those alone are left out
        values = several(task.separator, row["label"], where)
        named = [_mapped(task, value, where) for value in values]
        return {**row, "label": [label for label in named if label is not None]}
    label = _mapped(task, row["label"], where)
    return None if label is None else {**row, "label": label}


def _mapped(task: Task, value: Any, where: str) -> str | None:
    """The label that a value stands for; None for one to leave out."""
    known = {str(value): label for value, label in task.label_values.items()}
    written = value.strip() if isinstance(value, str) else str(value)
    if written not in known:
        raise UserError(f"{where}: {unknown(f'label value of task {task.name!r}', written, known)}")
    return known[written]


def digest_rows(parts: Iterable[Sequence[Example]]) -> str:
    """16 hex digits over every field of every row, in order; what training, resuming and studies know rows by.

    Names of finished cells hold it: it must not change for the fields that there are.
    """
    sha = hashlib.sha256()
    for rows in parts:
        sha.update(f"{len(rows)} rows\n".encode())
        for row in rows:
            sha.update(repr((row.first, row.second, row.label, row.references)).encode())
            if row.value is not None:
                sha.update(repr(row.value).encode())
            if row.labels is not None:
                sha.update(f"labels {row.labels}".encode())
    return sha.hexdigest()[:16]


def _text(row: Mapping[str, Any], name: str, where: str) -> str:
    """A field that must be text with something in it, without the white space around it."""
    value = row[name]
    if not isinstance(value, str):
        raise UserError(f"{where}: {name!r} is {shown(value)}; it must be text")
    if not value.strip():
        raise UserError(f"{where}: {name!r} is empty; give it text or leave the row out")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise UserError(
            f"{where}: {name!r} holds half a character (a lone surrogate); mend the text"
        ) from None
    return value.strip()


def _references(row: Mapping[str, Any], name: str, where: str) -> tuple[str, ...]:
    """One or more accepted texts: a list of them, or (a summary) one text."""
    value = row[name]
    if isinstance(value, str) and name == "summary":
        return (_text(row, name, where),)
    if not isinstance(value, list):
        raise UserError(f"{where}: {name!r} is {shown(value)}; it must be a list of texts")
    if not value:
        raise UserError(f"{where}: {name!r} is an empty list; give at least one text or leave the row out")
    return tuple(_text({name: text}, name, where) for text in value)


def _gold(task: Task, value: Any, where: str) -> dict[str, Any]:
    """The right answer of a row, as the fields of an `Example`."""
    if task.scale is not None:
        return {"value": _number(task, task.scale, value, where)}
    if task.separator:
        found = {_label(task, each, where) for each in several(task.separator, value, where)}
        return {"labels": tuple(sorted(found))}
    return {"label": _label(task, value, where)}


def several(separator: str, value: Any, where: str) -> list[Any]:
    """The labels of a row that may have several, or none: a list of them, also as JSON in a cell, or text between separators."""
    if isinstance(value, str) and value.strip().startswith("["):
        value = parse_json(value, where)
    if isinstance(value, str):
        return [part for each in value.split(separator) if (part := each.strip())]
    if not isinstance(value, list) or any(isinstance(each, list | dict) for each in value):
        raise UserError(
            f"{where}: label is {shown(value)}; write the labels of a row as a list, or as text with {separator!r} between them"
        )
    return value


def _number(task: Task, scale: Scale, value: Any, where: str) -> float:
    """A number within the bounds of a regression; in a file all of whose values are text it stands as text."""
    number = number_of(value)
    if not math.isfinite(number):
        raise UserError(
            f"{where}: label is {shown(value)}; task {task.name!r} is a regression and needs a number from {scale}, with a "
            f"point for its fraction"
        )
    if not scale.low <= number <= scale.high:
        raise UserError(
            f"{where}: label {number:g} is outside of {scale}, the bounds of task {task.name!r}: mend it, or widen "
            f"`regression` in the task file"
        )
    return number


def number_of(value: Any) -> float:
    """A value of a table as a number; NaN for what is none."""
    try:
        return float("nan" if isinstance(value, bool) else value)
    except (TypeError, ValueError, OverflowError):
        return float("nan")


def _label(task: Task, value: Any, where: str) -> int:
    """The index of a label that is given by its name."""
    if isinstance(value, int) and not isinstance(value, bool) and str(value) in task.labels:
        value = str(value)
    if not isinstance(value, str):
        raise UserError(
            f"{where}: label is {shown(value)}; write the name of the label: {', '.join(task.labels)}, or say what values "
            f"stand for, as by --labels {shortened(str(value), 20)}={task.labels[0]}"
        )
    value = value.strip()
    if value not in task.labels:
        raise UserError(f"{where}: {unknown(f'label for task {task.name!r}', value, task.labels)}")
    return task.labels.index(value)


def shown(value: Any) -> str:
    """A value as a person may recognise it, with its JSON type, cut to a line."""
    if value is None:
        return "null"
    kind = {
        bool: "true/false",
        int: "a number",
        float: "a number",
        list: "a list",
        dict: "an object",
        str: "text",
    }
    text = repr(value)
    return f"{text if len(text) <= 40 else text[:37] + '...'} ({kind.get(type(value), type(value).__name__)})"
