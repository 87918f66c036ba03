"""Adaptations on disk: one folder each, readable by Hugging Face PEFT where it has the method, written whole or not at all.

    adapter_model.safetensors   the tensors, float32, under PEFT's names
    adapter_config.json         PEFT's configuration; not there where PEFT has no such method
    adaptation.json             ours: method, origin, encoding, scores, learning curve, digest
    initial.safetensors         the tensors before the first step, where they are known
    embedding.safetensors       the tensors at the step that `train --embed-at` named, where there was one
    encoder.safetensors         what a method needs to train on, where there is such
    head.safetensors            what was trained in place of label words, where the task asks for that
    README.md                   model card

`prompt.json`, the record of format 1 (soft prompts alone), is still read. Reading checks everything that could make an
adaptation silently wrong: shapes, digest, format.
"""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping
from dataclasses import asdict
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, field_validator
from safetensors.torch import save_file
from torch import Tensor

from prompttransfer.adaptations.adaptation import (
    PROMPT_KEY,
    Adaptation,
    CurvePoint,
    Origin,
    check_tensors,
    digest_tensors,
)
from prompttransfer.adaptations.cards import card
from prompttransfer.adaptations.heads import Classes, Head, head_of
from prompttransfer.adaptations.method import Method, Stored
from prompttransfer.adaptations.methods import make_method
from prompttransfer.adaptations.methods.prompt import PromptTuning
from prompttransfer.backbones.label_words import ONE
from prompttransfer.backbones.layouts import Encoding
from prompttransfer.backbones.revisions import is_commit
from prompttransfer.files import atomic_folder, safe_name
from prompttransfer.outputs import RECORDS, check_same, keep_others
from prompttransfer.sealed import read_sealed, write_sealed
from prompttransfer.tensor_files import read_tensors
from tasks.documents import checked, read_json, shortened
from tasks.errors import MissingError, UserError

FORMAT = 2
MARKERS = RECORDS
MARKER, FIRST_MARKER = MARKERS
"""The record, and that of format 1."""
WEIGHTS, INITIAL, ENCODER = "adapter_model.safetensors", "initial.safetensors", "encoder.safetensors"
EMBEDDING, HEAD = "embedding.safetensors", "head.safetensors"
FILES = (WEIGHTS, "adapter_config.json", MARKER, FIRST_MARKER, INITIAL, ENCODER, EMBEDDING, HEAD, "README.md")
"""What an adaptation's folder holds of ours; all else in it is the user's and stays."""
WHAT = "adaptation"


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


class RecipeRecord(BaseModel):
    """What readers take from how an adaptation was trained; all of it may be missing, and there may be more."""

    model_config = ConfigDict(extra="allow")

    optimizer: str | None = None
    lr: float | None = None
    weight_decay: float | None = None
    steps: int | None = None
    batch: int | None = None
    length: int | None = None
    evaluate_every: int | None = None
    patience: int | None = None
    embed_at: int | None = None
    precision: str | None = None
    max_length: int | None = None
    aggregation: str | None = None


class OriginRecord(BaseModel):
    """`Origin` on disk."""

    model_config = ConfigDict(extra="forbid")

    task: str
    backbone: str
    revision: str
    family: str
    seed: int | None
    start: str
    words: dict[str, str]
    recipe: dict[str, Any]
    data: dict[str, Any]
    opening: tuple[str, ...] | None = None

    @field_validator("recipe")
    @classmethod
    def _check_recipe(cls, recipe: dict[str, Any]) -> dict[str, Any]:
        RecipeRecord.model_validate(recipe)
        return recipe


class EncodingRecord(BaseModel):
    """`Encoding` on disk."""

    model_config = ConfigDict(extra="forbid")

    layout: str
    max_length: int | None
    aggregation: str | None
    template: str | None = None


class MethodRecord(BaseModel):
    """A method on disk: its name and its settings."""

    model_config = ConfigDict(extra="allow")

    name: str


