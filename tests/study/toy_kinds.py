"""Kinds whose cells take milliseconds and whose faults can be ordered, for tests of the engine.

A number is a digest of the settings and of the numbers of the inputs, so that a wrong input shows in every result.
"""

import errno
import hashlib
import json
import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

from prompttransfer.study.cell import Cell, CellsFailed, Graph, Unit
from tasks.errors import MachineError, UserError


def cell(name, inputs=(), **settings):
    """A toy cell; `inputs` are cells."""
    roles = {f"input{index}": one.id for index, one in enumerate(inputs)}
    return Cell("toy", name, {"name": name, **settings}, roles, 1)


def layers(widths, **settings):
    """A graph whose every cell uses two cells of the layer before."""
    units, before = [], []
    for depth, width in enumerate(widths):
        row = []
        for index in range(width):
            sources = [before[index % len(before)], before[(index + 1) % len(before)]] if before else []
            sources = list({one.id: one for one in sources}.values())
            row.append(cell(f"{depth}-{index}", sources, **settings))
        units += [Unit((one,)) for one in row]
        before = row
    return Graph(tuple(units))


@dataclass
class Toy:
    """Writes `number.json`; does what the settings `sleep`, `fault` and `once` order."""

    version: int = 1

    def run(self, unit, context):
        failed, costs = {}, {}
        for one in unit.cells:
            settings = one.settings
            with open(Path(str(context.local.get("log", os.devnull))), "a") as log:
                log.write(f"{settings['name']}\n")
            time.sleep(float(settings.get("sleep", 0)))
            if "part" in settings:
                failed[one.id] = "ordered to fail in part"
                continue
            fault = settings.get("fault")
            if fault and (not settings.get("once") or self._first(one, context)):
                FAULTS[fault](context)
            numbers = [
                json.loads((context.input(one, role) / "number.json").read_text())["number"]
                for role in one.inputs
            ]
            text = json.dumps([settings["name"], numbers])
            number = int(hashlib.sha256(text.encode()).hexdigest()[:8], 16)
            folder = context.output(one)
            (folder / "number.json").write_text(json.dumps({"number": number}))
            if settings.get("cut off"):
                self._cut_off(one, context)
            (folder / "more").mkdir()
            (folder / "more" / "bytes.bin").write_bytes(bytes(number % 256 for _ in range(64)))
            costs[one.id] = {"steps": 1}
        if failed:
            raise CellsFailed(failed, costs)
        return costs

    def _cut_off(self, one, context):
        """The first attempt loses its lease half way, and goes on when the second is half way too."""
        marks = Path(str(context.local["marks"]))
        if self._first(one, context):
            for lock in (context.store.work / "leases").iterdir():
                lock.unlink()
            end = time.monotonic() + 60
            while not (marks / "second").exists() and time.monotonic() < end:
                time.sleep(0.01)
        else:
            (marks / "second").touch()
            end = time.monotonic() + 60
            while not context.store.has(one.id) and time.monotonic() < end:
                time.sleep(0.01)

    def _first(self, one, context):
        """Whether this is the first attempt that any process makes at the cell."""
        path = Path(str(context.local["marks"])) / one.id
        try:
            os.close(os.open(path, os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            return False
        return True


def _raise(error):
    raise error


FAULTS = {
    "user": lambda context: _raise(UserError("the task has no rows: give another")),
    "machine": lambda context: _raise(MachineError("the hub is out of reach: try later")),
    "error": lambda context: _raise(ZeroDivisionError("division by zero")),
    "memory": lambda context: _raise(RuntimeError("CUDA out of memory. Tried to allocate 2 GiB")),
    "full": lambda context: _raise(OSError(errno.ENOSPC, "No space left on device")),
    "download": lambda context: _truncated(context),
    "kill": lambda context: os.kill(os.getpid(), signal.SIGKILL),
    "exit": lambda context: os._exit(7),
    "empty": lambda context: None,
}


def _truncated(context):
    from safetensors import safe_open

    path = context.scratch(context.unit) / "model.safetensors"
    path.write_bytes(b"\x10\x00\x00")
    with safe_open(path, framework="np"):
        pass


KINDS = {"toy": Toy()}
NAME = "toy_kinds:KINDS"
