"""Prompts on disk: one folder a prompt, readable by Hugging Face PEFT, written whole or not at all.

    adapter_model.safetensors   prompt_embeddings [length, width] float32
    adapter_config.json         PEFT's PromptTuningConfig
    prompt.json                 ours: where the prompt came from, its scores, its learning curve, its digest
    initial.safetensors         the vectors before the first step, where they are known
    README.md                   model card

Reading checks everything that could make a prompt silently wrong: shape, digest, format.
"""

from __future__ import annotations

import json
import platform
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, Field, field_validator
from safetensors.torch import save_file
from torch import Tensor

from prompttransfer.adaptations.adaptation import CurvePoint, Prompt, check_vectors, digest_vectors
from prompttransfer.backbones.revisions import is_commit
from prompttransfer.files import atomic_folder, safe_name
from prompttransfer.outputs import check_same, keep_others
from prompttransfer.sealed import read_sealed, write_sealed
from prompttransfer.tensor_files import TensorFile, read_tensors
from tasks.documents import checked, read_json, shortened
from tasks.errors import MissingError, UserError

FORMAT = 1
MARKER = "prompt.json"
PROMPT_KEY = "prompt_embeddings"
FILES = ("adapter_model.safetensors", "adapter_config.json", MARKER, "initial.safetensors", "README.md")
"""What a prompt's folder holds of ours; all else in it is the user's and stays."""
WHAT = "prompt file"


class PointRecord(BaseModel):
    """One evaluation of a learning curve on disk."""

    model_config = ConfigDict(extra="forbid")

    step: int = Field(ge=0)
    loss: float | None
    score: float
    validation_loss: float | None = None

    @property
    def point(self) -> CurvePoint:
        """The point."""
        return CurvePoint(**self.model_dump())


class SettingsRecord(BaseModel):
    """What readers of prompts take from their settings; all of it may be missing, and there may be more."""

    model_config = ConfigDict(extra="allow")

    optimizer: str | None = None
    lr: float | None = None
    weight_decay: float | None = None
    steps: int | None = None
    batch: int | None = None
    length: int | None = None
    evaluate_every: int | None = None
    patience: int | None = None
    precision: str | None = None
    max_length: int | None = None
    aggregation: str | None = None


class PromptRecord(BaseModel):
    """`prompt.json`, checked because it comes from outside."""

    model_config = ConfigDict(extra="forbid")

    format: int
    name: str
    task: str
    backbone: str
    revision: str
    family: str
    layout: str
    length: int
    width: int
    seed: int | None
    initialiser: str
    words: dict[str, str]
    settings: dict[str, Any]
    data: dict[str, Any]
    scores: dict[str, Any]
    curve: list[PointRecord]
    digest: str
    versions: dict[str, str]

    @field_validator("settings")
    @classmethod
    def _check_settings(cls, settings: dict[str, Any]) -> dict[str, Any]:
        SettingsRecord.model_validate(settings)
        return settings


def save_prompt(prompt: Prompt, folder: Path) -> Path:
    """Write a prompt to `folder` (in place of a prompt that it may hold already) and return it.

    Files in the folder that are not ours stay in it. Raises UserError if the folder holds something else, MachineError if the disk refuses.
    """
    safe_name(prompt.name, "prompt name")
    with atomic_folder(folder, marker=MARKER) as temporary:
        save_file({PROMPT_KEY: prompt.vectors.contiguous()}, temporary / "adapter_model.safetensors")
        if prompt.initial is not None:
            write_sealed(temporary / "initial.safetensors", {PROMPT_KEY: prompt.initial})
        _write(temporary / "adapter_config.json", peft_config(prompt))
        _write(temporary / MARKER, record(prompt).model_dump())
        (temporary / "README.md").write_text(card(prompt), encoding="utf-8")
        keep_others(folder, temporary, FILES)
    return folder


def check_unlike(prompt: Prompt, folder: Path) -> None:
    """Raise a UserError that names --overwrite if `folder` holds another finished prompt than this."""
    if (folder / MARKER).exists():
        there = load_prompt(folder)
        left_out = {"versions"}
        check_same(
            folder,
            record(there).model_dump(exclude=left_out),
            record(prompt).model_dump(exclude=left_out),
            what="a finished prompt",
        )


def load_prompt(folder: Path) -> Prompt:
    """Read a prompt that `save_prompt` wrote, bit for bit.

    Raises UserError when the folder is none, a file is missing or cut short, or the vectors are not those that were
    written (their digest differs).
    """
    folder = Path(folder)
    values = read_record(folder)
    vectors = read_vectors(folder / "adapter_model.safetensors")
    if tuple(vectors.shape) != (values.length, values.width):
        raise UserError(
            f"prompt {folder}: adapter_model.safetensors holds {list(vectors.shape)}, prompt.json says "
            f"[{values.length}, {values.width}]"
        )
    if digest_vectors(vectors) != values.digest:
        raise UserError(
            f"prompt {folder} was changed after it was written (its digest differs): train it again, or take the "
            f"vectors as they are with `prompttransfer import {folder}/adapter_model.safetensors`"
        )
    return Prompt(
        vectors=vectors,
        initial=_read_start(folder / "initial.safetensors"),
        curve=tuple(point.point for point in values.curve),
        **values.model_dump(exclude={"format", "length", "width", "digest", "versions", "curve"}),
    )


def find_prompts(folder: Path) -> list[Path]:
    """Prompt folders directly in `folder`, sorted by name; `folder` itself if it is one."""
    if (folder / MARKER).exists():
        return [folder]
    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder: give a prompt folder, or a folder of prompt folders")
    # One after the other, since a glob passes over what it may not look into; hidden ones are being written.
    inside = sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    found = [path for path in inside if (path / MARKER).exists()]
    if not found:
        raise UserError(
            f"no prompt in {folder}: a prompt folder holds {MARKER}; train one with `prompttransfer train`"
        )
    return found


