"""A task as a commented YAML file, as `tasks new` writes it: what is known of the data, and what else may be said."""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from pathlib import Path

from tasks.proposing import Seen
from tasks.task import TYPES, Task

WHAT_A_ROW_IS = {
    "sentence": "a row is one text with a label",
    "pair": "a row is two texts with a label",
    "extractive-qa": "a row is a question, a text that holds the answer, and answers",
    "closed-book-qa": "a row is a question with answers",
    "summarisation": "a row is a document with a summary",
}
_PLAIN = re.compile(r"[A-Za-z][A-Za-z0-9_./-]*(?: [A-Za-z0-9_./-]+)*")
_TAKEN = {"yes", "no", "true", "false", "on", "off", "null", "y", "n"}


def task_file(task: Task, seen: Seen, place: Path) -> str:
    """The text of a task file that is to lie at `place`."""
    lines = [
        "# Written by `prompttransfer tasks new`. `tasks check` shows how rows enter a model; docs/own-data.md has every key.",
        f"name: {_scalar(task.name)}",
        f"type: {_scalar(task.type):<20} # for tables and the same-type flag: {', '.join(TYPES)}, or a word of your own",
        f"kind: {task.kind:<20} # {WHAT_A_ROW_IS[task.kind]}",
        f"metric: {task.metric:<18} # {', '.join(task.metrics)}",
        *_source(task, place),
        *_scale(task),
        *_reading(task, seen),
        *_words(task, seen),
        "# template: ...            # how a decoder reads a row, as in " + _scalar(task.template),
        "# note: ...                # what a reader of results should know",
    ]
    return "\n".join(lines) + "\n"


def _source(task: Task, place: Path) -> list[str]:
    if task.hub is not None:
        hub = task.hub
        said = {"repo": hub.repo, "config": hub.config, "train": hub.train, "test": hub.test}
        lines = [f"  {key}: {_scalar(value)}" for key, value in said.items() if value]
        if hub.columns:
            lines += ["  columns:", *(f"    {key}: {_scalar(value)}" for key, value in hub.columns.items())]
        if hub.labels:
            lines += [
                "  labels:                  # value there: label; null leaves the row out",
                *(f"    {_key(value)}: {_scalar(label)}" for value, label in hub.labels.items()),
            ]
        return ["hub:", *lines]
    at = Path(str(task.folder))
    path = os.path.relpath(at, place.resolve().parent)
    if at.is_file():
        return [f"file: {_scalar(path):<20} # one text in 5, drawn by their digests, is the test split"]
    return [f"folder: {_scalar(path):<18} # the official validation file is the test split"]


def _scale(task: Task) -> list[str]:
    if task.scale is None:
        return []
    bounds = f"{{low: {task.scale.low:g}, high: {task.scale.high:g}}}"
    return [
        f"regression: {bounds} # the least and the largest number there may be; the first word stands for the least"
    ]


def _reading(task: Task, seen: Seen) -> list[str]:
    lines: list[str] = []
    if task.columns:
        lines += [f"columns:                   # field: column, of {', '.join(seen.columns)}"]
        lines += [f"  {field}: {_scalar(column)}" for field, column in task.columns.items()]
    if task.label_values:
        lines += ["labels:                    # value there: label; null leaves the row out"]
        lines += [f"  {_key(value)}: {_scalar(label)}" for value, label in task.label_values.items()]
    if task.splits:
        lines += ["splits:", *(f"  {split}: {_scalar(name)}" for split, name in task.splits.items())]
    if task.aspect:
        lines += ["aspect: true"]
    if task.hub is None:
        said = "" if task.skip_empty else "# "
        lines += [f"{said}skip_empty: true{' ' * (11 - len(said))}# leave out rows with an empty text, which are otherwise an error"]  # fmt: skip
    return lines


def _words(task: Task, seen: Seen) -> list[str]:
    if task.generates:
        return []
    if task.head:
        lines = ["head: true                 # a trained linear map in place of label words"]
        if task.separator:
            lines += [
                f"multi-label: {_quoted(task.separator):<13} # any number of labels a row, with this between them"
            ]
        return [*lines, "classes:", *(f"  - {_scalar(label)}" for label in task.labels)]
    lines = [
        "words:                     # label: words that stand for it, best first; a proposal, which matters"
    ]
    counts = _counts(task, seen)
    same = task.words["masked-lm"] == task.words["t5"]
    for family in ("",) if same else ("masked-lm", "t5"):
        indent = "  " if same else "    "
        lines += [] if same else [f"  {family}:"]
        for label, words in task.words[family or "masked-lm"].items():
            rows = f"   # {counts[label]:,} training rows" if label in counts else ""
            lines.append(f"{indent}{_key(label)}: [{', '.join(map(_scalar, words))}]{rows}")
    return lines


def _counts(task: Task, seen: Seen) -> dict[str, int]:
    """How often each label stands in the rows that were looked at."""
    column = (task.hub.columns if task.hub else task.columns).get("label", "label")
    if task.scale is not None:
        return {}
    if column not in seen.values or task.hub is not None:
        return {}
    called = {str(value): label for value, label in task.label_values.items()}
    found: Counter[str] = Counter()
    for value in seen.values[column]:
        label = called.get(str(value).strip(), str(value).strip() if not called else None)
        if label is not None:
            found[label] += 1
    return dict(found)


def _key(value: int | str) -> str:
    return str(value) if isinstance(value, int) else _scalar(value)


def _quoted(value: str) -> str:
    return json.dumps(value, ensure_ascii=False)


def _scalar(value: str | None) -> str:
    """Text as YAML reads it back: in quotes where it would be taken for something else."""
    if value is None:
        return "null"
    plain = _PLAIN.fullmatch(value) and value.lower() not in _TAKEN
    return value if plain else _quoted(value)
