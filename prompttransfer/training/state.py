"""The state of a training run on disk: one safetensors file, written whole at every evaluation, no pickle.

Tensors (members, their best, optimizer moments) are stored as they are; numbers (steps, curves, counters) as JSON
in the file's metadata. Python's JSON keeps every digit of a float, so a resumed run is exact.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn
from torch.optim import Optimizer

from prompttransfer.adaptations.adaptation import CurvePoint
from prompttransfer.files import atomic_path
from prompttransfer.sealed import read_sealed, write_sealed
from tasks.documents import checked, parse_json, shortened
from tasks.errors import UserError

WHAT, ADVICE = "training state", "delete it to start the run anew"


@dataclass
class MemberState:
    """How far one member of a bank has come."""

    best: dict[str, Tensor]
    """Its `state_dict()` with the best validation score so far."""
    best_step: int = 0
    since_best: int = 0
    """Evaluations since the best one."""
    steps: int = 0
    ended: str | None = None
    curve: list[CurvePoint] = field(default_factory=list)
    embedding: dict[str, Tensor] | None = None
    """Its `tensors()` at the step that the recipe names, once that is past."""

    def add(self, point: CurvePoint, kept: dict[str, Tensor]) -> None:
        """Take one evaluation in, with the state that was evaluated; equal scores are decided by the validation loss."""
        if not self.curve or _rank(point) > max(_rank(other) for other in self.curve):
            self.best, self.best_step, self.since_best = kept, point.step, 0
        else:
            self.since_best += 1
        self.curve.append(point)


def _rank(point: CurvePoint) -> tuple[float, float]:
    loss = point.validation_loss
    return point.score, -loss if loss is not None and loss == loss else float("-inf")


def kept_of(member: nn.Module) -> dict[str, Tensor]:
    """A copy of all that a member needs to go on, on the CPU."""
    return {name: tensor.detach().cpu().contiguous().clone() for name, tensor in member.state_dict().items()}


def write_state(
    path: Path, states: Sequence[MemberState], members: Sequence[nn.Module], optimizer: Optimizer, step: int
) -> None:
    """Write everything that a run needs to go on to `path`, as a whole or not at all."""
    tensors: dict[str, Tensor] = {}
    numbers: dict[str, dict[str, Any]] = {}
    for index, (state, member) in enumerate(zip(states, members, strict=True)):
        tensors |= {f"member.{index}.{name}": tensor for name, tensor in kept_of(member).items()}
        tensors |= {f"best.{index}.{name}": tensor for name, tensor in state.best.items()}
        tensors |= {
            f"embedding.{index}.{name}": tensor for name, tensor in _whole(state.embedding or {}).items()
        }
    for index, entries in optimizer.state_dict()["state"].items():
        for key, value in entries.items():
            if isinstance(value, Tensor):
                tensors[f"optimizer.{index}.{key}"] = value.detach().cpu().contiguous().clone()
            else:
                numbers.setdefault(str(index), {})[key] = value
    record = {
        "step": step,
        "states": [
            asdict(replace(state, best={}, embedding=None), dict_factory=_numbers) for state in states
        ],
        "optimizer": numbers,
    }
    with atomic_path(path) as temporary:
        write_sealed(temporary, tensors, {"state": json.dumps(record)})


class CurveEntry(BaseModel):
    """One evaluation so far; losses may be anything, as a run that went wrong is kept too."""

    model_config = ConfigDict(extra="forbid")

    step: int = Field(ge=0)
    loss: float | None
    score: float
    validation_loss: float | None


class StateEntry(BaseModel):
    """One member's numbers."""

    model_config = ConfigDict(extra="forbid")

    best_step: int = Field(ge=0)
    since_best: int = Field(ge=0)
    steps: int = Field(ge=0)
    ended: str | None
    curve: list[CurveEntry]


class RunEntry(BaseModel):
    """The numbers of a run."""

    model_config = ConfigDict(extra="forbid")

    step: int = Field(ge=0)
    states: list[StateEntry]
    optimizer: dict[int, dict[str, int | float | None]]


