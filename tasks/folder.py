"""Rows from a local folder: DIR/<task>/train.jsonl and validation.jsonl, UTF-8, one JSON object a line.

Fields have their neutral names (`KINDS` in task.py) unless the task names other columns. A file is read whole and
checked to its last line before anything is made of it; the first bad line is named by file and number.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from tasks.documents import parse_json_lines, read_bytes
from tasks.errors import MissingError, UserError
from tasks.rows import example_of, neutral
from tasks.task import Example, Task

FILES = {"train": "train.jsonl", "test": "validation.jsonl"}
"""Split -> file. Official validation data is our test split; our validation split is a part of train."""


def read_folder(task: Task, folder: Path) -> tuple[dict[str, list[Example]], str]:
    """The examples of both files, and a digest of their bytes (`sha256:` and 16 digits)."""
    if not folder.is_dir():
        raise UserError(
            f"no folder {folder} for task {task.name!r}: it must hold {' and '.join(FILES.values())}, "
            f"one JSON object a line with {', '.join(task.fields)}"
        )
    digest = hashlib.sha256()
    splits = {}
    for split, name in FILES.items():
        content = _content(task, folder / name)
        digest.update(len(content).to_bytes(8, "big") + content)
        splits[split] = read_lines(task, content, folder / name)
    return splits, f"sha256:{digest.hexdigest()[:16]}"


def read_lines(task: Task, content: bytes, path: Path) -> list[Example]:
    """The examples in the bytes of a JSON-lines file; blank lines are passed over."""
    examples = []
    for number, row in parse_json_lines(content, str(path)):
        where = f"{path}:{number}"
        examples.append(example_of(task, neutral(task, _object(row, where), where), where))
    if not examples:
        raise UserError(
            f"{path} holds no rows: write one JSON object a line with {', '.join(task.fields)} for task {task.name!r}"
        )
    return examples


def _content(task: Task, path: Path) -> bytes:
    try:
        return read_bytes(path, "file of JSON lines")
    except MissingError:
        raise UserError(
            f"no file {path}: task {task.name!r} needs {' and '.join(FILES.values())} in that folder"
        ) from None


def _object(row: Any, where: str) -> dict[str, Any]:
    if not isinstance(row, dict):
        raise UserError(
            f"{where}: this is a {type(row).__name__}; each line must be one JSON object like {{...}}"
        )
    return row
