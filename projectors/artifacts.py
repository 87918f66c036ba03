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

from pydantic import BaseModel, ConfigDict, ValidationError
from torch import nn

from projectors.anchors import AnchorSearch, AnchorSettings
from projectors.architectures import Architecture, Shape, build
from projectors.closed_form import Combination
from projectors.projector import Projector, Side
from prompttransfer.artifacts import versions
from prompttransfer.files import atomic_folder
from prompttransfer.outputs import keep_others
from prompttransfer.sealed import read_sealed, write_sealed
from tasks.errors import MachineError, UserError

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


class ProjectorRecord(BaseModel):
    """`projector.json`, checked because it comes from outside."""

    model_config = ConfigDict(extra="forbid")

    format: int
    source: SideRecord
    target: SideRecord
    method: str
    architecture: dict[str, Any]
    settings: dict[str, Any]
    tasks: list[str]
    seed: int
    curve: list[float]
    scores: dict[str, Any]
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
    architecture = Architecture(**record.architecture)
    module = rebuild(record.method, architecture, shape, record.settings)
    try:
        module.load_state_dict(read_sealed(folder / WEIGHTS, "projector file", "fit it again").tensors)
    except RuntimeError as error:
        if isinstance(error, MachineError):
            raise
        line = str(error).strip().splitlines()[0]
        raise UserError(
            f"{folder / WEIGHTS} does not hold the weights that {MARKER} describes: {line}"
        ) from error
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
    if not path.exists():
        raise UserError(
            f"{folder} is not a projector folder (no {MARKER} in it): make one with `prompttransfer project fit`"
        )
    try:
        return ProjectorRecord.model_validate_json(path.read_bytes())
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"]) or "the file"
        raise UserError(f"{path} is damaged: {place}: {first['msg']}") from error


def rebuild(method: str, architecture: Architecture, shape: Shape, settings: dict[str, Any]) -> nn.Module:
    """The empty module that weights of this method and architecture are loaded into."""
    if method == "combination":
        return Combination(shape, architecture.words, architecture.rank)
    if method == "anchors":
        return AnchorSearch(shape, architecture.words, AnchorSettings(**settings))
    return build(architecture, shape)


def to_record(projector: Projector) -> ProjectorRecord:
    """What `projector.json` says of a projector."""
    return ProjectorRecord(
        format=FORMAT,
        source=SideRecord(**asdict(projector.source)),
        target=SideRecord(**asdict(projector.target)),
        method=projector.method,
        architecture=asdict(projector.architecture),
        settings=dict(projector.settings),
        tasks=list(projector.tasks),
        seed=projector.seed,
        curve=list(projector.curve),
        scores=dict(projector.scores),
        sensitivity=dict(projector.sensitivity),
        collapsed=projector.collapsed,
        verdict=projector.verdict,
        digest=digest(projector.module),
        versions=versions(),
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