def _numbers(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    return {key: value for key, value in pairs if key not in ("best", "embedding")}


def _whole(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors as they can be written: none is a view of another."""
    return {name: tensor.contiguous().clone() for name, tensor in tensors.items()}


def read_state(
    path: Path, members: Sequence[nn.Module], optimizer: Optimizer
) -> tuple[list[MemberState], list[dict[str, Tensor]], dict[str, Any], int]:
    """States, members' state dicts, optimizer state (in the shape that `optimizer` has) and step of a file by `write_state`.

    UserError where it is damaged or does not fit `members`, whose parameters `optimizer` trains.
    """
    what = f"{WHAT} {path}"
    file = read_sealed(path, WHAT, ADVICE)
    try:
        record = checked(RunEntry, parse_json(file.metadata.get("state", ""), what, any_number=True), what)
        parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        if len(record.states) != len(members):
            raise UserError(f"{what} is of {len(record.states)} members, not of {len(members)}")
        tensors = dict(file.tensors)
        values = [_take_member(tensors, f"member.{i}", member, what) for i, member in enumerate(members)]
        best = [_take_member(tensors, f"best.{i}", member, what) for i, member in enumerate(members)]
        embeddings = [_take_embedding(tensors, f"embedding.{i}.") for i in range(len(members))]
        shapes = [parameter.shape for parameter in parameters]
        moments = _moments(record, tensors, shapes, type(optimizer).__name__, what)
    except UserError as error:
        raise UserError(f"{error}; {ADVICE}") from None
    states = [
        MemberState(
            best=kept,
            embedding=embedding,
            curve=[CurvePoint(**point.model_dump()) for point in entry.curve],
            **entry.model_dump(exclude={"curve"}),
        )
        for kept, embedding, entry in zip(best, embeddings, record.states, strict=True)
    ]
    return states, values, optimizer.state_dict() | {"state": moments}, record.step


def _take_member(tensors: dict[str, Tensor], prefix: str, member: nn.Module, what: str) -> dict[str, Tensor]:
    """Take the state dict of a member out of `tensors`."""
    return {
        name: _take(tensors, f"{prefix}.{name}", tensor.shape, what, tensor.dtype)
        for name, tensor in member.state_dict().items()
    }


def _take_embedding(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor] | None:
    """Take the embedding of a member out of `tensors`; None where there is none yet."""
    names = [name for name in tensors if name.startswith(prefix)]
    return {name.removeprefix(prefix): tensors.pop(name) for name in names} or None


def _take(
    tensors: dict[str, Tensor],
    name: str,
    shape: Sequence[int],
    what: str,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """Take a tensor of that shape and type (floats for any type of floats) out of `tensors`."""
    if name not in tensors:
        raise UserError(f"{what} is damaged: it lacks {name}")
    tensor = tensors.pop(name)
    fits = tensor.is_floating_point() if dtype.is_floating_point else tensor.dtype == dtype
    if not fits or tuple(tensor.shape) != tuple(shape):
        kind = "floats" if dtype.is_floating_point else str(dtype)
        raise UserError(
            f"{what} is damaged: {name} is {tensor.dtype} {list(tensor.shape)}, not {kind} {list(shape)}"
        )
    return tensor


def _kept_by(optimizer: str, shape: Sequence[int]) -> dict[str, tuple[int, ...]]:
    """What an optimizer keeps of a parameter of this shape -> the shape of that; () for one number."""
    whole = tuple(shape)
    if optimizer == "AdamW":
        return {"step": (), "exp_avg": whole, "exp_avg_sq": whole}
    if len(whole) < 2:  # Adafactor factors matrices, of which the last two axes are one
        return {"step": (), "RMS": (), "exp_avg_sq": whole}
    return {"step": (), "RMS": (), "exp_avg_sq_row": whole[:-1], "exp_avg_sq_col": (*whole[:-2], whole[-1])}


def _moments(
    record: RunEntry, tensors: dict[str, Tensor], shapes: Sequence[Sequence[int]], optimizer: str, what: str
) -> dict[int, dict[str, Any]]:
    """Index of a parameter -> all that the optimizer keeps of it; one that trained no step has nothing."""
    moments: dict[int, dict[str, Any]] = {index: dict(entries) for index, entries in record.optimizer.items()}
    kept = [_kept_by(optimizer, shape) for shape in shapes]
    for name in list(tensors):
        kind, _, rest = name.partition(".")
        index, _, key = rest.partition(".")
        known = kind == "optimizer" and index.isdecimal() and int(index) < len(shapes)
        if not known or key not in kept[int(index)]:
            raise UserError(f"{what} is damaged: {shortened(name)!r} belongs to no member of it")
        moments.setdefault(int(index), {})[key] = _take(tensors, name, kept[int(index)][key], what)
    if any(index >= len(kept) or entry.keys() != kept[index].keys() for index, entry in moments.items()):
        raise UserError(f"{what} is damaged: it lacks what the optimizer keeps of the members")
    return moments
