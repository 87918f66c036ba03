"""What a transfer leaves in its folder: matrices, record, tuned pairs and prompts."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    from prompttransfer.backbones.base import Backbone
    from prompttransfer.training.train import Trained
    from prompttransfer.transfers.distilled_pairs import DistilledPair
    from prompttransfer.transfers.matrix import TransferMatrix
    from prompttransfer.transfers.tuned_pairs import TunedPair
    from prompttransfer.transfers.zero_shot import Target
    from tasks.task import Task


MARKER = "transfer.json"


FILES = (
    MARKER,
    "transfer.csv",
    "transfer_random.csv",
    "transfer_relative.csv",
    "transfer_calibrated.csv",
    "tuned.csv",
    "distilled.csv",
    "prompts",
    "settings.json",
)
"""What the folder of a transfer holds of ours; all else in it is the user's and stays."""


def record_of(
    model: Backbone,
    matrix: TransferMatrix,
    tasks: Sequence[Task],
    targets: Sequence[Target],
    pairs: Sequence[TunedPair],
    distilled: Sequence[DistilledPair] = (),
    notes: Sequence[str] = (),
) -> dict[str, Any]:
    """What `transfer.json` says."""
    from prompttransfer.adaptations.artifacts import library_versions

    return {
        "backbone": model.name,
        "revision": model.revision,
        "types": {task.name: task.type for task in tasks},
        "data": {t.task.name: {"source": t.splits.source, "revision": t.splits.revision} for t in targets},
        "split": "test (the official validation split)",
        "raw": matrix.as_dict(),
        "relative": matrix.relative().as_dict() if matrix.has_own else None,
        **({"calibrated": matrix.calibrated.as_dict()} if matrix.calibrated else {}),
        "tuned": [pair.as_dict() for pair in pairs],
        **({"distilled": [pair.as_dict() for pair in distilled]} if distilled else {}),
        **({"notes": list(notes)} if notes else {}),
        "versions": library_versions(),
    }


def write_transfer(
    folder: Path,
    matrix: TransferMatrix,
    record: dict[str, Any],
    pairs: Sequence[TunedPair],
    trained: Sequence[Trained],
    distilled: Sequence[DistilledPair] = (),
) -> None:
    """Write matrices, record, figures and tuned prompts into a folder."""
    from prompttransfer.adaptations.artifacts import save_adaptation
    from prompttransfer.files import write_json, write_text

    write_text(folder / "transfer.csv", matrix.to_csv())
    if matrix.random_draws:
        write_text(folder / "transfer_random.csv", matrix.random_csv())
    if matrix.has_own:
        write_text(folder / "transfer_relative.csv", matrix.relative().to_csv())
    if matrix.calibrated is not None:
        write_text(folder / "transfer_calibrated.csv", matrix.calibrated.to_csv())
    write_json(folder / MARKER, record)
    if pairs:
        write_text(folder / "tuned.csv", pairs_csv(pairs))
    if distilled:
        write_text(folder / "distilled.csv", pairs_csv(distilled))
    for run in trained:
        save_adaptation(run.adaptation, folder / "prompts" / run.adaptation.name)


def pairs_csv(pairs: Sequence[TunedPair] | Sequence[DistilledPair]) -> str:
    """One line a pair of source and target."""
    stream = io.StringIO()
    rows = [pair.as_dict() for pair in pairs]
    writer = csv.DictWriter(stream, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return stream.getvalue()
