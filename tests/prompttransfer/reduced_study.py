"""Shipped studies shrunk to copies that run in seconds.

`reduced` keeps the shape of a study (its transfers, projectors and indicators) and takes everything that costs time: rows,
steps, lengths, and optionally backbones and tasks.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

import yaml

from prompttransfer.study.plan.document import read_document
from prompttransfer.study.plan.reading import StudyFile, parse_study
from prompttransfer.study.plan.shipped import study_path

PER_TASK = "per-task"
TASK_LISTS = ("tasks", "fitting", "unseen")


def reduced(
    name: str,
    *,
    steps: int = 2,
    rows: int = 8,
    length: int = 4,
    seeds: int = 1,
    backbones: Mapping[str, str] | None = None,
    rename_task: Callable[[str], str] | None = None,
    keep: Collection[str] | None = None,
) -> StudyFile:
    """The study with few steps, rows, vectors, tried rates and seeds, on other backbones and tasks where they are given.

    `backbones`: name -> what stands in for it. `rename_task` turns a task's name into that of its stand-in; of the
    study's tasks only those in `keep` stay.
    """
    path = study_path(name)
    values = read_document(path).values
    if keep is not None:
        values = _kept(values, keep)
    values = _shrunk(values, steps=steps, length=length)
    values |= {"limit-train": rows, "limit-test": rows, "seeds": values.get("seeds", [0])[:seeds]}
    if "shots" in values:
        values["shots"] = [rows]
    recipe = values.get("recipe", {})
    values["recipe"] = {
        **recipe,
        "steps": steps,
        "length": length,
        "evaluate-every": max(1, steps // 2),
        "batch": 2,
    }
    values = _renamed(values, dict(backbones or {}), rename_task or (lambda task: task))
    text = yaml.dump(values, Dumper=yaml.SafeDumper, sort_keys=False)
    return parse_study(text, f"{path.name} (reduced)", path.parent)


def _shrunk(value: Any, **limits: int) -> Any:
    """The same with every number that costs time no larger than its limit."""
    least = {
        "steps": limits["steps"],
        "length": limits["length"],
        "evaluate-every": 1,
        "batch": 2,
        "hidden": 8,
        "rank": 2,
        "window": 1,
    }
    if isinstance(value, dict):
        found: dict[Any, Any] = {}
        for key, item in value.items():
            if key == "tune":
                found[key] = {axis: tried[:2] for axis, tried in item.items()}
            elif isinstance(item, int) and not isinstance(item, bool):
                found[key] = min(item, least.get(key, item))
            else:
                found[key] = _shrunk(item, **limits)
        return found
    return [_shrunk(item, **limits) for item in value] if isinstance(value, list) else value


def _kept(value: Any, keep: Collection[str], key: str = "") -> Any:
    """The same with only some tasks in every list of tasks and every choice of sources."""
    if isinstance(value, dict):
        if key == "sources":
            return {target: one for target, one in value.items() if target in keep and one in keep}
        if key == PER_TASK:
            return {task: item for task, item in value.items() if task in keep}
        return {name: _kept(item, keep, name) for name, item in value.items()}
    if isinstance(value, list):
        if key in TASK_LISTS:
            return [task for task in value if task in keep]
        return [_kept(item, keep, key) for item in value]
    return value


def _renamed(value: Any, backbones: Mapping[str, str], rename: Callable[[str], str], key: str = "") -> Any:
    if isinstance(value, dict):
        if key == "sources":
            return {
                rename(target): _renamed(one, backbones, rename, "tasks") for target, one in value.items()
            }
        named = {rename(name) if key == PER_TASK else name: item for name, item in value.items()}
        return {name: _renamed(item, backbones, rename, name) for name, item in named.items()}
    if isinstance(value, list):
        return [_renamed(item, backbones, rename, key) for item in value]
    if key in TASK_LISTS:
        return rename(value)
    if key in ("backbones", "name", "source", "target"):
        return backbones.get(value, value)
    return value
