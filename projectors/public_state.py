"""The state of a carrying by public text (public_text.py) on disk, so that one that was killed goes on, bit for bit.

One sealed file, written whole at every look at held-out text: the prompts, Adam's moments, and the best so far. Its name changes with
anything that the result depends on, so that no other carrying takes it up. All randomness of a step comes from its number.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from projectors.fitting import moments_of
from prompttransfer.files import atomic_path
from prompttransfer.sealed import read_sealed, write_sealed
from tasks.documents import checked, parse_json
from tasks.errors import UserError

WHAT, ADVICE = "state of a carrying", "remove it to begin anew"


@dataclass
class Best:
    """The prompts as they were best so far by some value, less is better."""

    vectors: Tensor
    """[n, length, width]"""
    values: list[float] = field(default_factory=list)
    steps: list[int] = field(default_factory=list)

    def take(self, vectors: Tensor, values: Sequence[float], step: int) -> None:
        """Take one look in."""
        if not self.values:
            self.values, self.steps = [math.inf] * len(values), [0] * len(values)
        for place, value in enumerate(values):
            if value < self.values[place]:
                self.values[place], self.steps[place] = value, step
                self.vectors[place] = vectors[place].detach().cpu()


@dataclass
class Course:
    """How far a carrying has come."""

    best: Best
    """By the loss on held-out public text."""
    picked: Best
    """By labelled rows, where there is a look at them."""
    first: list[float] = field(default_factory=list)
    """The loss of each prompt before the first step; empty before there was a look."""
    step: int = 0


@dataclass
class Keeping:
    """Where the state of unfinished work is kept; nothing here changes what comes out."""

    folder: Path
    beside: str = ""
    """Changes with what else the result depends on: the rows that labels are looked at on."""
    going_on: Callable[[int], None] = lambda step: None
    """Told the step from which killed work goes on."""
    files: list[Path] = field(default_factory=list)
    """What `clear` removes."""

    def file(self, kind: str, parts: Iterable[object]) -> Path:
        """The state's place for work that depends on `parts` (tensors by their values)."""
        sha = hashlib.sha256(self.beside.encode())
        for part in parts:
            sha.update(
                part.cpu().contiguous().numpy().tobytes() if isinstance(part, Tensor) else repr(part).encode()
            )
        found = self.folder / f".{kind}-{sha.hexdigest()[:16]}.safetensors"
        self.files.append(found)
        return found

    def clear(self) -> None:
        """Remove the state of finished work; to be called when its result is saved, not before."""
        for path in self.files:
            path.unlink(missing_ok=True)


class BestRecord(BaseModel):
    """Values and steps of a `Best`."""

    model_config = ConfigDict(extra="forbid")

    values: list[float]
    steps: list[int]


class CourseRecord(BaseModel):
    """The numbers of a `Course`."""

    model_config = ConfigDict(extra="forbid")

    step: int = Field(ge=0)
    first: list[float]
    best: BestRecord
    picked: BestRecord


def keep(path: Path, course: Course, prompts: Tensor, optimizer: torch.optim.Optimizer) -> None:
    """Write everything that a carrying needs to go on, whole or not at all."""
    tensors = {"prompts": prompts, "best": course.best.vectors, "picked": course.picked.vectors}
    for name, value in optimizer.state_dict()["state"].get(0, {}).items():
        tensors[f"moment.0.{name}"] = value
    record = {
        "step": course.step,
        "first": course.first,
        **{name: {"values": own.values, "steps": own.steps} for name, own in _bests(course)},
    }
    with atomic_path(path) as temporary:
        write_sealed(
            temporary,
            {name: value.clone() for name, value in tensors.items()},
            {"course": json.dumps(record)},
        )


def resume(path: Path, course: Course, prompts: Tensor, optimizer: torch.optim.Optimizer) -> bool:
    """Take up what was kept, into what is given; False where there is nothing. Raises UserError for a damaged file."""
    if not path.exists():
        return False
    what = f"{WHAT} {path}"
    file = read_sealed(path, WHAT, ADVICE)
    try:
        given = parse_json(file.metadata.get("course", ""), what, any_number=True)
        record = checked(CourseRecord, given, what)
        tensors = dict(file.tensors)
        for name in ("prompts", "best", "picked"):
            if name not in tensors or tensors[name].shape != prompts.shape:
                raise UserError(f"{what} is damaged: it lacks the {name} of {list(prompts.shape)}")
        counts = {len(record.first), len(record.best.values), len(record.best.steps)}
        if counts != {len(prompts)}:
            raise UserError(f"{what} is damaged: its numbers are not of {len(prompts)} prompts")
        kept = {name: tensors.pop(name) for name in ("prompts", "best", "picked")}
        moments = {name.removeprefix("moment."): value for name, value in tensors.items()}
        state = moments_of(moments, optimizer, what)
    except UserError as error:
        raise UserError(f"{error}; {ADVICE}") from None
    with torch.no_grad():
        prompts.copy_(kept["prompts"])
    optimizer.load_state_dict(optimizer.state_dict() | {"state": state})
    course.step, course.first = record.step, record.first
    for name, own in _bests(course):
        numbers: BestRecord = getattr(record, name)
        own.vectors, own.values, own.steps = kept[name], numbers.values, numbers.steps
    return True


def _bests(course: Course) -> tuple[tuple[str, Best], ...]:
    return ("best", course.best), ("picked", course.picked)