class HeadRecord(BaseModel):
    """What is said of a head, whose numbers lie in a file of their own."""

    model_config = ConfigDict(extra="forbid")

    labels: list[str]
    form: str = ONE
    digest: str


class AdaptationRecord(BaseModel):
    """`adaptation.json`, checked because it comes from outside."""

    model_config = ConfigDict(extra="forbid")

    format: int
    name: str
    method: MethodRecord
    origin: OriginRecord
    encoding: EncodingRecord
    shapes: dict[str, list[int]]
    """Name -> shape of the tensors."""
    scores: dict[str, Any]
    curve: list[PointRecord]
    digest: str
    versions: dict[str, str]
    notes: dict[str, Any] = {}
    """Not there where there is nothing to say."""
    head: HeadRecord | None = None
    """Not there where there is none."""

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return self.model_dump(exclude={name for name in ("notes", "head") if not getattr(self, name)})


class PromptRecord(BaseModel):
    """`prompt.json` of format 1."""

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
        RecipeRecord.model_validate(settings)
        return settings

    def as_adaptation(self) -> AdaptationRecord:
        """The same in the present format."""
        settings = dict(self.settings)
        texts = {key: settings.pop(key, None) for key in ("max_length", "aggregation")}
        settings.pop("length", None)
        return AdaptationRecord(
            format=FORMAT,
            name=self.name,
            method=MethodRecord(name=PromptTuning.name, length=self.length),  # type: ignore[call-arg]
            origin=OriginRecord(
                start=self.initialiser,
                recipe=settings,
                **self.model_dump(
                    include={"task", "backbone", "revision", "family", "seed", "words", "data"}
                ),
            ),
            encoding=EncodingRecord(layout=self.layout, **texts),
            shapes={PROMPT_KEY: [self.length, self.width]},
            **self.model_dump(include={"scores", "curve", "digest", "versions"}),
        )


def save_adaptation(adaptation: Adaptation, folder: Path) -> Path:
    """Write an adaptation to `folder` (in place of one that it may hold already) and return it.

    Files in the folder that are not ours stay in it. Raises UserError if the folder holds something else, MachineError if the disk refuses.
    """
    safe_name(adaptation.name, "prompt name")
    small = adaptation.method.stored(adaptation.encoder)
    tensors, initial = small or (adaptation.tensors, adaptation.initial)
    with atomic_folder(folder, marker=MARKERS) as temporary:
        save_file(_whole(tensors), temporary / WEIGHTS)
        if initial is not None:
            write_sealed(temporary / INITIAL, _whole(initial))
        if adaptation.embedding is not None:
            write_sealed(temporary / EMBEDDING, _whole(adaptation.embedding))
        if adaptation.encoder and small is None:
            write_sealed(temporary / ENCODER, _whole(adaptation.encoder))
        if adaptation.head is not None:
            write_sealed(temporary / HEAD, _whole(adaptation.head.tensors()))
        config = peft_config(adaptation) if small is None else None
        if config is not None:
            _write(temporary / "adapter_config.json", config)
        _write(temporary / MARKER, record(adaptation).as_dict())
        (temporary / "README.md").write_text(card(adaptation), encoding="utf-8")
        keep_others(folder, temporary, FILES)
    return folder


