"""Tracking: what a study makes, told to TensorBoard, MLflow, W&B or CSV files through Lightning's loggers, one run a cell.

Off unless asked for. The process that runs the study tells it, wherever the cells are made, and only from the files of
cells that are committed: a run that was killed and went on is one run with every point once, and a tracker that fails
costs no result. A cell whose study was killed between its commit and its tracking is not tracked.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from prompttransfer.study.cell import Cell
from prompttransfer.study.engine.records import RECORD, CellRecord
from prompttransfer.training.run_logs import PROJECT, wandb_logger
from tasks.documents import read_json
from tasks.errors import MachineError, UserError, unknown

Where = str
"""Folder, or for MLflow the address of its server or database."""
PACKAGES = {
    "tensorboard": ("tensorboard", "tensorboard"),
    "csv": ("lightning", "lightning"),
    "mlflow": ("mlflow", "'prompttransfer[mlflow]'"),
    "wandb": ("wandb", "'prompttransfer[wandb]'"),
}
"""Tracker -> the module that it needs, and what pip installs it by."""


def _tensorboard(where: Where, cell: Cell) -> Any:
    from lightning.pytorch.loggers import TensorBoardLogger

    return TensorBoardLogger(where, name=cell.kind, version=cell.id, default_hp_metric=False)


def _csv(where: Where, cell: Cell) -> Any:
    from lightning.pytorch.loggers import CSVLogger

    return CSVLogger(where, name=cell.kind, version=cell.id)


def _mlflow(where: Where, cell: Cell) -> Any:
    from lightning.pytorch.loggers import MLFlowLogger

    tags = {"cell": cell.id, "kind": cell.kind}
    return MLFlowLogger(PROJECT, run_name=f"{cell.label} {cell.id}", tracking_uri=where, tags=tags)


def _wandb(where: Where, cell: Cell) -> Any:
    return wandb_logger(Path(where), cell.id, f"{cell.label} {cell.id}")


LOGGERS: dict[str, Callable[[Where, Cell], Any]] = {
    "tensorboard": _tensorboard,
    "csv": _csv,
    "mlflow": _mlflow,
    "wandb": _wandb,
}
"""Name -> Lightning's logger for one cell."""


def check_tracking(name: str | None, where: Where | None = None) -> None:
    """Raise a UserError for a tracker that is none or not installed, or for a place without a tracker."""
    if name is None:
        if where is not None:
            raise UserError(f"--track-to {where} needs --track: {', '.join(LOGGERS)}")
        return
    if name not in LOGGERS:
        raise unknown("tracking", name, LOGGERS)
    module, package = PACKAGES[name]
    if find_spec(module) is None:
        raise UserError(f"tracking by {name} needs the package {module}: pip install {package}")


@dataclass
class Tracker:
    """Tells one tracker about cells; when it fails once, it says so and is silent from then on."""

    name: str
    where: Where
    say: Callable[[str], None]
    stopped: str = ""
    """Why it is silent, if it is."""

    def log(self, record: CellRecord, folder: Path) -> None:
        """Log settings, curve, cost and numbers of a cell whose files lie in `folder`."""
        if self.stopped:
            return
        settings = dict(_flat("", {"label": record.label, "cell": record.id, **record.settings}))
        try:
            points = points_of(record, folder)
            logger = LOGGERS[self.name](self.where, record.cell)
            logger.log_hyperparams(settings)
            for step, values in points.items():
                logger.log_metrics(values, step=step)
            logger.finalize("success")
            if self.name == "wandb":
                logger.experiment.finish()  # Lightning leaves the run open
        except Exception as error:  # a tracker may raise anything; the study does not depend on it
            self.stopped = f"tracking by {self.name} stopped at {record.label!r}: {_line(error)}"
            self.say(f"{self.stopped}; the study goes on without it")


def open_tracker(name: str, where: Where, say: Callable[[str], None]) -> Tracker:
    """A tracker that answers: its folder is made, its server was asked; MachineError where that fails."""
    check_tracking(name)
    try:
        if name == "mlflow":
            _make_experiment(where)
        elif "://" not in where:
            Path(where).mkdir(parents=True, exist_ok=True)
    except Exception as error:  # see Tracker.log
        raise MachineError(f"tracking by {name} does not work at {where}: {_line(error)}") from error
    return Tracker(name, where, say)


def _make_experiment(where: Where) -> None:
    """Make the experiment, if it is not there, before several runs would make it at once."""
    # MLflow refuses folders, whose format it no longer extends, until it is told that one is meant.
    if where.startswith("file:") or "://" not in where:
        os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
    # By default MLflow asks a server that is away again for minutes.
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
    from mlflow.tracking import MlflowClient

    client = MlflowClient(where)
    if client.get_experiment_by_name(PROJECT) is None:
        client.create_experiment(PROJECT)


def _line(error: Exception) -> str:
    """The first line of what an error says."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def points_of(record: CellRecord, folder: Path) -> dict[int, dict[str, float]]:
    """Step -> values: the curve of a prompt; at its end the cost, the seconds and the numbers in the cell's JSON files."""
    points = _curve(folder) if record.kind == "prompt" else {}
    last = points.setdefault(max(points, default=0), {})
    last |= dict(_numbers("cost", record.cost)) | {"seconds": record.seconds}
    for file in sorted(folder.glob("*.json")):
        if file.name != RECORD:
            last |= dict(_numbers(file.stem, read_json(file, "result")))
    return points


def _curve(folder: Path) -> dict[int, dict[str, float]]:
    from prompttransfer.adaptations.artifacts import load_adaptation
    from prompttransfer.study.kinds.loading import PROMPT

    points = {}
    for point in load_adaptation(folder / PROMPT).curve:
        values = {"validation": point.score, "loss": point.loss, "validation_loss": point.validation_loss}
        points[point.step] = {key: value for key, value in values.items() if value is not None}
    return points


def _numbers(name: str, value: Any) -> Iterator[tuple[str, float]]:
    """`score/references/majority` -> 0.65, for every number below `value` that is not in a list."""
    for key, below in _flat(name, value):
        if isinstance(below, int | float) and not isinstance(below, bool):
            yield key.replace(" ", "_"), float(below)


def _flat(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    """Everything below `value` that is no dict, under names that every tracker takes."""
    if isinstance(value, dict):
        for key, below in value.items():
            own = re.sub(r"[^\w. -]", "_", str(key), flags=re.ASCII)
            yield from _flat(f"{name}/{own}" if name else own, below)
    else:
        yield name, value