def read_record(folder: Path) -> PromptRecord:
    """`prompt.json` of a prompt folder, checked."""
    path = folder / MARKER
    try:
        value = read_json(path, "prompt record")
    except MissingError:
        hint = (
            "`prompttransfer import` reads prompts of other systems" if folder.exists() else "no such folder"
        )
        raise UserError(f"{folder} is not a prompt folder (no {MARKER} in it): {hint}") from None
    if isinstance(value, dict) and isinstance(value.get("format"), int) and value["format"] != FORMAT:
        raise UserError(
            f"{path} is of format {value['format']}, this version reads {FORMAT}: use a newer prompttransfer"
        )
    found = checked(PromptRecord, value, str(path))
    safe_name(found.name, f"{path}: prompt name")
    return found


def read_vectors(path: Path) -> Tensor:
    """The prompt vectors of one safetensors file, [length, width] float32."""
    try:
        return vectors_of(read_tensors(path, WHAT), path)
    except MissingError:
        raise UserError(f"{path} is missing: the prompt is incomplete") from None


def vectors_of(file: TensorFile, path: Path) -> Tensor:
    """The prompt vectors in what was read from `path`."""
    if PROMPT_KEY not in file.tensors:
        held = shortened(", ".join(sorted(file.tensors))) or "nothing"
        raise UserError(f"{path} holds {held}, not {PROMPT_KEY!r}")
    return file.tensors[PROMPT_KEY]


def _read_start(path: Path) -> Tensor | None:
    """The vectors before the first step, where the prompt has them."""
    if not path.exists():
        return None
    vectors = vectors_of(read_sealed(path, WHAT, "train it again"), path)
    check_vectors(vectors, str(path))
    return vectors


def record(prompt: Prompt) -> PromptRecord:
    """What `prompt.json` says of a prompt."""
    return PromptRecord(
        format=FORMAT,
        name=prompt.name,
        task=prompt.task,
        backbone=prompt.backbone,
        revision=prompt.revision,
        family=prompt.family,
        layout=prompt.layout,
        length=prompt.length,
        width=prompt.width,
        seed=prompt.seed,
        initialiser=prompt.initialiser,
        words=dict(prompt.words),
        settings=dict(prompt.settings),
        data=dict(prompt.data),
        scores=dict(prompt.scores),
        curve=[PointRecord(**asdict(point)) for point in prompt.curve],
        digest=prompt.digest,
        versions=versions(),
    )


def versions() -> dict[str, str]:
    """Versions of what computes, for the records of results."""
    names = ("prompttransfer", "torch", "transformers", "lightning")
    found = {name: _version(name) for name in names}
    return {"python": platform.python_version(), **found}


def _version(name: str) -> str:
    try:
        return version(name)
    except Exception:
        return "not installed as a package"


def peft_config(prompt: Prompt) -> dict[str, Any]:
    """`adapter_config.json`: what PEFT needs to put the prompt in front of an input.

    PEFT has no task type for a masked LM, and without one it ignores the prompt silently; FEATURE_EXTRACTION hands
    the prompt to whatever model it wraps. One submodule keeps PEFT from adding rows for T5's decoder. The revision is
    the commit of a backbone of the hub, which PEFT then loads.
    """
    masked = prompt.family == "masked-lm"
    return {
        "peft_type": "PROMPT_TUNING",
        "task_type": "FEATURE_EXTRACTION" if masked else "SEQ_2_SEQ_LM",
        "base_model_name_or_path": prompt.backbone,
        "revision": prompt.revision if is_commit(prompt.revision) else None,
        "inference_mode": True,
        "num_virtual_tokens": prompt.length,
        "token_dim": prompt.width,
        "num_transformer_submodules": 1,
        "num_attention_heads": 1,
        "num_layers": 1,
        "prompt_tuning_init": "RANDOM",
    }


def card(prompt: Prompt) -> str:
    """The model card of a prompt, Markdown."""
    scores = "\n".join(f"| {split} | {_score(value)} |" for split, value in prompt.scores.items())
    words = ", ".join(f"{label} = {word}" for label, word in prompt.words.items()) or "none (text is written)"
    note = (
        "PEFT reads this folder and gives the same logits."
        if prompt.layout == "prompt-first" or prompt.family == "t5"
        else f"PEFT puts prompts first, so it cannot run layout `{prompt.layout}`; prompttransfer can."
    )
    return f"""---
library_name: peft
base_model: {json.dumps(prompt.backbone)}
tags: [soft-prompt, prompttransfer]
---
# Soft prompt `{prompt.name}`

{prompt.length} vectors of width {prompt.width} for task `{prompt.task}` on `{prompt.backbone}` ({prompt.revision or "revision unknown"}).

- layout: `{prompt.layout}`; label words: {words}
- initialiser: `{prompt.initialiser}`, seed {prompt.seed}
- data: {prompt.data.get("source", "unknown")}
- digest: `{prompt.digest}`

| split | score |
|---|---|
{scores or "| none measured | |"}

{note}
"""


def _score(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(
            f"{key} {item:.4f}" if isinstance(item, float) else f"{key} {item}" for key, item in value.items()
        )
    return str(value)


def _write(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")


def as_float32(tensor: Tensor) -> Tensor:
    """A float32 copy on the CPU."""
    return tensor.detach().to(device="cpu", dtype=torch.float32).contiguous().clone()
