"""Writing without loss: everything goes to a temporary name beside its place and is renamed when it is whole.

A killed run leaves the old content or the new, never half of either. Names that come from data (tasks, prompts)
become file names only through `safe_name`, so that nothing leaves the output folder.
"""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from tasks.errors import MachineError, UserError


def safe_name(name: str, what: str = "name") -> str:
    """`name` if it can be one file name inside a folder (letters, digits, `.`, `_`, `-`, `+`), else a UserError."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,120}", name) or ".." in name:
        raise UserError(
            f"{what} {name!r} cannot be a file name: use letters, digits, '.', '_', '-' or '+', without '..'"
        )
    return name


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turn what a disk can say (full, read-only, not permitted) into one line about `path`."""
    full = f"no space left on the disk of {path}: nothing was changed there; free some space and run again"
    try:
        yield
    except SafetensorError as error:
        # It wraps what the system said into text.
        if f"os error {errno.ENOSPC}" in str(error) or f"os error {errno.EDQUOT}" in str(error):
            raise MachineError(full) from error
        raise
    except OSError as error:
        if error.errno in {errno.ENOSPC, errno.EDQUOT}:
            raise MachineError(full) from error
        if error.errno in {errno.EACCES, errno.EPERM, errno.EROFS, errno.EIO, errno.ENOTDIR}:
            raise MachineError(
                f"cannot write {path}: {error.strerror}; choose another folder with --output"
            ) from error
        raise


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """A temporary path beside `path`, renamed to it when the block ends well and removed when it does not."""
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=path.suffix, dir=path.parent)
        os.close(handle)
        temporary = Path(name)
        try:
            yield temporary
            with open(temporary, "rb") as stream:
                os.fsync(stream.fileno())
            temporary.chmod(0o644)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write `text` to `path` as a whole or not at all."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON to `path` as a whole or not at all; NaN is refused."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


@contextmanager
def atomic_folder(folder: Path, *, marker: str) -> Iterator[Path]:
    """A temporary folder that takes the place of `folder` when the block ends well.

    `folder` may be new, empty, or hold the same kind of thing (it contains the file `marker`); anything else is
    the user's and is left alone with a UserError.
    """
    check_free(folder, marker=marker)
    with disk_errors(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
        old = temporary.with_name(temporary.name + ".old")
        try:
            yield temporary
            temporary.chmod(0o755)
            if folder.exists():
                folder.replace(old)
            temporary.replace(folder)
        finally:
            if old.exists() and not folder.exists():
                old.replace(folder)
            shutil.rmtree(temporary, ignore_errors=True)
            shutil.rmtree(old, ignore_errors=True)


def check_free(folder: Path, *, marker: str) -> None:
    """Raise a UserError if `folder` holds something other than what is about to be written there."""
    if folder.is_file():
        raise UserError(f"output {folder} is a file: give the name of a folder with --output")
    if folder.is_dir() and any(folder.iterdir()) and not (folder / marker).exists():
        raise UserError(
            f"output folder {folder} holds something else (no {marker} in it): choose another with --output"
        )
