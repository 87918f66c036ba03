"""The real kinds, but the first prompt to be trained kills its process before it is saved.

It waits for the rest of the study first, so that what goes on after it has a process that is warm.
"""

import os
import signal
import time
from pathlib import Path

from prompttransfer.study import kinds


class KilledPrompt:
    """Trains as the real kind does; the first process that gets as far as keeping its prompt is killed there."""

    version = kinds.KINDS["prompt"].version

    def run(self, unit, context):
        return kinds.KINDS["prompt"].run(unit, _Deadly(unit, context))


class _Deadly:
    """The unit's context until a folder to fill is asked for."""

    def __init__(self, unit, context):
        self._unit, self._context = unit, context

    def __getattr__(self, name):
        return getattr(self._context, name)

    def output(self, cell):
        if self._first():
            end = time.monotonic() + 60
            while len(self._context.store.ids()) < self._context.local["others"] and time.monotonic() < end:
                time.sleep(0.02)
            os.kill(os.getpid(), signal.SIGKILL)
        return self._context.output(cell)

    def _first(self):
        try:
            with open(Path(str(self._context.local["marks"])) / "killed", "x") as mark:
                mark.write(self._unit.id)
        except FileExistsError:
            return False
        return True


KINDS = {**kinds.KINDS, "prompt": KilledPrompt()}
