"""Rows from files of one's own: DIR/<task>/train.jsonl and validation.jsonl (or .csv, .tsv, .parquet), or one file.

Fields have their neutral names (`KINDS` in task.py) unless the task names other columns, labels are written by name
unless it maps their values. A file is read whole and checked to its last line before anything is made of it; the first
bad row is named by file and line. Of a single file a fifth of its texts is the test split, drawn by their digests: the
same in every run, and with other rows beside them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from tasks.documents import read_bytes, shortened
from tasks.errors import MissingError, UserError
from tasks.rows import empty_text, example_of, mapped, neutral
from tasks.tables import FORMATS, TEXT_ALONE, Row, rows_in
from tasks.task import Example, Task

SPLITS = {"train": "train", "test": "validation"}
"""Split -> the file's name without its end. Official validation data is our test split; our validation split is a part of train."""
USUAL = "train.jsonl and validation.jsonl (or .csv, .tsv, .parquet)"
HELD_OUT = 5
"""Of a single file, one text in so many is for the test split."""


class LocalRows(NamedTuple):
    """What was read."""

    splits: dict[str, list[Example]]
    revision: str
    """A digest of the files' bytes: `sha256:` and 16 digits."""
    empty: int
    """Rows that were left out because a text of theirs is empty."""


def read_folder(task: Task, place: Path) -> LocalRows:
    """The examples of train and test in a folder, or in one file."""
    if not place.is_dir() and not place.is_file():
        raise UserError(
            f"no folder {place} for task {task.name!r}: it must hold {USUAL}, with {', '.join(task.fields)}"
        )
    if place.is_file() and task.splits:
        raise UserError(
            f"{place} is one file, and splits name files of a folder: give the folder, or no splits"
        )
    digest = hashlib.sha256()
    splits: dict[str, list[Example]] = {}
    empty = 0
    files = (
        {"train": [place]}
        if place.is_file()
        else {split: _files(place, split, task.splits, f"task {task.name!r}") for split in SPLITS}
    )
    for split, paths in files.items():
        found: list[Example] = []
        for path in paths:
            content = _content(task, path)
            digest.update(len(content).to_bytes(8, "big") + content)
            examples, without = read_rows(task, content, path)
            found += examples
            empty += without
        splits[split] = found
    if place.is_file():
        splits = _held_out(splits["train"], place)
    return LocalRows(splits, f"sha256:{digest.hexdigest()[:16]}", empty)


def describe_place(place: Path) -> str:
    """Where rows are from, in words that results keep."""
    if place.is_file():
        return f"file {place} (test split: one text in {HELD_OUT}, drawn by their digests)"
    return f"folder {place}"


def read_rows(task: Task, content: bytes, path: Path) -> tuple[list[Example], int]:
    """The examples in the bytes of a file, and how many rows were left out for an empty text, which is otherwise an error."""
    examples: list[Example] = []
    empty = 0
    for where, found in rows_in(content, path):
        row = neutral(task, found, where)
        if path.suffix.lower() in TEXT_ALONE and isinstance(row.get("answers"), str):
            row["answers"] = [row["answers"]]
        if name := empty_text(task, row):
            if not task.skip_empty:
                raise UserError(
                    f"{where}: {name!r} is empty; give it text or leave the row out (--skip-empty leaves out all such)"
                )
            empty += 1
            continue
        named = mapped(task, row, where)
        if named is not None:
            examples.append(example_of(task, named, where))
    if not examples:
        also = f" that are not left out ({empty} have an empty text)" if empty else ""
        raise UserError(
            f"{path} holds no rows{also}: write one row a line with {', '.join(task.fields)} for task {task.name!r}"
        )
    return examples, empty


def _held_out(rows: Sequence[Example], path: Path) -> dict[str, list[Example]]:
    """Train and test of one file: rows of equal texts go to the same split, the fewest digests of texts to test."""
    ranks = [hashlib.sha256(repr((row.first, row.second)).encode()).hexdigest() for row in rows]
    different = sorted(set(ranks))
    if len(different) < 2:
        raise UserError(f"{path} has 1 text: at least 2 are needed, since a part becomes the test split")
    test = set(different[: max(1, round(len(different) / HELD_OUT))])
    return {
        "train": [row for row, rank in zip(rows, ranks, strict=True) if rank not in test],
        "test": [row for row, rank in zip(rows, ranks, strict=True) if rank in test],
    }


def train_files(place: Path, splits: Mapping[str, str]) -> list[Path]:
    """The files of the training rows in a folder, or the one file that is there."""
    if place.is_file():
        return [place]
    if not place.is_dir():
        raise MissingError(f"no file or folder of rows {place}")
    return _files(place, "train", splits, "what is made of it")


def _files(folder: Path, split: str, splits: Mapping[str, str], who: str) -> list[Path]:
    """The files of a split: of the name that it is given, with or without its end, or all that fit a pattern."""
    name = splits.get(split, SPLITS[split])
    if (folder / name).is_file():
        return [folder / name]
    found = [folder / f"{name}{suffix}" for suffix in FORMATS if (folder / f"{name}{suffix}").exists()]
    if len(found) > 1:
        raise UserError(
            f"{folder} holds both {found[0].name} and {found[1].name}: keep one, or say which by --splits {split}={found[0].name}"
        )
    if set(name) & set("*?["):
        found = sorted(path for path in folder.glob(name) if path.suffix.lower() in FORMATS)
    if not found:
        raise _no_file(folder, name, who)
    return found


def _no_file(folder: Path, name: str, who: str) -> UserError:
    there = sorted(path.name for path in folder.iterdir() if path.suffix.lower() in FORMATS)
    wanted = name if set(name) & set("*?[") or Path(name).suffix.lower() in FORMATS else f"{name}.jsonl"
    if len(there) > 1:
        advice = f"there are {shortened(', '.join(there))}: say which is which by --splits train={there[0]} test={there[-1]}"
    elif there:
        advice = f"there is {there[0]}: give that file itself, and a part of it becomes the test split"
    else:
        advice = "there is no file of rows"
    return UserError(f"no file {folder / wanted}: {who} needs {USUAL} in that folder; {advice}")


def _content(task: Task, path: Path) -> bytes:
    try:
        return read_bytes(path, "file of rows")
    except MissingError:
        raise UserError(f"no file {path} for task {task.name!r}") from None


def rows_of_files(paths: Iterable[Path]) -> list[Row]:
    """All rows of some files as they stand there, for whoever asks what is in them."""
    return [row for path in paths for row in rows_in(read_bytes(path, "file of rows"), path)]
