"""Projectors on disk: one folder each, written whole or not at all.

projector.safetensors   the module's parameters and buffers
projector.json          both backbones, method, architecture, fitting tasks, loss curve, scores, controls, digest
README.md               card; says in its first lines whether the projector is collapsed
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from projectors.anchors import AnchorSearch, AnchorSettings
from projectors.architectures import Architecture, Shape, build
from projectors.closed_form import Combination
from projectors.projector import Projector, Side
from prompttransfer.adaptations.artifacts import library_versions
from prompttransfer.files import atomic_folder
from prompttransfer.outputs import keep_others
from prompttransfer.sealed import read_sealed, write_sealed
from tasks.documents import checked, read_json, shortened
from tasks.errors import MissingError, UserError

FORMAT = 1
MARKER = "projector.json"
WEIGHTS = "projector.safetensors"
FILES = (MARKER, WEIGHTS, "README.md", "report.csv", "settings.json")
"""What a projector's folder holds of ours; all else in it is the user's and stays."""


class SideRecord(BaseModel):
    """One side in `projector.json`."""

    model_config = ConfigDict(extra="forbid")

    backbone: str
    revision: str
    family: str
    layout: str
    length: int
    width: int


class ArchitectureRecord(BaseModel):
    """`Architecture` in `projector.json`."""

    model_config = ConfigDict(extra="forbid")

    name: str = "mlp"
    hidden: int = 768
    rank: int = 64
    activation: str = "leaky-relu"
    words: int = Field(default=0, ge=0)
    standardise: bool = False
    bias: bool = True


class AnchorRecord(BaseModel):
    """`AnchorSettings` in `projector.json`."""

    model_config = ConfigDict(extra="forbid")

    keep: int
    steps: int
    lr: float
    every: int
    seed: int


class EntryRecord(BaseModel):
    """One row of the report's table in `projector.json`."""

    model_config = ConfigDict(extra="allow")

    mean: float
    spread: float
    seeds: int = 1
    tasks: int = 1


class ProjectorRecord(BaseModel):
    """`projector.json`, checked because it comes from outside."""

    model_config = ConfigDict(extra="forbid")

    format: int
    source: SideRecord
    target: SideRecord
    method: str
    architecture: ArchitectureRecord
    settings: dict[str, Any]
    tasks: list[str]
    seed: int
    curve: list[float]
    scores: dict[str, dict[str, EntryRecord]]
    sensitivity: dict[str, float]
    collapsed: bool | None
    verdict: str
    digest: str
    versions: dict[str, str]


def save_projector(projector: Projector, folder: Path, *, extra: Mapping[str, str] | None = None) -> Path:
    """Write a projector to `folder` (replaced if it holds a projector already) and return it.

    `extra`: file name -> text of what belongs beside it, such as the cells of its report.
    """
    with atomic_folder(folder, marker=MARKER) as temporary:
        write_sealed(temporary / WEIGHTS, projector.module.state_dict())
        record = to_record(projector)
        (temporary / MARKER).write_text(record.model_dump_json(indent=2) + "\n", encoding="utf-8")
        (temporary / "README.md").write_text(card(projector, record.digest), encoding="utf-8")
        for name, text in (extra or {}).items():
            (temporary / name).write_text(text, encoding="utf-8")
        keep_others(folder, temporary, FILES)
    return folder


def load_projector(folder: Path) -> Projector:
    """Read a projector that `save_projector` wrote, bit for bit.

    Raises UserError when the folder is none, a file is missing or cut short, or the weights are not those written.
    """
    folder = Path(folder)
    record = read_record(folder)
    if record.format != FORMAT:
        raise UserError(
            f"{folder / MARKER} has format {record.format}, this version reads {FORMAT}: fit it again"
        )
    source, target = Side(**record.source.model_dump()), Side(**record.target.model_dump())
    shape = Shape(source.length, source.width, target.length, target.width)
    architecture = Architecture(**record.architecture.model_dump())
    try:
        tensors = read_sealed(folder / WEIGHTS, "projector file", "fit it again").tensors
    except MissingError:
        raise UserError(f"{folder / WEIGHTS} is missing: the projector is incomplete, fit it again") from None
    _check_fits(folder, record, architecture, shape, tensors)
    module = rebuild(record.method, architecture, shape, record.settings)
    module.load_state_dict(dict(tensors))
    if digest(module) != record.digest:
        raise UserError(
            f"projector {folder} was changed after it was written (its digest differs): fit it again"
        )
    rest = record.model_dump(
        include={"method", "settings", "seed", "scores", "sensitivity", "collapsed", "verdict"}
    )
    return Projector(
        module.eval(),
        source,
        target,
        architecture=architecture,
        tasks=tuple(record.tasks),
        curve=tuple(record.curve),
        **rest,
    )


