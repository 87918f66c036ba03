"""What the files of finished cells say, checked: a digest proves that they are as they were written, not by whom.

A record names what is read of it; what a later version adds is kept.
"""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import BaseModel, ConfigDict, Field

from tasks.documents import checked, read_json_object, read_text, shortened
from tasks.errors import UserError

SCORE, TUNED, REPORT, TRIED = "score.json", "tuned.json", "report.csv", "tried.json"


MOST = 2**63 - 1
"""What a table's column of whole numbers holds."""


class _Content(BaseModel):
    model_config = ConfigDict(extra="allow")


class ScoreContent(_Content):
    """`score.json` of a prompt."""

    task: str
    metric: str
    rows: int = Field(ge=0, le=MOST)
    value: float
    chance: float
    prompt: str
    prompt_task: str
    seed: int | None = Field(default=None, ge=-MOST, le=MOST)
    calibrated: float = 0.0


class ReferencesContent(_Content):
    """`score.json` of the rows without a trained prompt."""

    task: str
    metric: str
    rows: int = Field(ge=0, le=MOST)
    references: dict[str, float]
    calibrated_references: dict[str, float] = Field(default={}, alias="calibrated references")


class TunedContent(_Content):
    """`tuned.json`."""

    source: str
    target: str
    seed: int = Field(ge=-MOST, le=MOST)
    step0_validation: float
    test_from_source: float
    test_from_scratch: float
    chance: float
    steps_to_converge_from_source: int
    steps_to_converge_from_scratch: int
    steps_to_scratch_score: int | None
    convergence_speedup: float | None
    comparable_speedup: float | None


class TriedRun(_Content):
    """One run in `tried.json`."""

    setting: dict[str, str]
    start: str
    validation: float
    steps: int = Field(ge=0, le=MOST)
    ended: str
    chosen: bool
    curve: list[tuple[int, float]] = Field(min_length=1)


class TriedContent(_Content):
    """`tried.json` of a cell that tried several settings or starts."""

    tried: list[TriedRun] = Field(min_length=1)


class ReportLine(NamedTuple):
    """One line of a projector's `report.csv`."""

    task: str
    group: str
    condition: str
    value: float
    draw: int


def read_score(folder: Path) -> dict[str, Any]:
    """`score.json` in the folder of a cell."""
    path = folder / SCORE
    found = read_json_object(path, "score")
    if "references" not in found:
        return _plain(checked(ScoreContent, found, str(path)))
    from prompttransfer.transfers.matrix import (
        REFERENCE_ROWS,  # torch, which most of a study's commands do without
    )

    record = checked(ReferencesContent, found, str(path))
    if unknown := sorted({*record.references, *record.calibrated_references} - set(REFERENCE_ROWS)):
        raise UserError(
            f"{path} has the row {shortened(unknown[0])!r}, which this version does not know: use the version that "
            "wrote it"
        )
    return _plain(record)


def _plain(record: BaseModel) -> dict[str, Any]:
    """What was given, in the types of the record."""
    return record.model_dump(by_alias=True, exclude_unset=True)


def read_tuned(folder: Path) -> dict[str, Any]:
    """`tuned.json` in the folder of a cell."""
    found = read_json_object(folder / TUNED, "result")
    return _plain(checked(TunedContent, found, str(folder / TUNED)))


def read_tried(folder: Path) -> list[TriedRun]:
    """`tried.json` in the folder of a cell; nothing where it has none."""
    path = folder / TRIED
    if not path.exists():
        return []
    return checked(TriedContent, read_json_object(path, "list of what was tried"), str(path)).tried


def read_projector_report(folder: Path) -> list[ReportLine]:
    """`report.csv` in the folder of a projector."""
    path = folder / REPORT
    lines = []
    try:
        for line in csv.DictReader(io.StringIO(read_text(path, "report"))):
            lines.append(
                ReportLine(
                    line["task"],
                    line["group"],
                    line["condition"],
                    float(line["value"] or "nothing"),
                    int(line["draw"]),
                )
            )
    except (csv.Error, KeyError, ValueError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(
            f"{path} is damaged: it needs task, group, condition and a number in every line ({shortened(str(error))})"
        ) from None
    return lines
