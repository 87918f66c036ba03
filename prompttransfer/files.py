"""Writing without loss: everything goes to a temporary name beside its place and is renamed when it is whole.

A killed run leaves the old content or the new, never half of either. Names that come from data (tasks, prompts)
become file names only through `safe_name`, so that nothing leaves the output folder.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import platform
import re
import shutil
import stat
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
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
        if error.errno in FULL:
            raise MachineError(full) from error
        if error.errno in REFUSED:
            raise MachineError(
                f"cannot write {path}: {error.strerror}; choose another folder with --output"
            ) from error
        if error.errno in (errno.ENAMETOOLONG, errno.ELOOP):
            raise UserError(f"cannot write {path}: {error.strerror}; give another name") from error
        raise


FULL = {errno.ENOSPC, errno.EDQUOT}
REFUSED = {
    errno.EACCES, errno.EPERM, errno.EROFS, errno.EIO, errno.ENOTDIR, errno.EBUSY, errno.EMFILE, errno.ENFILE
}  # fmt: skip


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """A temporary path beside `path`, renamed to it when the block ends well and removed when it does not.

    Behind a link the file that it leads to is written. What a killed process left in the folder is removed first.
    """
    with disk_errors(path):
        path = behind_links(path)
        if path.is_dir():
            raise UserError(f"{path} is a folder: give the name of a file")
        path.parent.mkdir(parents=True, exist_ok=True)
        clear_leftovers(path.parent)
        temporary = _temporary(path, path.suffix)
        handle = os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o666)
        mode = stat.S_IMODE(
            os.fstat(handle).st_mode
        )  # as the umask wants it; what writes may put its own file there
        os.close(handle)
        try:
            yield temporary
            with open(temporary, "rb") as stream:
                os.fsync(stream.fileno())
            _give_mode(temporary, mode)
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
def atomic_folder(folder: Path, *, marker: str | tuple[str, ...]) -> Iterator[Path]:
    """A temporary folder that takes the place of `folder` when the block ends well.

    `folder` may be new, empty, or hold the same kind of thing (it contains the file `marker`, or one of several); anything else is
    the user's and is left alone with a UserError. Behind a link the folder that it leads to is replaced.
    """
    check_free(folder, marker=marker)
    with disk_errors(folder):
        folder = behind_links(folder)
        folder.parent.mkdir(parents=True, exist_ok=True)
        clear_leftovers(folder.parent)
        temporary = temporary_folder(folder)
        old = temporary.with_name(temporary.name + OLD)
        try:
            yield temporary
            _give_modes(temporary)
            if folder.exists():
                folder.replace(old)
            temporary.replace(folder)
        finally:
            if old.exists() and not folder.exists():
                old.replace(folder)
            shutil.rmtree(temporary, ignore_errors=True)
            shutil.rmtree(old, ignore_errors=True)


def check_free(folder: Path, *, marker: str | tuple[str, ...]) -> None:
    """Raise an error if `folder` cannot be written as a whole, or holds something other than is about to be written.

    `marker` is the file that tells what is about to be written, or several of which one does.
    """
    markers = (marker,) if isinstance(marker, str) else marker
    with disk_errors(folder):
        folder = behind_links(folder)
        if folder.is_file():
            raise UserError(f"output {folder} is a file: give the name of a folder with --output")
        if (
            folder.is_dir()
            and any(folder.iterdir())
            and not any((folder / name).exists() for name in markers)
        ):
            raise UserError(
                f"output folder {folder} holds something else (no {markers[0]} in it): choose another with --output"
            )
        if _is_mount_point(folder):
            raise UserError(
                f"output folder {folder} is a mount point, which cannot be replaced as a whole: give a folder in it, "
                f"such as {folder / 'run'}"
            )
        check_writable(folder.parent)


def check_writable(folder: Path) -> None:
    """Raise an error if nothing can be made in `folder`, or in the folder above it where it is yet to be made."""
    place = folder
    while not place.exists():
        if place.is_symlink():
            raise UserError(
                f"{place} is a link to {os.readlink(place)}, which is not there: make that folder first"
            )
        place = place.parent
    if not place.is_dir():
        raise UserError(f"{place} is a file: {folder} cannot be a folder")
    if not os.access(place, os.W_OK | os.X_OK):
        raise MachineError(
            f"cannot write into {place} (not permitted, or a read-only disk): choose another folder with --output"
        )


def behind_links(path: Path) -> Path:
    """`path` itself, or what it leads to where it is a link; UserError if that is nowhere."""
    if not path.is_symlink():
        return path
    try:
        found = path.resolve()
    except (OSError, RuntimeError):
        raise UserError(
            f"{path} is a link that leads back to itself: remove it, or give another name"
        ) from None
    if not found.parent.is_dir():
        raise UserError(f"{path} is a link to {found}, which is not there: make that folder first")
    return found


def _is_mount_point(folder: Path) -> bool:
    """Whether a disk is mounted at `folder`, also a part of the disk that its parent is on (a bind mount)."""
    if not folder.is_dir():
        return False
    if os.path.ismount(folder):
        return True
    try:
        mounts = Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="surrogateescape")
    except OSError:  # not Linux
        return False
    spelled = (line.split(" ", 5)[4] for line in mounts.splitlines())
    places = {re.sub(r"\\([0-7]{3})", lambda code: chr(int(code[1], 8)), place) for place in spelled}
    return str(folder.resolve()) in places


# Permissions: what the umask (or the folder's own rules) gives, whatever a library wrote -------------------------


def _give_mode(path: Path, mode: int) -> None:
    if stat.S_IMODE(path.stat().st_mode) != mode:
        path.chmod(mode)


def _give_modes(folder: Path) -> None:
    """Files below a new folder get the mode that a file made there would have."""
    mode = stat.S_IMODE(folder.stat().st_mode) & 0o666
    for place, _, names in os.walk(folder):
        for name in names:
            if not os.path.islink(os.path.join(place, name)):
                _give_mode(Path(place, name), mode)


# Temporary names: hidden, beside their place, with the process that they belong to -------------------------------

OLD = ".old"
_LONGEST = 120
_LEFT = re.compile(r"\.(.+)\.~([0-9a-f]{8})-(\d+)-[0-9a-f]{8}(.*)", re.DOTALL)
_FORGOTTEN = 7 * 24 * 3600.0
"""Seconds after which a temporary name of another machine is nobody's: nothing takes days to be written."""


