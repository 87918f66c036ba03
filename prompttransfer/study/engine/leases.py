"""Leases: who is at work on which unit of a study, so that several runs on one folder share the work.

A lease is a file lock (flock) held by the process that does the work, not by the one that ordered it. The system drops
it in the moment in which that process ends, however it ends, so a dead run's units are free at once and there are no
heartbeats to wait for. The file is empty; its time says since when the lease is held.

On a network file system the server keeps the locks: it drops those of a process that ended at once, those of a machine
that vanished when its own patience with that machine ends.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from prompttransfer import signals
from prompttransfer.study.cell import ID
from tasks.errors import MachineError

SUFFIX = ".lock"
ROUND = 0.1
"""Seconds between looks at whether it is this process's turn."""


@contextmanager
def lease(folder: Path, unit: str) -> Iterator[bool]:
    """Hold the lease of a unit for the block; gives False, without waiting, where another process holds it.

    Raises MachineError where the file system has no locks: two runs could not be kept apart there.
    """
    path = folder / (unit + SUFFIX)
    handle = _lock(path)
    if handle is None:
        yield False
        return
    try:
        os.utime(handle)
        yield True
    finally:
        # Empty, because some file systems take milliseconds to free the block of a removed file; removed while it
        # is still held: whoever opened it meanwhile looks again.
        path.unlink(missing_ok=True)
        os.close(handle)


@contextmanager
def turn(folder: Path, name: str) -> Iterator[None]:
    """Hold the lease of `name` for the block; waits while another process holds it."""
    folder.mkdir(parents=True, exist_ok=True)
    while True:
        with lease(folder, name) as mine:
            if mine:
                yield
                return
        signals.check()
        time.sleep(ROUND)


def _lock(path: Path) -> int | None:
    import fcntl  # not there on Windows, where everything but studies runs

    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(handle)
            if error.errno in (errno.EAGAIN, errno.EACCES):
                return None
            raise MachineError(
                f"{path.parent} is on a file system without locks ({error.strerror}), where two runs cannot be "
                f"kept apart: choose an output folder on another disk"
            ) from error
        if _is_still(path, handle):
            return handle
        os.close(handle)  # its last holder removed the file between our open and our lock


def _is_still(path: Path, handle: int) -> bool:
    try:
        return os.path.samestat(os.stat(path), os.fstat(handle))
    except FileNotFoundError:
        return False


@contextmanager
def swept(folder: Path) -> Iterator[None]:
    """Before and behind the block, remove the files of leases that nobody holds: their processes were killed."""
    _sweep(folder)
    try:
        yield
    finally:
        _sweep(folder)


def _sweep(folder: Path) -> None:
    for path in folder.glob(f"*{SUFFIX}"):
        with suppress(OSError), lease(folder, path.name.removesuffix(SUFFIX)):
            pass  # whoever gets it removes its file


def held(folder: Path) -> dict[str, float]:
    """Unit -> when its lease was taken (seconds since 1970), of the leases that a living process holds."""
    import fcntl

    found: dict[str, float] = {}
    for path in folder.glob(f"*{SUFFIX}"):
        unit = path.name.removesuffix(SUFFIX)
        if not ID.fullmatch(unit):
            continue
        try:
            handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            continue
        try:
            # Shared, and given back at once: a run that asks in this moment only asks again later.
            fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            found[unit] = os.fstat(handle).st_mtime
        finally:
            os.close(handle)
    return found
