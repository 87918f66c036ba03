"""A finished `transfer` shown again."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from prompttransfer.cli.transfer_tables import print_transfer
from prompttransfer.transfers.files import MARKER

if TYPE_CHECKING:
    from prompttransfer.reports.run_folder import MatrixRecord
    from prompttransfer.transfers.matrix import TransferMatrix


def finished(output: Path, settings: dict[str, Any]) -> dict[str, Any] | None:
    """The record of the transfer in `output`, if it was made with these settings; None if there is none.

    Raises UserError for one of other settings.
    """
    from prompttransfer.outputs import check_same, settings_in
    from tasks.documents import read_json_object

    if not (output / MARKER).exists():
        return None
    check_same(output, settings_in(output), settings, what="a finished transfer")
    return read_json_object(output / MARKER, "transfer matrix")


def show_finished(record: dict[str, Any], output: Path, kind: str, *, as_json: bool) -> TransferMatrix:
    """Print and return what was made before with the same settings; `kind` is the paper's name for runs from sources."""
    from dataclasses import replace

    from prompttransfer.cli.common import print_json, say
    from prompttransfer.reports.run_folder import read_transfer
    from prompttransfer.transfers.tuned_pairs import TunedPair

    found = read_transfer(output / MARKER)
    matrix = matrix_of(found.raw)
    if found.calibrated is not None:
        second = replace(matrix_of(found.calibrated), meaning="calibrated")
        matrix = replace(matrix, calibrated=second)
    if as_json:
        print_json(record)
        return matrix
    pairs = [pair for pair in found.tuned if isinstance(pair, TunedPair)]
    distilled = found.distilled
    print_transfer(matrix, pairs, distilled, found.notes, kind)
    say(f"made before with the same settings, nothing is left to do; all of it is in {output}")
    return matrix


def matrix_of(record: MatrixRecord) -> TransferMatrix:
    """The matrix that a record holds."""
    import torch

    from prompttransfer.transfers.matrix import TransferMatrix

    nan = float("nan")
    values = [[nan if value is None else value for value in row] for row in record.values]
    return TransferMatrix(
        sources=tuple(record.sources),
        source_tasks=tuple(record.source_tasks),
        targets=tuple(record.targets),
        values=torch.tensor(values, dtype=torch.float64).reshape(len(record.sources), len(record.targets)),
        metrics=tuple(record.metrics),
        rows=tuple(record.rows),
        impossible=record.impossible,
        impossible_cells=record.impossible_cells,
        methods=tuple(record.methods),
        calibration=record.calibration,
        random_draws=record.random_draws,
        random_spread=tuple(nan if value is None else value for value in record.random_spread),
        in_context=record.in_context,
        in_context_spread=tuple(nan if value is None else value for value in record.in_context_spread),
    )
