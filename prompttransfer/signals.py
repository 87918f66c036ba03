"""Signals: Ctrl-C, SIGTERM and SIGHUP stop a command within seconds, and one line says what it keeps.

A stop is an exception of its own (`Interrupted`) that no `except Exception` takes for a failure of the work, so that
temporary files and leases are cleaned up on the way out. Everything is written as a whole or not at all, so a process
that cannot unwind in time, or is told twice, is ended on the spot without harm.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

STOPS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))
PATIENCE = 8.0
"""Seconds to unwind in: long enough to end worker processes, short enough for whoever waits."""
ECHO = 0.2
"""Seconds in which a second signal is the same one again: terminals and launchers send some of them twice."""
NOTHING_KEPT = "nothing is left half written; run the same command again"


class Interrupted(BaseException):
    """A person or the system asked this process to stop; the text says by what and what is kept."""

    def __init__(self, number: int):
        super().__init__(f"stopped by {signal.Signals(number).name}: {_kept()}")
        self.number = number

    @property
    def code(self) -> int:
        """What the process ends with, as a shell counts: 130 for Ctrl-C, 143 for SIGTERM."""
        return 128 + self.number


_lines: list[Callable[[], str]] = []
_listens = False
_asked: int | None = None
_held = False


@contextmanager
def keeping(line: Callable[[], str]) -> Iterator[None]:
    """For the block, `line()` says what a stop would leave; the outermost block speaks for those inside it."""
    _lines.append(line)
    try:
        yield
    finally:
        _lines.remove(line)


def _kept() -> str:
    try:
        return _lines[0]() if _lines else NOTHING_KEPT
    except (
        Exception
    ):  # told in the middle of anything: a count that fails must not keep the process from ending
        return NOTHING_KEPT


def check() -> None:
    """Raise `Interrupted` if this process was asked to stop and a library swallowed it; for loops that run long."""
    if _asked is not None:
        raise Interrupted(_asked)


@contextmanager
def held() -> Iterator[None]:
    """For a block of a second or less inside a library that no exception may leave: a stop is raised behind it."""
    global _held
    _held = True
    try:
        yield
    finally:
        _held = False
    check()


def forget() -> None:
    """The stop was what ends this command well; the process may still be told another."""
    global _asked
    _asked = None


def stopped(number: int) -> BaseException:
    """The exception for a signal that a library took: `Interrupted` in a command, else what Python itself would raise."""
    if _listens:
        return Interrupted(number)
    return KeyboardInterrupt() if number == signal.SIGINT else SystemExit(128 + number)


@contextmanager
def listening() -> Iterator[None]:
    """For the block, raise `Interrupted` in the main thread at the first of STOPS that is not ignored.

    The process ends at once on a second one, and where it has not ended PATIENCE seconds after the first. Once
    interrupted it listens on to its end; otherwise the handlers of before come back.
    """
    global _listens
    if _listens or threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in STOPS}
    inner, outer = socket.socketpair()
    inner.setblocking(False)
    earlier = signal.set_wakeup_fd(inner.fileno(), warn_on_full_buffer=False)
    threading.Thread(target=_watch, args=(outer,), daemon=True).start()
    for number, handler in before.items():
        if handler is not signal.SIG_IGN:  # as nohup and a shell's `&` ask for
            signal.signal(number, _hear)
    _listens = True
    try:
        yield
    except Interrupted:
        raise
    except BaseException:
        _give_back(before, earlier, inner)
        raise
    else:
        _give_back(before, earlier, inner)


def _give_back(before: Mapping[Any, object], earlier: int, inner: socket.socket) -> None:
    global _listens
    restore(before)
    signal.set_wakeup_fd(earlier)
    inner.close()
    _listens = False


def _hear(number: int, frame: object) -> None:
    """The handler: the first signal is raised, what comes after it is the watch's."""
    global _asked
    if _asked is None:
        _asked = number
        if not _held:
            raise Interrupted(number)


def _watch(pipe: socket.socket) -> None:
    """Wait for the bytes that Python's own handler writes, also while the main thread is deep in a library."""
    first, ends = 0, None
    with contextlib.closing(pipe):
        while True:
            left = None if ends is None else max(0.0, ends - time.monotonic())
            if not select.select([pipe], [], [], left)[0]:
                end_at_once(first)
            for number in pipe.recv(16) or b"\0":
                if number == 0:
                    return  # the block has ended
                if number not in STOPS or signal.getsignal(number) is signal.SIG_IGN:
                    continue
                if ends is None:
                    first, ends = number, time.monotonic() + PATIENCE
                elif time.monotonic() > ends - PATIENCE + ECHO:
                    end_at_once(number)


_said = False


def say_once(line: str) -> None:
    """The one line on standard error; a terminal that is gone does not hear it."""
    global _said
    if not _said:
        _said = True
        with contextlib.suppress(OSError, ValueError):
            print(line, file=sys.stderr, flush=True)


def end_at_once(number: int) -> None:
    """End this process here; its workers end with it (study/engine/executors.py)."""
    with contextlib.suppress(OSError, ValueError):
        if sys.stderr.isatty():
            sys.stderr.write("\x1b[?25h")  # a progress bar hides the cursor
    say_once(f"stopped by {signal.Signals(number).name}: {_kept()}")
    os._exit(128 + number)


@contextmanager
def undisturbed() -> Iterator[None]:
    """Give signals back to whoever handled them before the block: some libraries take them and leave it at that."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = handlers()
    try:
        yield
    finally:
        restore(before)


def handlers() -> dict[signal.Signals, object]:
    """Who handles which signal now."""
    able = signal.valid_signals() - {getattr(signal, name, None) for name in ("SIGKILL", "SIGSTOP")}
    return {number: signal.getsignal(number) for number in able if isinstance(number, signal.Signals)}


def restore(before: Mapping[Any, object]) -> None:
    """Give every signal back to who handled it in `before` (by `handlers`)."""
    for number, handler in before.items():
        if handler is not None and signal.getsignal(number) is not handler:
            signal.signal(number, handler)  # type: ignore[arg-type]
