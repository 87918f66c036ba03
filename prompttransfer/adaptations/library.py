"""Libraries: folders of adaptations as one keeps them: what is in one, an index of thousands, renaming and copying.

`.index.json` in a folder holds a line for each adaptation in it, with the names, sizes and times of its files. A line
counts only while those are what they were; everything else is read anew, so an index can be behind but never lies.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from prompttransfer.adaptations.artifacts import (
    FILES,
    MARKERS,
    AdaptationRecord,
    card,
    find_adaptations,
    holds_one,
    load_adaptation,
    method_of,
    read_record,
)
from prompttransfer.files import atomic_folder, safe_name, write_json
from tasks.documents import checked, read_json
from tasks.errors import UserError

INDEX = ".index.json"
Line = dict[str, Any]


def line_of(folder: Path, record: AdaptationRecord) -> Line:
    """What a list says of one adaptation."""
    origin = record.origin
    metric, scores = _scores(record)
    return {
        "name": record.name,
        "folder": str(folder),
        "method": str(method_of(record)),
        "backbone": origin.backbone,
        "task": origin.task,
        "seed": origin.seed,
        "metric": metric,
        **scores,
        "size": sum(prod(shape) for shape in record.shapes.values()),
        "bytes": sum(path.stat().st_size for path in folder.iterdir() if path.is_file()),
        "start": origin.start,
    }


def _scores(record: AdaptationRecord) -> tuple[str, dict[str, float | None]]:
    """The metric, and the score of each split that has one."""
    test = record.scores.get("test") or {}
    validation = record.scores.get("validation") or {}
    metric = test.get("metric") or next((key for key in validation if key != "step"), "")
    return metric, {"validation": validation.get(metric), "test": test.get("value", test.get(metric))}


class Entry(BaseModel):
    """A line of an index, and the files that it was read from."""

    model_config = ConfigDict(extra="forbid")

    files: list[tuple[str, int, int]]
    """Name, bytes and time of change in nanoseconds."""
    line: dict[str, Any]


class IndexRecord(BaseModel):
    """`.index.json`."""

    model_config = ConfigDict(extra="forbid")

    format: int
    entries: dict[str, Entry]
    """Name of a folder -> its line."""


@dataclass(frozen=True)
class Listed:
    """What lies in a folder, and how far its index knew it."""

    lines: tuple[Line, ...]
    indexed: bool
    """Whether there is an index at all."""
    behind: int
    """Adaptations that are new, changed or gone since it was written."""


def listed(folder: Path) -> Listed:
    """The adaptations of a folder, from its index as far as that is current. Raises UserError where there is none."""
    known = _read_index(folder)
    if known is None or holds_one(folder):
        lines = tuple(line_of(at, read_record(at)) for at in find_adaptations(folder))
        return Listed(lines, False, 0)
    found, read = [], 0
    for at in find_adaptations(folder):
        entry = known.get(at.name)
        if entry is not None and entry.files == files_of(at):
            found.append({**entry.line, "folder": str(at)})
        else:
            found.append(line_of(at, read_record(at)))
            read += 1
    gone = len(known.keys() - {Path(line["folder"]).name for line in found})
    return Listed(tuple(found), True, read + gone)


def write_index(folder: Path) -> int:
    """Write the index of a folder of adaptations anew; how many it holds. Raises UserError where there is none."""
    if holds_one(folder):
        raise UserError(f"{folder} is one adaptation: give the folder that it lies in")
    entries = {}
    for at in find_adaptations(folder):
        files = files_of(at)  # before it is read: what changes in between makes the line void
        entries[at.name] = Entry(files=files, line={**line_of(at, read_record(at)), "folder": at.name})
    write_json(folder / INDEX, IndexRecord(format=1, entries=entries).model_dump(mode="json"))
    return len(entries)


def renew_index(folder: Path) -> None:
    """Write the index of a folder anew, if it has one; what holds no adaptation any more needs none."""
    if not (folder / INDEX).exists():
        return
    try:
        write_index(folder)
    except UserError:
        (folder / INDEX).unlink(missing_ok=True)


def _read_index(folder: Path) -> dict[str, Entry] | None:
    path = folder / INDEX
    if not path.exists():
        return None
    try:
        record = checked(IndexRecord, read_json(path, "index"), str(path))
    except UserError as error:
        raise UserError(
            f"{error}; delete it, or write it anew with `prompttransfer prompts index {folder}`"
        ) from None
    return record.entries if record.format == 1 else None


def files_of(folder: Path) -> list[tuple[str, int, int]]:
    """Name, bytes and time of every file of a folder, by name."""
    found = []
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_file():
                stat = entry.stat()
                found.append((entry.name, stat.st_size, stat.st_mtime_ns))
    return sorted(found)


def check_one(folder: Path) -> Path:
    """`folder`, if it is that of one adaptation; a UserError otherwise."""
    if not holds_one(folder):
        raise UserError(
            f"{folder} is not a prompt folder (no {MARKERS[0]} in it): give the folder of one adaptation"
        )
    return folder


def remove(folders: Sequence[Path]) -> None:
    """Delete adaptations; each folder goes as a whole. Raises UserError, and deletes nothing, where one holds other files."""
    for folder in folders:
        check_one(folder)
        others = sorted(path.name for path in folder.iterdir() if path.name not in FILES)
        if others:
            raise UserError(
                f"{folder} holds other files too ({', '.join(others[:3])}): move them away first; nothing was removed"
            )
    for folder in folders:
        # Under a hidden name first: what a killed run leaves is then no half of an adaptation.
        hidden = folder.with_name(f".{folder.name}.removed")
        shutil.rmtree(hidden, ignore_errors=True)
        folder.rename(hidden)
        shutil.rmtree(hidden)


def copy(folder: Path, target: Path, *, overwrite: bool = False) -> Path:
    """Copy an adaptation to the folder `target`, by whose name it is then called; bit for bit but for that name.

    Raises UserError where the source is damaged, the name cannot be one, or something lies at the target.
    """
    check_one(folder)
    load_adaptation(folder)
    safe_name(target.name, "prompt name")
    if target.resolve() == folder.resolve():
        raise UserError(f"{folder} and {target} are the same folder: give another name")
    if holds_one(target) and not overwrite:
        raise UserError(
            f"{target} holds another adaptation: give another name, or replace it with --overwrite"
        )
    with atomic_folder(target, marker=MARKERS) as temporary:
        for path in sorted(folder.iterdir()):
            place = temporary / path.name
            if path.is_dir():
                shutil.copytree(path, place)
            else:
                shutil.copyfile(path, place)
        _call(temporary, target.name)
    return target


def rename(folder: Path, name: str) -> Path:
    """Give an adaptation, and its folder, another name."""
    target = check_one(folder).with_name(safe_name(name, "prompt name"))
    if target.exists():
        raise UserError(f"{target} is there already: give another name")
    copy(folder, target)
    shutil.rmtree(folder)
    return target


def _call(folder: Path, name: str) -> None:
    """Write a name into the record and the card of an adaptation; nothing else of them changes."""
    marker = next(folder / one for one in MARKERS if (folder / one).exists())
    record = json.loads(marker.read_text(encoding="utf-8"))
    record["name"] = name
    marker.write_text(json.dumps(record, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    (folder / "README.md").write_text(card(load_adaptation(folder)), encoding="utf-8")


def sort_by(column: str, *, down: bool) -> Callable[[Mapping[str, Any]], tuple[bool, Any]]:
    """What lines are sorted by: values that are not there come last."""

    def key(line: Mapping[str, Any]) -> tuple[bool, Any]:
        value = line[column]
        return value is None, "" if value is None else -value if down else value

    return key
