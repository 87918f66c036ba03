"""How long OpenMP's threads wait awake for one another at the end of a product: briefly, and not at all on a busy machine.

A thread that waits awake answers at once, and takes a core from whoever has work. docs/backbones.md has the times.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, MutableMapping
from contextlib import suppress
from pathlib import Path

SPINS = 2000
"""Rounds that a thread waits awake before it sleeps, where the cores are ours."""

LOOKS, APART = 3, 0.004
"""How often it is looked who runs, and seconds between two looks."""


def wait_briefly(environment: MutableMapping[str, str], *, busy: int | None = None) -> None:
    """Say how threads wait, which OpenMP reads when torch is loaded, unless the user has.

    `busy` is how many cores others keep busy; None looks.
    """
    if {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT"} & environment.keys():
        return
    busy = min(others_running(), default=0) if busy is None else busy
    ours = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    crowded = busy and busy + ours > (os.cpu_count() or 1)
    environment["GOMP_SPINCOUNT"] = "0" if crowded else str(SPINS)


def others_running(source: Path = Path("/proc/loadavg")) -> Iterator[int]:
    """How many threads of others have a core or wait for one, once for each look; nothing where the system does not say."""
    with suppress(OSError, ValueError, IndexError):
        for look in range(LOOKS):
            if look:
                time.sleep(APART)
            yield int(source.read_text().split()[3].partition("/")[0]) - 1