def _whole(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors as they can be written: none is a view of another."""
    return {name: tensor.detach().contiguous().clone() for name, tensor in tensors.items()}


def check_unlike(adaptation: Adaptation, folder: Path) -> None:
    """Raise a UserError that names --overwrite if `folder` holds another finished adaptation than this."""
    if holds_one(folder):
        there = load_adaptation(folder)
        left_out = {"versions"}
        check_same(
            folder,
            record(there).model_dump(exclude=left_out),
            record(adaptation).model_dump(exclude=left_out),
            what="a finished prompt",
        )


def holds_one(folder: Path) -> bool:
    """Whether a folder is that of an adaptation."""
    return (folder / MARKER).exists() or (folder / FIRST_MARKER).exists()


def load_adaptation(folder: Path) -> Adaptation:
    """Read an adaptation that `save_adaptation` wrote, bit for bit, or a prompt of format 1.

    Raises UserError when the folder is none, a file is missing or cut short, or the tensors are not those that were
    written (their digest differs).
    """
    folder = Path(folder)
    values = read_record(folder)
    what = f"adaptation {folder}"
    method = method_of(values)
    tensors, initial = _read_weights(folder / WEIGHTS), _read_sealed(folder / INITIAL)
    encoder = _read_sealed(folder / ENCODER) or {}
    if small := method.is_prompt and PROMPT_KEY in values.shapes and PROMPT_KEY not in tensors:
        check_tensors(tensors, what)
        tensors, initial, encoder = method.read(Stored(tensors, initial))
    found = {name: list(tensor.shape) for name, tensor in tensors.items()}
    if found != values.shapes:
        raise UserError(f"{what}: {WEIGHTS} holds {_told(found)}, its record says {_told(values.shapes)}")
    adaptation = of_record(
        values, tensors, initial, encoder, _read_sealed(folder / EMBEDDING), _read_head(folder, values.head)
    )
    if adaptation.digest != values.digest and small:
        raise UserError(
            f"{what} was changed after it was written, or its vectors are made otherwise here (their digest differs): "
            f"train it again"
        )
    if adaptation.digest != values.digest:
        raise UserError(
            f"{what} was changed after it was written (its digest differs): train it again, or take the "
            f"vectors of a prompt as they are with `prompttransfer import {folder}/{WEIGHTS}`"
        )
    return adaptation


def of_record(
    values: AdaptationRecord,
    tensors: Mapping[str, Tensor],
    initial: Mapping[str, Tensor] | None = None,
    encoder: Mapping[str, Tensor] | None = None,
    embedding: Mapping[str, Tensor] | None = None,
    head: Head | None = None,
) -> Adaptation:
    """The adaptation of a record and its tensors, whose digest is not looked at."""
    return Adaptation(
        method=method_of(values),
        tensors=tensors,
        origin=Origin(**values.origin.model_dump()),
        encoding=Encoding(**values.encoding.model_dump()),
        name=values.name,
        initial=initial,
        encoder=encoder or {},
        embedding=embedding,
        scores=values.scores,
        curve=tuple(point.point for point in values.curve),
        notes=values.notes,
        head=head,
    )


def method_of(values: AdaptationRecord) -> Method:
    """The method of a record. Raises UserError for one that is unknown here."""
    return make_method(values.method.name, values.method.model_dump(exclude={"name"}))


def _told(shapes: Mapping[str, list[int]]) -> str:
    """Shapes in few words."""
    if set(shapes) == {PROMPT_KEY}:
        return str(shapes[PROMPT_KEY])
    return shortened(", ".join(f"{name} {shape}" for name, shape in sorted(shapes.items()))) or "nothing"


def find_adaptations(folder: Path) -> list[Path]:
    """Folders of adaptations directly in `folder`, sorted by name; `folder` itself if it is one."""
    if holds_one(folder):
        return [folder]
    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder: give a prompt folder, or a folder of prompt folders")
    # One after the other, since a glob passes over what it may not look into; hidden ones are being written.
    inside = sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    found = [path for path in inside if holds_one(path)]
    if not found:
        raise UserError(
            f"no prompt in {folder}: a prompt folder holds {MARKER}; train one with `prompttransfer train`"
        )
    return found


def read_record(folder: Path) -> AdaptationRecord:
    """The record of an adaptation's folder, checked; one of format 1 as it would be written today."""
    path = next((folder / name for name in MARKERS if (folder / name).exists()), None)
    if path is None:
        hint = (
            "`prompttransfer import` reads prompts of other systems" if folder.exists() else "no such folder"
        )
        raise UserError(f"{folder} is not a prompt folder (no {MARKER} in it): {hint}")
    value = read_json(path, "prompt record")
    wanted = FORMAT if path.name == MARKER else 1
    if isinstance(value, dict) and isinstance(value.get("format"), int) and value["format"] != wanted:
        raise UserError(
            f"{path} is of format {value['format']}, this version reads {wanted}: use a newer prompttransfer"
        )
    found: AdaptationRecord | PromptRecord
    if path.name == MARKER:
        found = checked(AdaptationRecord, value, str(path))
    else:
        found = checked(PromptRecord, value, str(path))
    safe_name(found.name, f"{path}: prompt name")
    return found.as_adaptation() if isinstance(found, PromptRecord) else found


def _read_weights(path: Path) -> dict[str, Tensor]:
    try:
        return dict(read_tensors(path, WHAT).tensors)
    except MissingError:
        raise UserError(f"{path} is missing: the adaptation is incomplete") from None


def _read_sealed(path: Path) -> dict[str, Tensor] | None:
    """The tensors of a file that need not be there."""
    if not path.exists():
        return None
    tensors = dict(read_sealed(path, WHAT, "train it again").tensors)
    check_tensors(tensors, str(path))
    return tensors


def _read_head(folder: Path, said: HeadRecord | None) -> Head | None:
    """The head that a record names."""
    if said is None:
        return None
    tensors = _read_sealed(folder / HEAD)
    if tensors is None or digest_tensors(tensors) != said.digest:
        wrong = "is missing" if tensors is None else "is not the one that the record names"
        raise UserError(f"{folder / HEAD} {wrong}: bring it back, or train again")
    return head_of(Classes(tuple(said.labels), said.form), tensors)


def record(adaptation: Adaptation) -> AdaptationRecord:
    """What `adaptation.json` says."""
    method = {"name": adaptation.method.name, **adaptation.method.settings()}
    return AdaptationRecord(
        format=FORMAT,
        name=adaptation.name,
        method=MethodRecord(**json.loads(json.dumps(method))),
        origin=OriginRecord(**_plain(asdict(adaptation.origin))),
        encoding=EncodingRecord(**asdict(adaptation.encoding)),
        shapes={name: list(tensor.shape) for name, tensor in sorted(adaptation.tensors.items())},
        scores=dict(adaptation.scores),
        curve=[PointRecord(**asdict(point)) for point in adaptation.curve],
        digest=adaptation.digest,
        versions=library_versions(),
        notes=dict(adaptation.notes),
        head=None
        if adaptation.head is None
        else HeadRecord(
            labels=list(adaptation.head.classes.labels),
            form=adaptation.head.classes.form,
            digest=digest_tensors(adaptation.head.tensors()),
        ),
    )


def _plain(values: Mapping[str, Any]) -> dict[str, Any]:
    return {key: dict(value) if isinstance(value, Mapping) else value for key, value in values.items()}


def library_versions() -> dict[str, str]:
    """Versions of what computes, for the records of results."""
    names = ("prompttransfer", "torch", "transformers", "lightning")
    found = {name: _version(name) for name in names}
    return {"python": platform.python_version(), **found}


@cache
def _version(name: str) -> str:
    try:
        return version(name)
    except Exception:
        return "not installed as a package"


def peft_config(adaptation: Adaptation) -> dict[str, Any] | None:
    """`adapter_config.json`: what PEFT needs to run the adaptation; None where it has no such method.

    PEFT has no task type for a masked LM, and without one it ignores a prompt silently; FEATURE_EXTRACTION hands
    the prompt to whatever model it wraps. One submodule keeps PEFT from adding rows for T5's decoder. The revision is
    the commit of a backbone of the hub, which PEFT then loads.
    """
    own = adaptation.method.peft_config(family=adaptation.family, tensors=adaptation.tensors)
    if own is None:
        return None
    return {
        **own,
        "task_type": TASK_TYPES[adaptation.family],
        "base_model_name_or_path": adaptation.backbone,
        "revision": adaptation.revision if is_commit(adaptation.revision) else None,
        "inference_mode": True,
    }


TASK_TYPES = {"masked-lm": "FEATURE_EXTRACTION", "t5": "SEQ_2_SEQ_LM", "causal-lm": "CAUSAL_LM"}
"""Family -> PEFT's task type."""


def _write(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")
