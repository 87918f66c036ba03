"""What lies in a run's folder: the transfer matrix, prompts, indicators, neuron states, curves, projectors.

Files are known by their names and marks, wherever in the folder the commands were told to write them, so that the
demo's layout (RUN/prompts, RUN/transfer, RUN/compare, ...) is a habit and not a rule.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import pandas as pd
from pydantic import BaseModel, BeforeValidator, ConfigDict, model_validator

from analysis.matrices import check_names, parse_long_table, parse_matrix
from projectors.public_report import TABLE as PUBLIC_TABLE
from prompttransfer.adaptations import artifacts
from prompttransfer.transfers.distilled_pairs import DistilledPair
from prompttransfer.transfers.tuned_pairs import TunedPair, TunedScores, by_fields
from tasks.documents import checked, read_json, read_text, shortened
from tasks.errors import UserError

MATRIX, MATRIX_TABLE = "transfer.json", "transfer.csv"
DEPTH = 3
"""Folders below the run's own that are looked into."""


class MatrixRecord(BaseModel):
    """The values of a matrix in `transfer.json`, null where a cell cannot be."""

    model_config = ConfigDict(extra="ignore")

    sources: list[str]
    source_tasks: list[str]
    targets: list[str]
    values: list[list[float | None]]
    metrics: list[str] = []
    rows: list[int] = []
    impossible: dict[str, str] = {}
    impossible_cells: dict[str, dict[str, str]] = {}
    methods: list[str] = []
    calibration: str = ""
    random_draws: int = 0
    random_spread: list[float | None] = []
    in_context: str = ""
    in_context_spread: list[float | None] = []


def _pair(record: Any) -> Any:
    return by_fields(record) if isinstance(record, dict) else record


class TransferRecord(BaseModel):
    """`transfer.json`, checked because it comes from outside."""

    model_config = ConfigDict(extra="ignore")

    backbone: str = ""
    revision: str = ""
    types: dict[str, str] = {}
    data: dict[str, dict[str, Any]] = {}
    split: str = ""
    raw: MatrixRecord
    calibrated: MatrixRecord | None = None
    tuned: list[Annotated[TunedPair | TunedScores, BeforeValidator(_pair)]] = []
    distilled: list[DistilledPair] = []
    notes: list[str] = []
    versions: dict[str, str] = {}

    @model_validator(mode="after")
    def _check_labels(self) -> TransferRecord:
        raw = self.raw
        for side, labels in (("source", raw.sources), ("target", raw.targets)):
            check_names(labels, side)
            if twice := [label for label, count in Counter(labels).items() if count > 1]:
                raise ValueError(f"{side} {shortened(twice[0])!r} stands twice")
        for name, given in (("metrics", raw.metrics), ("rows", raw.rows)):
            if given and len(given) != len(raw.targets):
                raise ValueError(f"{len(given)} {name} for {len(raw.targets)} targets")
        return self


@dataclass(frozen=True)
class RunFolder:
    """Where everything of a run is."""

    root: Path
    matrix: Path
    prompts: tuple[Path, ...] = ()
    """Folders of trained prompts; those that a tuned transfer wrote are apart."""
    tuned_prompts: tuple[Path, ...] = ()
    indicators: Mapping[str, Path] = field(default_factory=dict)
    """Name -> square CSV."""
    layer_files: tuple[Path, ...] = ()
    """CSVs over some layers only, which are left to `plot layers` and `correlate`."""
    states: tuple[Path, ...] = ()
    masking: tuple[Path, ...] = ()
    projectors: tuple[Path, ...] = ()
    public: tuple[Path, ...] = ()
    """Tables of prompts that were carried by public text."""


