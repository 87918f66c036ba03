"""The state of a training run on disk: one safetensors file, written whole at every evaluation, no pickle.

Tensors (prompts, best prompts, optimizer moments) are stored as they are; numbers (steps, curves, counters) as JSON
in the file's metadata. Python's JSON keeps every digit of a float, so a resumed run is exact.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor
from torch.optim import Optimizer

from prompttransfer.files import atomic_path
from prompttransfer.prompt import CurvePoint
from prompttransfer.sealed import read_sealed, write_sealed
from tasks.errors import UserError

WHAT, ADVICE = "training state", "delete it to start the run anew"


@dataclass
class PromptState:
    """How far one prompt of a bank has come."""

    best: Tensor
    """[length, width] the vectors with the best validation score so far."""
    best_step: int = 0
    since_best: int = 0
    """Evaluations since the best one."""
    steps: int = 0
    ended: str | None = None
    curve: list[CurvePoint] = field(default_factory=list)

    def add(self, point: CurvePoint, vectors: Tensor) -> None:
        """Take one evaluation in; equal scores are decided by the validation loss."""
        if not self.curve or _rank(point) > max(_rank(other) for other in self.curve):
            self.best, self.best_step, self.since_best = vectors.detach().cpu().clone(), point.step, 0
        else:
            self.since_best += 1
        self.curve.append(point)


def _rank(point: CurvePoint) -> tuple[float, float]:
    loss = point.validation_loss
    return point.score, -loss if loss is not None and loss == loss else float("-inf")


def write_state(
    path: Path, states: Sequence[PromptState], vectors: Sequence[Tensor], optimizer: Optimizer, step: int
) -> None:
    """Write everything that a run needs to go on to `path`, as a whole or not at all."""
    tensors: dict[str, Tensor] = {}
    numbers: dict[str, dict[str, Any]] = {}
    for index, (state, values) in enumerate(zip(states, vectors, strict=True)):
        tensors[f"vectors.{index}"] = values.detach().cpu().contiguous()
        tensors[f"best.{index}"] = state.best.contiguous()
    for index, entries in optimizer.state_dict()["state"].items():
        for key, value in entries.items():
            if isinstance(value, Tensor):
                tensors[f"optimizer.{index}.{key}"] = value.detach().cpu().contiguous().clone()
            else:
                numbers.setdefault(str(index), {})[key] = value
    record = {
        "step": step,
        "states": [{k: v for k, v in asdict(state).items() if k != "best"} for state in states],
        "optimizer": numbers,
    }
    with atomic_path(path) as temporary:
        write_sealed(temporary, tensors, {"state": json.dumps(record)})


def read_state(
    path: Path, optimizer: Optimizer
) -> tuple[list[PromptState], list[Tensor], dict[str, Any], int]:
    """States, vectors, optimizer state (in the shape that `optimizer` has) and step of a file by `write_state`.

    UserError where the file is damaged or of another run than its name says, UnreadableError where it cannot be read.
    """
    found = read_sealed(path, WHAT, ADVICE)
    tensors, refuse = found.tensors, f"{WHAT} {path} is damaged: {ADVICE}"
    try:
        record = json.loads(found.metadata["state"])
        states = []
        for index, entry in enumerate(record["states"]):
            curve = [CurvePoint(**point) for point in entry.pop("curve")]
            states.append(PromptState(best=tensors[f"best.{index}"], curve=curve, **entry))
        moments: dict[int, dict[str, Any]] = {
            int(index): dict(entries) for index, entries in record["optimizer"].items()
        }
        for name, tensor in tensors.items():
            if name.startswith("optimizer."):
                _, prompt, key = name.split(".", 2)
                moments.setdefault(int(prompt), {})[key] = tensor
        vectors = [tensors[f"vectors.{index}"] for index in range(len(states))]
        step = int(record["step"])
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise UserError(f"{refuse} ({type(error).__name__}: {error})") from error
    state = optimizer.state_dict()
    state["state"] = moments
    return states, vectors, state, step
