"""Where units are worked on: in this process, in worker processes of this machine, or on a Ray cluster.

An executor takes units and gives back outcomes; it knows nothing of what depends on what. Worker processes are the
standard library's process pools, one pool of one process a worker: when the system kills a process (memory), only
its own unit is lost.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from functools import cache
from multiprocessing.process import BaseProcess
from typing import Any, Protocol

from prompttransfer.study.cell import Unit
from prompttransfer.study.engine.store import Store
from prompttransfer.study.engine.stores import open_store
from prompttransfer.study.engine.work import Outcome, Tell, Workplace, work_on


class Executor(Protocol):
    """Something that works on units."""

    slots: int
    """How many units may be given to it before an outcome is asked for."""
    attempts: int
    """How often a unit is started whose process is killed each time."""

    def submit(self, unit: Unit) -> None:
        """Take a unit; there are never more than `slots` without an outcome."""

    def outcomes(self) -> list[Outcome]:
        """Wait until at least one unit has an outcome."""

    def close(self) -> None:
        """Stop everything; units in work are given up."""


class EmbeddedExecutor:
    """This process, one unit after the other."""

    slots = 1
    attempts = 1

    def __init__(self, workplace: Workplace, say: Tell, store: Store):
        self.workplace, self.say, self.store = workplace, say, store
        self._ready: list[Outcome] = []

    def submit(self, unit: Unit) -> None:
        """Work on the unit, here and now."""
        self._ready.append(work_on(unit, self.workplace, self.say, self.store))

    def outcomes(self) -> list[Outcome]:
        """The outcome of what was submitted."""
        ready, self._ready = self._ready, []
        return ready

    def close(self) -> None:
        """Nothing runs beside this process."""


class WorkersExecutor:
    """`count` processes of this machine, GPUs shared out among them."""

    attempts = 2

    def __init__(self, workplace: Workplace, count: int, *, gpus: int = 0):
        self.slots = count
        cores = max(
            1, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        )
        self._workers = [
            _Worker(workplace, _environment(index, count, cores=cores, gpus=gpus)) for index in range(count)
        ]

    def submit(self, unit: Unit) -> None:
        """Give the unit to a process that is free."""
        next(worker for worker in self._workers if worker.unit is None).submit(unit)

    def outcomes(self) -> list[Outcome]:
        """Wait for a process to end a unit, or to be ended."""
        busy = {worker.future: worker for worker in self._workers if worker.future is not None}
        done, _ = wait(busy, return_when=FIRST_COMPLETED)
        return [busy[future].take() for future in done]

    def close(self) -> None:
        """End every process; what they were at goes on from its last state when the study is run again."""
        for worker in self._workers:
            worker.close()


class _Worker:
    """One process, in a pool of its own; replaced when it is killed."""

    def __init__(self, workplace: Workplace, environment: Mapping[str, str]):
        self.workplace, self.environment = workplace, environment
        self.unit: Unit | None = None
        self.future: Future[Outcome] | None = None
        self._pool: ProcessPoolExecutor | None = None
        self._process: BaseProcess | None = None

    def submit(self, unit: Unit) -> None:
        try:
            self.future = self._start(unit) if self._pool is None else self._order(self._pool, unit)
        except BrokenProcessPool:  # killed while it had nothing to do
            self.close()
            self.future = self._start(unit)
        self.unit = unit

    def _order(self, pool: ProcessPoolExecutor, unit: Unit) -> Future[Outcome]:
        return pool.submit(work_here, unit, self.workplace)

    def _start(self, unit: Unit) -> Future[Outcome]:
        context = multiprocessing.get_context("spawn")
        before = set(multiprocessing.active_children())
        self._pool = ProcessPoolExecutor(1, context, initializer=begin, initargs=(dict(self.environment),))
        with _interrupts_held():
            future = self._order(self._pool, unit)
        # The pool starts its process when it takes the first unit; its exit code is read from it later.
        self._process = next(iter(set(multiprocessing.active_children()) - before), None)
        return future

    def take(self) -> Outcome:
        """The outcome of the unit; the worker is free again."""
        assert self.future is not None and self.unit is not None
        future, unit, self.future, self.unit = self.future, self.unit, None, None
        try:
            return future.result()
        except BrokenProcessPool:
            process = self._process
            if process is not None:
                process.join(10)
            self.close()  # first: while the pool's own thread reaps the process, its exit code is not there to read
            return Outcome(unit.id, "killed", line=how_it_ended(process.exitcode if process else None))

    def close(self) -> None:
        if self._process is not None and self._process.is_alive():
            self._process.kill()
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)
        self._pool = self._process = None


@contextlib.contextmanager
def _interrupts_held() -> Iterator[None]:
    """A process that is started here hears no Ctrl-C of the terminal before `begin` leaves interrupts to the run."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def how_it_ended(code: int | None) -> str:
    """One line about a process that ended without an outcome."""
    if code == -signal.SIGKILL:
        return "its process was killed (signal 9): by hand, or by the system because memory ran out"
    if code is not None and code < 0:
        return f"its process was ended by signal {-code} ({signal.Signals(-code).name})"
    return f"its process ended without a result{f' (exit code {code})' if code is not None else ''}"


def _environment(index: int, count: int, *, cores: int, gpus: int) -> dict[str, str]:
    """Environment variables of a worker: its share of the cores, and one GPU."""
    share = {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS") or str(max(1, cores // count))}
    if gpus:
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        devices = visible.split(",") if visible else [str(number) for number in range(gpus)]
        share["CUDA_VISIBLE_DEVICES"] = devices[index % len(devices)]
    return share


def begin(environment: Mapping[str, str]) -> None:
    """The first thing a worker process does: take its share, leave interrupts to the run, end when the run ends."""
    os.environ.update(environment)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: BaseProcess) -> None:
    parent.join()
    os._exit(1)  # at any moment: nothing is ever half committed, and the lease is dropped by the system


def work_here(unit: Unit, workplace: Workplace) -> Outcome:
    """Work on a unit in a worker process; what it says goes to standard error."""
    return work_on(unit, workplace, _say, _store(workplace.place))


@cache
def _store(place: str) -> Store:
    return open_store(place, new=True)


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


@contextlib.contextmanager
def stopping(executor: Executor) -> Any:
    """Close the executor however the block ends."""
    try:
        yield executor
    finally:
        executor.close()