def temporary_folder(place: Path) -> Path:
    """A new hidden folder beside `place`, which `clear_leftovers` removes once this process is gone."""
    found = _temporary(place)
    found.mkdir()
    return found


def _temporary(place: Path, suffix: str = "") -> Path:
    return place.with_name(
        f".{place.name[:_LONGEST]}.~{_here()}-{os.getpid()}-{uuid.uuid4().hex[:8]}{suffix[:20]}"
    )


@cache
def _here() -> str:
    """Where process numbers mean what they mean here: this machine, and this container on it."""
    try:
        space = os.readlink("/proc/self/ns/pid")
    except OSError:
        space = ""
    return hashlib.sha256(f"{platform.node()} {space}".encode()).hexdigest()[:8]


def clear_leftovers(folder: Path) -> None:
    """Remove what processes that were killed left half written in `folder`; a folder moved aside comes back.

    What belongs to a living process, or to one of another machine that may live, is left alone.
    """
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in list(entries):
            found = _LEFT.fullmatch(entry.name)
            if found is None or _may_live(entry, *found.group(2, 3)):
                continue
            name, place = Path(entry.path), folder / found[1]
            with suppress(OSError):
                if found[4] == OLD and len(found[1]) < _LONGEST and not place.exists():
                    name.rename(place)  # killed between the two renames
                elif entry.is_dir(follow_symlinks=False):
                    shutil.rmtree(name, ignore_errors=True)
                else:
                    name.unlink()


def _may_live(entry: os.DirEntry[str], here: str, number: str) -> bool:
    if here != _here():
        return time.time() - entry.stat(follow_symlinks=False).st_mtime < _FORGOTTEN
    try:
        os.kill(int(number), 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True
