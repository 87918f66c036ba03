"""Logs of training runs under `<output>/logs`: one folder a run, however often it was killed and started again.

A run is known by the key of its training state. The same command finds its folder `version_N` again, empties it and writes every point
anew from the curve in the training state (training/loop.py), so that no point stands twice; another run gets the next N.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from prompttransfer.adaptations.artifacts import holds_one
from prompttransfer.files import disk_errors, write_text
from tasks.errors import UserError, unknown

RUN = "run.txt"
"""The file in a log's folder that says of which run it is."""


def _csv(folder: Path, name: str, version: int, run: str) -> Any:
    from lightning.pytorch.loggers import CSVLogger

    return CSVLogger(folder, name=name, version=version, flush_logs_every_n_steps=1)


def _tensorboard(folder: Path, name: str, version: int, run: str) -> Any:
    from lightning.pytorch.loggers import TensorBoardLogger

    return TensorBoardLogger(folder, name=name, version=version)


def _wandb(folder: Path, name: str, version: int, run: str) -> Any:
    return wandb_logger(folder / name / f"version_{version}", run, f"{folder.name} {version}")


LOGGERS: dict[str, Callable[[Path, str, int, str], Any]] = {
    "csv": _csv,
    "tensorboard": _tensorboard,
    "wandb": _wandb,
}
KINDS = (*LOGGERS, "none")
PROJECT = "prompttransfer"
"""Name of the project of W&B, and of the experiment of MLflow, that all runs belong to."""


def wandb_logger(folder: Path, run: str, name: str) -> Any:
    """Lightning's logger of W&B for the run whose id is `run`, which goes on where it was; its files lie in `folder`.

    Where the run goes is for W&B's own settings: an account, or WANDB_MODE=offline for files alone.
    """
    from lightning.pytorch.loggers import WandbLogger

    folder.mkdir(parents=True, exist_ok=True)
    # A run of its own even where another is open in this process, as in a sweep of several banks.
    return WandbLogger(
        name=name, save_dir=folder, project=PROJECT, id=run, resume="allow", reinit="create_new"
    )


def check_logger(kind: str) -> None:
    """Raise UserError for a logger that is none, or whose package is not installed, before any work begins."""
    if kind not in KINDS:
        raise unknown("logger", kind, KINDS)
    if kind == "wandb" and find_spec("wandb") is None:
        raise UserError("--logger wandb needs the package wandb: pip install 'prompttransfer[wandb]'")


def open_logs(kind: str, output: Path, prompts: Collection[str], run: str) -> list[Any]:
    """Lightning's logger, in a list, for the run of `prompts` (names) whose key is `run`; an empty list for `none`.

    An older log of the same run is emptied. Raises MachineError where the disk refuses.
    """
    check_logger(kind)
    if kind == "none":
        return []
    logs = output / log_folder(output, prompts)
    version = _version(logs, run)
    place = logs / f"version_{version}"
    with disk_errors(place):
        for old in place.glob("*"):
            if old.name in ("metrics.csv", "hparams.yaml") or old.name.startswith("events.out.tfevents."):
                old.unlink()
        write_text(place / RUN, run + "\n")
    return [LOGGERS[kind](output, logs.name, version, run)]


def log_folder(output: Path, prompts: Collection[str]) -> str:
    """`logs`, unless a prompt of that name lies or will lie there; no prompt's name begins with `_`."""
    taken = "logs" in prompts or holds_one(output / "logs")
    return "_logs" if taken else "logs"


def _version(logs: Path, run: str) -> int:
    """The number of the run's own log, or the next that is free."""
    found = {}
    for path in logs.glob("version_*"):
        if (number := re.fullmatch(r"version_(\d+)", path.name)) is not None:
            found[int(number[1])] = path / RUN
    own = [
        n for n, file in found.items() if file.is_file() and file.read_text(errors="replace").strip() == run
    ]
    return min(own) if own else max(found, default=-1) + 1
