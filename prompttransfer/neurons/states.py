"""Files of neuron states: one safetensors file of bits with a JSON record in its metadata, compared without the model.

The record says of which backbone the states are, which tensor was read, on which input, and by which rule; states
that differ in one of these cannot be merged. 12 layers of 3,072 neurons are 4.6 kB a prompt.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from pydantic import BaseModel, ConfigDict, Field

from analysis.neurons import NeuronStates, merge
from prompttransfer.files import atomic_path
from prompttransfer.sealed import read_sealed, write_sealed
from tasks.documents import checked, parse_json
from tasks.errors import MissingError, UserError

FORMAT = 1
KEY, RECORD = "bits", "prompttransfer.neurons"


class StatesRecord(BaseModel):
    """What the metadata says, checked because it comes from outside."""

    model_config = ConfigDict(extra="forbid")

    format: int
    backbone: str
    neurons: int = Field(ge=1)
    layers: int = Field(ge=1)
    rule: str
    tensor: str
    names: list[str]
    tasks: list[str]


@dataclass(frozen=True)
class Captured:
    """States of prompts, with the tasks of the prompts and the tensor that was read."""

    states: NeuronStates
    tasks: tuple[str, ...]
    tensor: str

    def __post_init__(self) -> None:
        if len(self.tasks) != len(self.states.names):
            raise UserError(f"{len(self.tasks)} tasks for the states of {len(self.states.names)} prompts")


def backbone_label(name: str, revision: str) -> str:
    """How states name their backbone: two revisions are two models."""
    return f"{name} ({revision})" if revision else name


def save_states(captured: Captured, path: Path) -> Path:
    """Write states to `path`, whole or not at all."""
    states = captured.states
    record = StatesRecord(
        format=FORMAT,
        backbone=states.backbone,
        neurons=states.neurons,
        layers=states.layers,
        rule=states.rule,
        tensor=captured.tensor,
        names=list(states.names),
        tasks=list(captured.tasks),
    )
    with atomic_path(path) as temporary:
        write_sealed(temporary, {KEY: torch.from_numpy(states.bits)}, {RECORD: record.model_dump_json()})
    return path


def load_states(path: Path) -> Captured:
    """Read states that `save_states` wrote; UserError for another file, one cut short, or a record that does not fit."""
    try:
        file = read_sealed(path, "file of neuron states", "capture it again")
    except MissingError:
        raise UserError(
            f"no such file of neuron states: {path}; make one with `prompttransfer neurons PROMPT...`"
        ) from None
    if RECORD not in file.metadata or KEY not in file.tensors:
        raise UserError(f"{path} holds no neuron states: make them with `prompttransfer neurons PROMPT...`")
    source = f"{path}: its record"
    record = checked(StatesRecord, parse_json(file.metadata[RECORD], source), source)
    if file.tensors[KEY].dtype != torch.uint8:
        raise UserError(f"{path} is damaged: its states are {file.tensors[KEY].dtype}, not bits in bytes")
    if record.format != FORMAT:
        raise UserError(
            f"{path} is of format {record.format}, this version reads {FORMAT}: use a newer prompttransfer"
        )
    states = NeuronStates(
        file.tensors[KEY].numpy(), record.neurons, tuple(record.names), record.backbone, record.rule
    )
    if states.layers != record.layers:
        raise UserError(
            f"{path} holds {states.layers} layers, its record says {record.layers}: capture it again"
        )
    return Captured(states, tuple(record.tasks), record.tensor)


def load_all(paths: Sequence[Path]) -> Captured:
    """The states of several files as one; UserError if they are of different backbones, inputs or rules."""
    captured = [load_states(path) for path in paths]
    if not captured:
        raise UserError("no file of neuron states given: name at least one")
    merged = merge([item.states for item in captured])
    return Captured(merged, tuple(t for item in captured for t in item.tasks), captured[0].tensor)
