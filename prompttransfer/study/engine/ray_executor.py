"""Units on an existing Ray cluster: Ray finds the machine and the GPU, starts a lost unit again, and brings the outcome.

The results do not travel through Ray: every worker writes to the study's place, which must be a folder that all
machines share or an fsspec URL. Needs the extra `ray`.
"""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from prompttransfer import signals
from prompttransfer.study.cell import Unit
from prompttransfer.study.engine.executors import work_here
from prompttransfer.study.engine.work import Outcome, Tell, Workplace
from tasks.errors import MachineError, UserError

QUEUED = 4
"""Units that wait at Ray for each CPU of the cluster: enough to keep it busy, few enough to stop quickly."""
PATIENCE = 10.0
"""Seconds to wait for an answer from the head of a cluster; Ray itself tries for minutes before it says anything."""
ROUND = 1.0
"""Seconds between looks at whether the run was asked to stop."""


class RayExecutor:
    """Runs units as Ray tasks; `address` as in `ray.init` (default: the running cluster, else a local one)."""

    attempts = 4
    """How often a unit is started whose worker or machine is lost each time."""

    def __init__(self, workplace: Workplace, say: Tell, *, address: str | None = None, **options: Any):
        try:
            import ray
        except ImportError as error:
            raise UserError(
                "--executor ray needs Ray: install it with `pip install 'prompttransfer[ray]'`"
            ) from error
        self._ray = ray
        self._mine = not ray.is_initialized()
        self._workplace, self._say = shared(workplace), say
        self._said: set[str] = set()
        if self._mine:
            check_reachable(address or os.environ.get("RAY_ADDRESS"))
            os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # a local Ray of ours reports to nobody
            try:
                with signals.undisturbed():  # Ray makes a plain exit of SIGTERM
                    ray.init(address=address, logging_level=logging.WARNING, log_to_driver=True, **options)
            except (ConnectionError, ValueError, RuntimeError) as error:
                raise MachineError(f"cannot reach a Ray cluster at {address or 'auto'}: {error}") from error
        self.slots = max(1, round(ray.cluster_resources().get("CPU", 1))) * QUEUED
        self._task = ray.remote(work_here)
        self._running: dict[Any, Unit] = {}

    def submit(self, unit: Unit) -> None:
        """Hand the unit to Ray with what it asks for; says so if no machine of the cluster has that now."""
        asked = resources(unit.resources)
        need = unmet(asked, self._ray.nodes()) if unit.resources else None
        if need and need not in self._said:
            self._said.add(need)
            self._say(f"{unit.label} needs {need}: it waits until a machine of the Ray cluster has that")
        # Ray's own retries are off: the run says every loss, and counts them.
        options = {"max_retries": 0, "name": unit.label, **asked}
        self._running[self._task.options(**options).remote(unit, self._workplace)] = unit

    def outcomes(self) -> list[Outcome]:
        """Wait for Ray to bring an outcome, or to give a unit up."""
        done: list[Any] = []
        while not done:  # in rounds: no exception of a signal may leave Ray's compiled code
            with signals.held():
                done, _ = self._ray.wait(list(self._running), num_returns=1, timeout=ROUND)
        ready, _ = self._ray.wait(list(self._running), num_returns=len(self._running), timeout=0)
        return [self._take(reference) for reference in dict.fromkeys([*done, *ready])]

    def _take(self, reference: Any) -> Outcome:
        unit = self._running.pop(reference)
        errors = self._ray.exceptions
        try:
            outcome: Outcome = self._ray.get(reference)
            return outcome
        except errors.OutOfMemoryError:
            return Outcome(unit.id, "killed", line="its process was killed by Ray because memory ran out")
        except (
            errors.WorkerCrashedError,
            errors.LocalRayletDiedError,
            errors.NodeDiedError,
            errors.ObjectLostError,
        ) as error:
            said = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            return Outcome(unit.id, "killed", line=f"its Ray worker was lost ({said})")
        except errors.RayTaskError as error:  # what it says is the worker's traceback
            if isinstance(error.cause, UserError | MachineError):
                raise error.cause from None
            raise

    def close(self) -> None:
        """Cancel what runs; leave the cluster as it was."""
        for reference in self._running:
            self._ray.cancel(reference, force=True)
        self._running.clear()
        if self._mine:
            self._ray.shutdown()


def check_reachable(address: str | None) -> None:
    """Raise a MachineError within seconds if nothing answers at `HOST:PORT` or `ray://HOST:PORT`; leave the rest to Ray."""
    host, _, port = (address or "").removeprefix("ray://").rpartition(":")
    if not host or not port.isdigit():
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), PATIENCE).close()
    except (OSError, OverflowError) as error:
        raise MachineError(
            f"nothing answers at {address}, where a Ray cluster should be ({error}): start one there with "
            "`ray start --head`, or correct the address"
        ) from error


def resources(asked: Mapping[str, float]) -> dict[str, Any]:
    """What a unit asks for, in Ray's words: gpu and cpu are Ray's own, memory is in bytes, others are custom."""
    known = {"cpu": "num_cpus", "gpu": "num_gpus", "memory": "memory"}
    own = {known[name]: value for name, value in asked.items() if name in known}
    others = {name: value for name, value in asked.items() if name not in known}
    return {"num_cpus": 1, **own, **({"resources": others} if others else {})}


def unmet(asked: Mapping[str, Any], nodes: list[dict[str, Any]]) -> str | None:
    """What is asked for, in words, if no living machine has all of it."""
    words = {"num_cpus": "CPU", "num_gpus": "GPU", "memory": "memory"}
    wanted = {words[name]: value for name, value in asked.items() if name in words} | asked.get(
        "resources", {}
    )
    alive = [node["Resources"] for node in nodes if node["Alive"]]
    if any(all(node.get(name, 0) >= value for name, value in wanted.items()) for node in alive):
        return None
    return ", ".join(f"{value:g} {name}" for name, value in wanted.items())


def shared(workplace: Workplace) -> Workplace:
    """The workplace with a place that means the same in every process: URLs as they are, folders from the root."""
    if "://" in workplace.place:
        return workplace
    return Workplace(str(Path(workplace.place).resolve()), workplace.kinds, workplace.local, workplace.commit)
