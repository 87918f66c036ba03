"""The executors by name; what each needs is loaded only when it is chosen."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from prompttransfer.study.engine.executors import EmbeddedExecutor, Executor, WorkersExecutor
from prompttransfer.study.engine.store import Store
from prompttransfer.study.engine.work import Tell, Workplace
from tasks.errors import UserError


def _make_embedded(workplace: Workplace, say: Tell, store: Store, options: Mapping[str, Any]) -> Executor:
    processes = options.get("processes")
    if processes is not None:
        from prompttransfer.study.engine.distributed_executor import LeadingExecutor

        return LeadingExecutor(workplace, say, store, processes)
    return EmbeddedExecutor(workplace, say, store)


def _make_workers(workplace: Workplace, say: Tell, store: Store, options: Mapping[str, Any]) -> Executor:
    count = int(options.get("workers") or 1)
    if count < 1:
        raise UserError(f"--workers {count}: give a number of processes from 1 on")
    return WorkersExecutor(workplace, count, gpus=int(options.get("gpus") or 0))


def _make_ray(workplace: Workplace, say: Tell, store: Store, options: Mapping[str, Any]) -> Executor:
    from prompttransfer.study.engine.ray_executor import RayExecutor

    return RayExecutor(workplace, say, address=options.get("address"))


EXECUTORS: dict[str, Callable[[Workplace, Tell, Store, Mapping[str, Any]], Executor]] = {
    "embedded": _make_embedded,
    "workers": _make_workers,
    "ray": _make_ray,
}
