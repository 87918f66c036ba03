"""Measure what the engine of studies costs: a run of many tiny cells, its status, and a run that finds all finished.

    python scripts/measure_study.py --cells 10000 [--workers 2] [--folder /tmp/tiny]

The cells write one small file each; a third of them uses the other two thirds, so that inputs are checked too.
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

from prompttransfer.study.cell import Cell, Context, Graph, Json, Unit
from prompttransfer.study.engine.engine import run_study
from prompttransfer.study.engine.stores import open_store


class Tiny:
    """Writes the sum of its inputs and its own number."""

    version = 1

    def run(self, unit: Unit, context: Context) -> Mapping[str, Mapping[str, Json]]:
        """Make the one cell of the unit."""
        (cell,) = unit.cells
        sources = [
            json.loads((context.input(cell, role) / "number.json").read_text()) for role in cell.inputs
        ]
        number = cell.settings["number"]
        assert isinstance(number, int)
        (context.output(cell) / "number.json").write_text(json.dumps(number + sum(sources)))
        return {cell.id: {"steps": 1}}


KINDS = {"tiny": Tiny()}


def make_graph(cells: int) -> Graph:
    """Two thirds of the cells have no inputs, each of the others uses two of them."""
    first = [Cell("tiny", f"first {n}", {"number": n}, {}, 1) for n in range(2 * cells // 3)]
    second = [
        Cell("tiny", f"second {n}", {"number": n}, {"a": first[n].id, "b": first[-n - 1].id}, 1)
        for n in range(cells - len(first))
    ]
    return Graph(tuple(Unit((cell,)) for cell in [*first, *second]))


def processor() -> float:
    """Seconds of processor time of this process and of those that it started and that have ended."""
    mine, theirs = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return mine.ru_utime + mine.ru_stime + theirs.ru_utime + theirs.ru_stime


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--cells", type=int, default=10_000)
    parser.add_argument("--workers", type=int, default=0, help="0: embedded")
    parser.add_argument("--folder", type=Path, help="kept if given; else a temporary one")
    given = parser.parse_args()
    folder = given.folder or Path(tempfile.mkdtemp(prefix="tiny-study-"))
    executor, options = ("workers", {"workers": given.workers}) if given.workers else ("embedded", {})
    store = open_store(folder, new=True)
    started = time.perf_counter()
    graph = make_graph(given.cells)
    print(f"graph of {given.cells} cells: {time.perf_counter() - started:.2f} s")

    def run(word: str) -> None:
        begun, busy = time.perf_counter(), processor()
        done = run_study(
            graph,
            store,
            kinds="measure_study:KINDS",
            executor=executor,
            options=options,
            say=lambda line: None,
        )
        seconds = time.perf_counter() - begun
        each, work = 1000 * seconds / given.cells, 1000 * (processor() - busy) / given.cells
        print(
            f"{word}: {seconds:.2f} s, {each:.2f} ms a cell, {work:.2f} ms of it processor time ({done.made} made)"
        )

    run(f"run, {executor}")
    run("run again, nothing to do")
    for arguments in (["study", "status", str(folder)], ["study", "status", str(folder), "--verify"]):
        begun = time.perf_counter()
        subprocess.run(
            [sys.executable, "-m", "prompttransfer", *arguments], check=True, stdout=subprocess.DEVNULL
        )
        print(
            f"prompttransfer {' '.join(arguments[:2] + arguments[3:])}: {time.perf_counter() - begun:.2f} s"
        )
    if given.folder is None:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
