"""How far a study is: read from its folder alone, so that it can be asked from anywhere while runs are at work.

Nothing is planned, no model is loaded and no lock is taken; for 10,000 cells the answer takes well under a second.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from prompttransfer.study.cell import Impossible
from prompttransfer.study.engine.leases import held
from prompttransfer.study.engine.records import FailureRecord
from prompttransfer.study.engine.store import Store, read_failures, read_impossible, read_units
from tasks.errors import UserError

SAMPLE = 40
"""Records of each kind that are read for the time that one takes."""


@dataclass(frozen=True)
class KindCount:
    """How far the cells of one kind are."""

    kind: str
    cells: int
    done: int
    running: int
    failed: int
    blocked: int
    seconds: float | None
    """Mean of a finished cell."""

    @property
    def left(self) -> int:
        """Not finished, and not stopped by a failure."""
        return self.cells - self.done - self.failed - self.blocked


@dataclass(frozen=True)
class Status:
    """How far a study is."""

    kinds: tuple[KindCount, ...]
    running: Mapping[str, float]
    """Label of a unit that is worked on -> when it was begun (seconds since 1970)."""
    failures: tuple[FailureRecord, ...]
    damaged: Mapping[str, str]
    """Cell id -> what is wrong with it; such a cell counts as left."""
    unused: int
    """Finished cells that the study as it is now does not ask for."""
    impossible: tuple[Impossible, ...] = ()
    """What it asks for and cannot have."""

    def total(self, name: str) -> int:
        """Sum over kinds of `cells`, `done`, `running`, `failed`, `blocked` or `left`."""
        return sum(getattr(count, name) for count in self.kinds)

    @property
    def togo(self) -> float | None:
        """Seconds until nothing is left, at the mean time of each kind and as many units at once as now run.

        None where nothing is finished yet that could tell.
        """
        known = [count for count in self.kinds if count.seconds is not None]
        if not known:
            return None
        usual = sum((c.seconds or 0) * c.done for c in known) / max(1, sum(c.done for c in known))
        work = sum(c.left * (usual if c.seconds is None else c.seconds) for c in self.kinds)
        return work / max(1, len(self.running))

    def as_json(self) -> dict[str, Any]:
        """For machines."""
        names = ("cells", "done", "running", "failed", "blocked", "left")
        return {
            **{name: self.total(name) for name in names},
            "seconds_to_go": self.togo,
            "unused": self.unused,
            "kinds": {
                c.kind: {**{name: getattr(c, name) for name in names}, "seconds": c.seconds}
                for c in self.kinds
            },
            "at_work": dict(self.running),
            "failures": [
                {"id": f.id, "label": f.label, "cause": f.cause, "line": f.line} for f in self.failures
            ],
            "damaged": dict(self.damaged),
            "impossible": [asdict(one) for one in self.impossible],
        }


def read_status(store: Store, *, verify: bool = False) -> Status:
    """How far the study in `store` is; every file is checked by its size, with `verify` bit by bit."""
    units = read_units(store)
    cells = {cell["id"]: cell for unit in units for cell in unit["cells"]}
    present = store.ids()
    damaged = {
        name: wrong for name in present & cells.keys() if (wrong := store.damage(name, digests=verify))
    }
    done = (present & cells.keys()) - damaged.keys()
    failures = {
        name: report for name, report in read_failures(store).items() if name in cells and name not in done
    }
    leases = held(store.work / "leases")
    at_work = [unit for unit in units if unit["id"] in leases]
    running = {cell["id"] for unit in at_work for cell in unit["cells"]} - done
    blocked = _blocked(cells, set(failures) - running, done)
    return Status(
        kinds=tuple(_counts(store, cells, done, running, set(failures) - running, blocked)),
        running={_label(unit): leases[unit["id"]] for unit in at_work},
        failures=tuple(report for name, report in failures.items() if name not in running),
        damaged=damaged,
        unused=len(present - cells.keys()),
        impossible=read_impossible(store),
    )


def _label(unit: Mapping[str, Any]) -> str:
    more = f" and {len(unit['cells']) - 1} more" if len(unit["cells"]) > 1 else ""
    return f"{unit['cells'][0]['label']}{more}"


def _blocked(cells: Mapping[str, Any], failed: set[str], done: set[str]) -> set[str]:
    """Cells below a failed one; plan.json names inputs before what uses them."""
    found: set[str] = set()
    if failed:
        for name, cell in cells.items():
            stopped = any(source in failed or source in found for source in cell["inputs"].values())
            if stopped and name not in done and name not in failed:
                found.add(name)
    return found


def _counts(
    store: Store,
    cells: Mapping[str, Any],
    done: set[str],
    running: set[str],
    failed: set[str],
    blocked: set[str],
) -> list[KindCount]:
    groups: dict[str, list[str]] = defaultdict(list)
    for name, cell in cells.items():
        groups[cell["kind"]].append(name)
    found = []
    for kind, names in groups.items():
        count = Counter({label: sum(name in those for name in names) for label, those in (
            ("done", done), ("running", running), ("failed", failed), ("blocked", blocked)
        )})  # fmt: skip
        seconds = _mean_seconds(store, [name for name in names if name in done])
        found.append(KindCount(kind, len(names), seconds=seconds, **count))
    return found


def _mean_seconds(store: Store, names: list[str]) -> float | None:
    """Of at most SAMPLE records, spread evenly over the finished cells."""
    step = max(1, len(names) // SAMPLE)
    taken = []
    for name in names[::step][:SAMPLE]:
        try:
            taken.append(store.record(name).seconds)
        except UserError:
            continue
    return sum(taken) / len(taken) if taken else None


def spoken(seconds: float) -> str:
    """`0.42 s`, `37 s`, `12 min`, `3 h 20 min`, `2 d 4 h`."""
    if seconds < 10:
        return f"{seconds:.2f} s"
    if seconds < 120:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {minutes} min"
    return f"{hours // 24} d {hours % 24} h"