def read_record(folder: Path) -> ProjectorRecord:
    """`projector.json` of a projector folder, checked."""
    path = folder / MARKER
    try:
        return checked(ProjectorRecord, read_json(path, "projector record"), str(path))
    except MissingError:
        raise UserError(
            f"{folder} is not a projector folder (no {MARKER} in it): make one with `prompttransfer project fit`"
        ) from None


def _check_fits(
    folder: Path,
    record: ProjectorRecord,
    architecture: Architecture,
    shape: Shape,
    tensors: Mapping[str, Tensor],
) -> None:
    """Raise UserError unless the file holds the tensors of the module, which is built without memory to see that."""
    try:
        with torch.device("meta"):
            empty = rebuild(record.method, architecture, shape, record.settings).state_dict()
    except (RuntimeError, TypeError) as error:  # sizes whose product no memory could hold
        raise UserError(f"{folder / MARKER} is damaged: {shortened(str(error))}") from None
    for name in [*empty, *tensors]:
        needed, found = (
            f"{list(side[name].shape)} {side[name].dtype}" if name in side else "nothing"
            for side in (empty, tensors)
        )
        if needed != found:
            raise UserError(
                f"{folder / WEIGHTS} does not fit {MARKER}: {shortened(name)} is {found}, needed is {needed}"
            )


def rebuild(method: str, architecture: Architecture, shape: Shape, settings: dict[str, Any]) -> nn.Module:
    """The empty module that weights of this method and architecture are loaded into."""
    if method == "combination":
        return Combination(shape, architecture.words, architecture.rank)
    if method == "anchors":
        found = checked(AnchorRecord, settings, "settings of an anchor search")
        return AnchorSearch(shape, architecture.words, AnchorSettings(**found.model_dump()))
    return build(architecture, shape)


def to_record(projector: Projector) -> ProjectorRecord:
    """What `projector.json` says of a projector."""
    return ProjectorRecord(
        format=FORMAT,
        source=SideRecord(**asdict(projector.source)),
        target=SideRecord(**asdict(projector.target)),
        method=projector.method,
        architecture=ArchitectureRecord(**asdict(projector.architecture)),
        settings=dict(projector.settings),
        tasks=list(projector.tasks),
        seed=projector.seed,
        curve=list(projector.curve),
        scores=dict(projector.scores),
        sensitivity=dict(projector.sensitivity),
        collapsed=projector.collapsed,
        verdict=projector.verdict,
        digest=digest(projector.module),
        versions=library_versions(),
    )


def digest(module: nn.Module) -> str:
    """sha256 over names and bytes of all parameters and buffers."""
    sha = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        sha.update(name.encode())
        sha.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return sha.hexdigest()


def card(projector: Projector, weights_digest: str) -> str:
    """The card of a projector, Markdown."""
    state = {True: "**Collapsed.** ", False: "", None: ""}[projector.collapsed]
    lines = [
        f"# Projector `{projector.source.backbone}` -> `{projector.target.backbone}`",
        "",
        f"{state}{projector.verdict[:1].upper()}{projector.verdict[1:]}.",
        "",
        f"- takes: prompts of {projector.source}",
        f"- gives: prompts of {projector.target}",
        f"- method `{projector.method}`, architecture `{projector.architecture.name}`, seed {projector.seed}",
        f"- fitted on: {', '.join(projector.tasks) or 'no task (shared words only)'}",
        f"- digest: `{weights_digest}`",
    ]
    if projector.sensitivity:
        said = ", ".join(f"{name} {value:.4g}" for name, value in projector.sensitivity.items())
        lines.append(f"- input sensitivity: {said}")
    for group, conditions in projector.scores.items():
        lines += [
            "",
            f"## Scores, tasks {group}",
            "",
            "| condition | mean | spread over seeds |",
            "|---|---|---|",
        ]
        lines += [
            f"| {name} | {value['mean']:.3f} | {value['spread']:.3f} |" for name, value in conditions.items()
        ]
    return "\n".join(lines) + "\n"
