"""Tracking: learning curves to TensorBoard, MLflow or CSV files, one run a cell, through Lightning's loggers.

Off unless `local["tracking"]` names a logger. It is told after training, from the curve that is kept with the prompt, so
that a run that was killed and went on is one run with every point once.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prompttransfer.study.cell import Cell, Json
from prompttransfer.study.records import RECORD, CellRecord
from tasks.errors import UserError, unknown

if TYPE_CHECKING:
    from prompttransfer.prompt import Prompt

Where = str
"""Folder, or for MLflow the address of its server."""


def _tensorboard(where: Where, cell: Cell) -> Any:
    from lightning.pytorch.loggers import TensorBoardLogger

    return TensorBoardLogger(where, name=cell.kind, version=cell.id)


def _csv(where: Where, cell: Cell) -> Any:
    from lightning.pytorch.loggers import CSVLogger

    return CSVLogger(where, name=cell.kind, version=cell.id)


def _mlflow(where: Where, cell: Cell) -> Any:
    from lightning.pytorch.loggers import MLFlowLogger

    try:
        return MLFlowLogger("prompttransfer", run_name=f"{cell.label} {cell.id}", tracking_uri=where)
    except ModuleNotFoundError as error:
        raise UserError("tracking by mlflow needs the package mlflow: pip install mlflow-skinny") from error


LOGGERS: dict[str, Callable[[Where, Cell], Any]] = {
    "tensorboard": _tensorboard,
    "csv": _csv,
    "mlflow": _mlflow,
}
"""Name -> Lightning's logger for one cell."""


def check_tracking(name: str | None) -> None:
    """Raise a UserError for a logger that is none."""
    if name is not None and name not in LOGGERS:
        raise unknown("tracking", name, LOGGERS)


def track(cell: Cell, prompt: Prompt, local: Mapping[str, Json]) -> None:
    """Log the settings and the curve of a prompt, if `local["tracking"]` (a list of name and place) asks for it."""
    given = local.get("tracking")
    if not isinstance(given, list):
        return
    name, where = map(str, given)
    check_tracking(name)
    logger = LOGGERS[name](where, cell)
    logger.log_hyperparams({"label": cell.label, "cell": cell.id, **prompt.settings})
    for point in prompt.curve:
        values = {"validation": point.score, "loss": point.loss, "validation_loss": point.validation_loss}
        logger.log_metrics(
            {key: value for key, value in values.items() if value is not None}, step=point.step
        )
    logger.finalize("success")


CURVES = ("prompt",)
"""Kinds that log a curve themselves, as their one run."""


def track_record(record: CellRecord, folder: Path, local: Mapping[str, Json]) -> None:
    """Log cost, seconds and the numbers in the JSON files of a cell that was just committed, if `local` asks for it."""
    given = local.get("tracking")
    if not isinstance(given, list) or record.kind in CURVES:
        return
    name, where = map(str, given)
    check_tracking(name)
    values = dict(_numbers("cost", record.cost)) | {"seconds": record.seconds}
    for file in sorted(folder.glob("*.json")):
        if file.name != RECORD:
            values |= dict(_numbers(file.stem, json.loads(file.read_text(encoding="utf-8"))))
    logger = LOGGERS[name](where, record.cell)
    logger.log_hyperparams({"label": record.label, "cell": record.id})
    logger.log_metrics(values, step=0)
    logger.finalize("success")


def _numbers(name: str, value: Any) -> Iterator[tuple[str, float]]:
    """`score/references/majority` -> 0.65, for every number below `value` that is not in a list."""
    if isinstance(value, dict):
        for key, below in value.items():
            yield from _numbers(f"{name}/{key}".replace(" ", "_"), below)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield name, float(value)
