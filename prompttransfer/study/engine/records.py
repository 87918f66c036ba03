"""What is written about a cell: the record of a finished one (`cell.json`) and the report of a failed one.

A record holds everything that a number is traced by: settings, inputs, a digest of every file, versions, commit, time
and cost. It names no host, no user and no path, so that a folder of results can be given away.
"""

from __future__ import annotations

import hashlib
import os
import platform
import subprocess
import sys
from collections.abc import Iterator, Mapping
from datetime import datetime, timezone
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from prompttransfer.study.cell import Cell, short_digest
from tasks.documents import checked, parse_json
from tasks.errors import UserError

FORMAT = 1
RECORD = "cell.json"
PACKAGES = ("prompttransfer", "torch", "transformers", "lightning", "safetensors", "datasets", "scikit-learn")
Cause = Literal["user", "machine", "killed", "error"]


class FileRecord(BaseModel):
    """One file of a cell."""

    model_config = ConfigDict(extra="forbid")

    bytes: int
    sha256: str


class CellRecord(BaseModel):
    """`cell.json`, checked because it comes from outside."""

    model_config = ConfigDict(extra="forbid")

    format: int
    id: str
    kind: str
    label: str
    version: int
    settings: dict[str, Any]
    inputs: dict[str, str]
    files: dict[str, FileRecord]
    """Path inside the cell's folder -> size and digest."""
    digest: str
    """Over the digests of all files: two cells with the same digest hold the same bits."""
    started: str
    """UTC, ISO 8601."""
    seconds: float
    """Of the unit, divided by the number of its cells."""
    unit_cells: int
    """How many cells were made together."""
    cost: dict[str, Any]
    versions: dict[str, str]
    commit: str | None
    """Git commit of the code, with `+changes` where the working tree differed; None outside a checkout."""
    machine: dict[str, Any]

    @property
    def cell(self) -> Cell:
        """The cell that this is the record of."""
        return Cell(self.kind, self.label, self.settings, self.inputs, self.version)


class FailureRecord(BaseModel):
    """`failures/<id>.json`."""

    model_config = ConfigDict(extra="forbid")

    format: int
    id: str
    kind: str
    label: str
    cause: Cause
    """user: the request; machine: disk, hub, memory; killed: its process ended; error: a fault of the code."""
    line: str
    traceback: str
    when: str
    attempts: int = 1
    commit: str | None = None

    @property
    def passing(self) -> bool:
        """Whether the machine was at fault, so that the next run tries again without being told to."""
        return self.cause in ("machine", "killed")


def read_cell_record(text: str | bytes, place: str) -> CellRecord:
    """A checked record; UserError where the text is none, or is of another format."""
    found = checked(CellRecord, parse_json(text, place), place)
    if found.format != FORMAT:
        raise UserError(f"{place} is of format {found.format}, this version reads {FORMAT}")
    return found


def make_record(
    cell: Cell,
    folder: Path,
    *,
    started: str,
    seconds: float,
    unit_cells: int,
    cost: Mapping[str, Any],
    commit: str | None,
) -> CellRecord:
    """The record of a cell whose files lie in `folder`; reads each of them once."""
    files = {name: file_record(folder / name) for name in sorted(file_names(folder))}
    return CellRecord(
        format=FORMAT,
        id=cell.id,
        kind=cell.kind,
        label=cell.label,
        version=cell.version,
        settings=dict(cell.settings),
        inputs=dict(cell.inputs),
        files=files,
        digest=short_digest("\n".join(f"{name} {file.sha256}" for name, file in files.items())),
        started=started,
        seconds=round(seconds, 6),
        unit_cells=unit_cells,
        cost=dict(cost),
        versions=package_versions(),
        commit=commit,
        machine=machine(),
    )


def file_names(folder: Path) -> Iterator[str]:
    """Paths of all files below `folder`, relative to it, with `/`; the record itself left out."""
    base = str(folder)
    for place, _, names in os.walk(base):
        inner = os.path.relpath(place, base).replace(os.sep, "/")
        for name in names:
            whole = name if inner == "." else f"{inner}/{name}"
            if whole != RECORD:
                yield whole


def file_record(path: Path) -> FileRecord:
    """Size and sha256 of one file."""
    digest, size = hashlib.sha256(), 0
    with open(path, "rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
            size += len(block)
    return FileRecord(bytes=size, sha256=digest.hexdigest())


def now() -> str:
    """The time, UTC."""
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


@cache
def package_versions() -> dict[str, str]:
    """Versions of Python and of the packages that results depend on."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


@cache
def code_commit() -> str | None:
    """The git commit of the checkout that this code runs from, None where it is no checkout."""
    home = Path(__file__).resolve().parents[3]
    if not (home / ".git").exists():
        return None
    try:
        commit = _git(home, "rev-parse", "HEAD")
        changed = _git(home, "status", "--porcelain", "--untracked-files=no")
    except (OSError, subprocess.SubprocessError):
        return None
    return commit + ("+changes" if changed else "")


def _git(home: Path, *arguments: str) -> str:
    done = subprocess.run(
        ["git", "-C", str(home), *arguments], capture_output=True, text=True, check=True, timeout=20
    )
    return done.stdout.strip()


def machine() -> dict[str, Any]:
    """What the numbers of a record may depend on of the machine, without naming it.

    torch is asked only if something imported it: a cell that needs none should not wait for it.
    """
    found: dict[str, Any] = {
        "system": platform.system(),
        "processor": platform.machine(),
        "cores": os.cpu_count(),
    }
    torch = sys.modules.get("torch")
    if torch is not None:
        found["threads"] = torch.get_num_threads()
        if torch.cuda.is_available():
            found["gpu"] = torch.cuda.get_device_name()
    return found