def find_run(root: Path) -> RunFolder:
    """Look through a run's folder; a UserError where there is no folder, no matrix, or more than one."""
    if not root.is_dir():
        raise UserError(f"{root} is not a folder: give the folder of a run, such as runs/demo")
    files = sorted(_files(root, DEPTH))
    matrix = _matrix(root, files)
    prompts = [path.parent for path in files if path.name in artifacts.MARKERS]
    tuned = [path for path in prompts if matrix.parent in path.parents and matrix.parent != root]
    squares = [path for path in files if _is_indicator(path, files)]
    whole = [path for path in squares if "_layers-" not in path.stem]
    return RunFolder(
        root=root,
        matrix=matrix,
        prompts=tuple(path for path in prompts if path not in tuned),
        tuned_prompts=tuple(tuned),
        indicators=_named(whole, root),
        layer_files=tuple(path for path in squares if path not in whole),
        states=tuple(
            path for path in files if path.suffix == ".safetensors" and path.name.startswith("states")
        ),
        masking=tuple(path for path in files if path.suffix == ".csv" and path.name.startswith("masking")),
        projectors=tuple(path.parent for path in files if path.name == "projector.json"),
        public=tuple(path for path in files if path.name == PUBLIC_TABLE),
    )


def _files(folder: Path, depth: int) -> Iterator[Path]:
    """Files of a folder and of those below it, hidden ones left out."""
    for path in folder.iterdir():
        if path.name.startswith("."):
            continue
        if path.is_file():
            yield path
        elif path.is_dir() and depth:
            yield from _files(path, depth - 1)


def _matrix(root: Path, files: list[Path]) -> Path:
    """The one matrix of the run: beside the root, in its folder `transfer`, or the only one there is."""
    for name in (MATRIX, MATRIX_TABLE):
        found = [path for path in files if path.name == name]
        usual = [path for path in (root / name, root / "transfer" / name) if path in found]
        if usual or len(found) == 1:
            return (usual or found)[0]
        if found:
            places = ", ".join(str(path.parent) for path in found[:5])
            raise UserError(
                f"{root} holds {len(found)} transfer matrices ({places}): give the folder of one of them"
            )
    raise UserError(
        f"no transfer matrix ({MATRIX}) in {root}: make one with "
        f"`prompttransfer transfer PROMPTS --to TASKS --output {root / 'transfer'}`"
    )


def _is_indicator(path: Path, files: list[Path]) -> bool:
    if path.suffix != ".csv":
        return False
    return path.name.startswith("similarity_") or path.with_name("recommend.json") in files


def _named(paths: list[Path], root: Path) -> dict[str, Path]:
    """Files by the metric that they are named after, those of `recommend` marked so; by place where two share a name."""
    names = [
        path.stem.removeprefix("similarity_")
        if path.name.startswith("similarity_")
        else f"recommend: {path.stem}"
        for path in paths
    ]
    return {
        name if names.count(name) == 1 else str(path.relative_to(root)): path
        for name, path in zip(names, paths, strict=True)
    }


def read_transfer(path: Path) -> TransferRecord:
    """The record of a matrix; a bare CSV has the matrix alone."""
    if path.suffix == ".csv":
        table = read_square(path)
        values = [[None if v != v else float(v) for v in row] for row in table.to_numpy()]
        labels = [str(row) for row in table.index]
        raw = MatrixRecord(
            sources=labels, source_tasks=labels, targets=list(map(str, table.columns)), values=values
        )
        return TransferRecord(raw=raw)
    record = checked(TransferRecord, read_json(path, "transfer matrix"), str(path))
    for matrix in filter(None, (record.raw, record.calibrated)):
        _check_shape(matrix, path)
    if record.calibrated and (record.calibrated.sources, record.calibrated.targets) != (
        record.raw.sources,
        record.raw.targets,
    ):
        raise UserError(
            f"{path}: the calibrated matrix has other sources or targets than the raw one; run `prompttransfer transfer` again"
        )
    return record


def _check_shape(matrix: MatrixRecord, path: Path) -> None:
    count = len(matrix.sources)
    fits = len(matrix.values) == count == len(matrix.source_tasks)
    if not fits or any(len(row) != len(matrix.targets) for row in matrix.values):
        raise UserError(
            f"{path}: the values do not fit {count} sources x {len(matrix.targets)} targets; "
            f"run `prompttransfer transfer` again"
        )


def read_square(path: Path) -> pd.DataFrame:
    """An indicator, or a matrix without its record, as a table."""
    return parse_matrix(read_text(path, "table"), str(path))


def read_long(path: Path) -> pd.DataFrame:
    """A table with one observation a row, under named columns."""
    return parse_long_table(read_text(path, "table"), str(path))
