"""Compute how long a study would take on 1, 8 and 64 GPUs, and what bounds it; nothing is run.

    python scripts/cost_of_study.py su2022 --teraflops 100 --start 15

Each unit takes its estimated arithmetic divided by the rate that one GPU keeps up, and some seconds to start; units are
given out as the engine does it, earliest in the plan first, as soon as their inputs are there.
"""

from __future__ import annotations

import argparse
import heapq
from collections.abc import Mapping

from prompttransfer.study.cell import Graph, Unit
from prompttransfer.study.plan.estimate import COUNTERS, sides_of
from prompttransfer.study.plan.plan import Plan, make_plan
from prompttransfer.study.plan.shipped import find_study
from prompttransfer.study.results.status import spoken


def seconds_of_units(plan: Plan, *, teraflops: float, start: float) -> dict[str, float]:
    """Unit id -> seconds on one GPU."""
    sides = sides_of(plan)
    cells = plan.graph.cells

    def operations(unit: Unit) -> float:
        count = COUNTERS.get(unit.kind)
        return sum(count(cell, unit, sides, cells).operations for cell in unit.cells) if count else 0.0

    return {unit.id: start + operations(unit) / (teraflops * 1e12) for unit in plan.graph}


def longest_chain(graph: Graph, seconds: Mapping[str, float]) -> tuple[float, list[Unit]]:
    """The chain of units, each an input of the next, that takes longest: no number of GPUs is faster."""
    ends: dict[str, float] = {}
    before: dict[str, str | None] = {}
    for unit in graph:
        latest = max(graph.needs[unit.id], key=lambda name: ends[name], default=None)
        before[unit.id] = latest
        ends[unit.id] = seconds[unit.id] + (ends[latest] if latest else 0.0)
    name: str | None = max(ends, key=lambda unit: ends[unit])
    whole, chain = ends[name or ""], []
    while name:
        chain.append(graph.by_id[name])
        name = before[name]
    return whole, chain[::-1]


def schedule(graph: Graph, seconds: Mapping[str, float], gpus: int) -> float:
    """Seconds until all units are made on `gpus` GPUs."""
    place = {unit.id: index for index, unit in enumerate(graph)}
    waits = {name: len(needs) for name, needs in graph.needs.items()}
    users: dict[str, list[str]] = {name: [] for name in place}
    for name, needs in graph.needs.items():
        for need in needs:
            users[need].append(name)
    ready = [(place[name], name) for name, count in waits.items() if not count]
    heapq.heapify(ready)
    running: list[tuple[float, str]] = []
    now = 0.0
    while ready or running:
        while ready and len(running) < gpus:
            _, name = heapq.heappop(ready)
            heapq.heappush(running, (now + seconds[name], name))
        now, done = heapq.heappop(running)
        for name in users[done]:
            waits[name] -= 1
            if not waits[name]:
                heapq.heappush(ready, (place[name], name))
    return now


def main() -> None:
    """Compute and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("study", help="study file, or the name of a shipped one")
    parser.add_argument("--teraflops", type=float, default=100.0, help="that one GPU keeps up; assumed")
    parser.add_argument("--start", type=float, default=15.0, help="seconds to start a unit; assumed")
    given = parser.parse_args()
    plan = make_plan(find_study(given.study), guess=True)
    seconds = seconds_of_units(plan, teraflops=given.teraflops, start=given.start)
    work, graph = sum(seconds.values()), plan.graph
    print(f"{len(graph.cells)} cells in {len(graph.units)} units, {spoken(work)} of work on one GPU")
    for gpus in (1, 8, 64, 512):
        end = schedule(graph, seconds, gpus)
        print(f"{gpus} GPUs: {spoken(end)}, {100 * work / end / gpus:.0f} % busy")
    whole, chain = longest_chain(graph, seconds)
    print(f"longest chain: {spoken(whole)}")
    for unit in chain:
        print(f"  {spoken(seconds[unit.id])}  {unit.kind}: {unit.label}")
    most = max(graph, key=lambda unit: seconds[unit.id])
    print(f"largest unit: {spoken(seconds[most.id])} {most.label}, {len(most.cells)} cells")


if __name__ == "__main__":
    main()
