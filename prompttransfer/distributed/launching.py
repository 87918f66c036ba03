"""Launching: the processes of one machine, started by torch's own launcher (the one behind torchrun).

Each process calls the same function. What the function returns in the first of them comes back; when it fails in one,
the others are ended and its error is raised here. Processes on several machines are started by torchrun or SLURM.
"""

from __future__ import annotations

import io
import json
import logging
import os
import pickle
import signal
import sys
import tempfile
import time
import traceback
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, TypeVar

import torch
from pydantic import BaseModel

from prompttransfer import signals
from prompttransfer.distributed.placement import Placement
from prompttransfer.distributed.processes import check_devices, of_srun, started, whole_number
from tasks.documents import checked, read_json
from tasks.errors import MachineError, UserError, out_of_memory

Value = TypeVar("Value")
KEPT = "what its processes had finished is kept; run the same command again"
KINDS: dict[str, type[Exception]] = {
    "UserError": UserError,
    "MachineError": MachineError,
    "MemoryError": MemoryError,
    "RuntimeError": RuntimeError,
}
"""How the error of a process is raised here, the first that it is; what is none of them is a RuntimeError."""


def run_on(placement: Placement, function: Callable[..., Value], /, **arguments: Any) -> Value:
    """Call `function(**arguments)` in every process of `placement`, and return what it returns in the first.

    The function and its arguments go to other processes: the function stands at the top of a module, and a script that
    calls this keeps its own start under `if __name__ == "__main__"`. With one device, and in processes that torchrun
    or SLURM started, it is a plain call. Raises what the function raised in the process that failed first.
    """
    if not placement.several or started(placement):
        return function(**arguments)
    if placement.nodes > 1:
        raise UserError(
            f"--nodes {placement.nodes}: start the command on every machine with torchrun (--nnodes {placement.nodes} "
            f"--nproc-per-node {placement.devices}) or srun (--ntasks-per-node {placement.devices})"
        )
    with signals.keeping(lambda: KEPT), tempfile.TemporaryDirectory(prefix="prompttransfer-") as folder:
        return _launch(placement, function, arguments, Path(folder))


def must_start(placement: Placement, device: str) -> bool:
    """Whether the processes of a placement have yet to be started.

    Raises UserError where this machine has not as many devices, or where other processes were started than are asked for,
    be it several where one is.
    """
    if not placement.several:
        check_alone()
        return False
    check_devices(placement, device)
    return not started(placement)


def check_alone() -> None:
    """Raise UserError where torchrun or srun started several of a process that is told of no others.

    A shell that `srun --pty` opened has a terminal, and runs each command once, however many tasks there are.
    """
    torchrun = whole_number("WORLD_SIZE") if "TORCHELASTIC_RUN_ID" in os.environ else 1
    asked = (
        "processes that would all do the same: give --devices (processes on each machine) and --nodes (machines) as they "
        "were started"
    )
    if torchrun > 1:
        raise UserError(f"torchrun started {torchrun} {asked}")
    if of_srun() and not (sys.stdin and sys.stdin.isatty()):
        raise UserError(
            f"srun started {whole_number('SLURM_STEP_NUM_TASKS')} {asked}, or start one with `srun --ntasks 1`; where each is "
            f"told something else, start it with `env -u SLURM_STEP_NUM_TASKS`"
        )


def _launch(
    placement: Placement, function: Callable[..., Any], arguments: Mapping[str, Any], folder: Path
) -> Any:
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=placement.devices,
        run_id=uuid.uuid4().hex,
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        local_addr="localhost",
        max_restarts=0,
        start_method="spawn",
        logs_specs=DefaultLogsSpecs(str(folder / "logs")),
    )
    try:
        with signals.undisturbed(), _quiet_launcher():
            results = elastic_launch(config, _enter)(function, dict(arguments), placement, folder)
    except ChildFailedError as error:
        signals.check()  # what ends all of them is told to some of them first
        _, failure = error.get_first_failure()
        raise _first_error(folder, failure.local_rank, failure.exitcode, placement.count) from None
    except SignalException as error:
        raise signals.stopped(int(error.sigval)) from None
    return pickle.loads(results[0])


def _enter(
    function: Callable[..., Any], arguments: dict[str, Any], placement: Placement, folder: Path
) -> bytes:
    """What each process does: the function, and a word about it if it fails."""
    # An interrupt, and the end of the process that started this one, end it at once, wherever it waits for the others:
    # a state is always written as a whole.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(max(1, _cores() // placement.devices))
    rank = int(os.environ["RANK"])
    try:
        value = function(**arguments)
    except Exception as error:
        _report(folder / f"{rank}.json", error)
        raise SystemExit(1) from error
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
    return _packed(value) if rank == 0 else b""


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _packed(value: Any) -> bytes:
    """Tensors by their values: what multiprocessing sends instead is gone when the process that made it ends."""
    stream = io.BytesIO()
    pickle.Pickler(stream).dump(value)
    return stream.getvalue()


def _report(path: Path, error: Exception) -> None:
    """Leave behind what went wrong and when."""
    if out_of_memory(error):
        error = MemoryError("out of memory")
    elif isinstance(error, OSError):
        error = MachineError(f"the machine says: {error}")
    known = next((name for name, kind in KINDS.items() if isinstance(error, kind)), "RuntimeError")
    text = str(error) if known != "RuntimeError" else "".join(traceback.format_exception(error))
    record = {"time": time.time(), "kind": known, "text": text, "lines": getattr(error, "lines", None)}
    unfinished = path.with_suffix(".part")
    unfinished.write_text(json.dumps(record), encoding="utf-8")
    unfinished.replace(path)


class Report(BaseModel):
    """What a process left behind of its end."""

    time: float
    kind: Literal["UserError", "MachineError", "MemoryError", "RuntimeError"]
    text: str
    lines: list[str] | None


def _first_error(folder: Path, rank: int, code: int, count: int) -> Exception:
    """The error that came first: others often follow from it. Without a word from anybody, how the process ended."""
    reports = [
        checked(Report, read_json(path, "report of a process"), str(path)) for path in folder.glob("*.json")
    ]
    if code >= 0 and reports:
        first = min(reports, key=lambda report: report.time)
        error = KINDS[first.kind](first.text)
        if first.lines:
            error.lines = first.lines  # type: ignore[attr-defined]
        return error
    if code >= 0:
        return MachineError(f"process {rank + 1} of {count} did not start well: what it printed says why")
    return MachineError(
        f"process {rank + 1} of {count} was ended by signal {-code} ({signal.Signals(-code).name}): by hand, or by the "
        f"system because memory ran out; the same command goes on from the last evaluation"
    )


@contextmanager
def _quiet_launcher() -> Iterator[None]:
    """What torch's launcher logs about a process that failed is said by the error that is raised here."""
    known = logging.root.manager.loggerDict
    loggers = [known[name] for name in known if name.startswith("torch.")]
    talking = [logger for logger in loggers if isinstance(logger, logging.Logger) and not logger.disabled]
    for logger in talking:
        logger.disabled = True
    try:
        yield
    finally:
        for logger in talking:
            logger.disabled = False
