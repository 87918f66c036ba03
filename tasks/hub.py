"""Rows from the Hugging Face hub, through the `datasets` library and its cache on disk.

A hub out of reach is found out within seconds, before anything heavy is imported; a data set that was loaded before
is then taken from the cache. The commit that was loaded is part of what is returned.
"""

from __future__ import annotations

import contextlib
import os
import re
import threading
from collections.abc import Hashable, Iterator, Mapping
from pathlib import Path
from typing import Any

from tasks.documents import shortened
from tasks.errors import MachineError, UserError
from tasks.rows import example_of, several
from tasks.task import Example, HubSource, Task

PATIENCE = 4.0
"""Seconds to wait for the hub's first answer, looking up its address included."""


class HubRows:
    """The rows of one split, made into examples when they are asked for: hub data sets have up to 550,000.

    `rows[i]` is None for a row to leave out: a label that the task leaves out, or an empty text, which the user of a
    public data set cannot mend.
    """

    def __init__(self, task: Task, source: HubSource, table: Any, where: str) -> None:
        self.task, self.source, self.table, self.where = task, source, table, where
        for name in task.fields:
            column = _column(source, name).split(".")[0]
            if column not in table.column_names:
                raise UserError(
                    f"{where} has no column {column!r} for {name!r} of task {task.name!r}, "
                    f"only {', '.join(table.column_names)}; use --data DIR with files of your own"
                )

    def __len__(self) -> int:
        return len(self.table)

    def __getitem__(self, index: int) -> Example | None:
        row = neutral_row(self.task, self.source, self.table[index], f"{self.where}, row {index}")
        return None if row is None else example_of(self.task, row, f"{self.where}, row {index}")


def read_hub(task: Task) -> tuple[dict[str, HubRows], str]:
    """The rows of train and test (the hub's validation), and the commit they are from."""
    source = task.hub
    if source is None:
        raise UserError(
            f"task {task.name!r} has no data set on the hub that is known for certain: give its rows with --data DIR "
            f"(DIR/{task.name}/train.jsonl and validation.jsonl)"
        )
    tables, revision = tables_of(source, f"for task {task.name!r}")
    where = f"hub {source.repo}" + (f" ({source.config})" if source.config else "")
    splits = {}
    for split, name in (("train", source.train), ("test", source.test)):
        if name not in tables:
            raise UserError(
                f"{where} has no split {name!r}, only {', '.join(tables)}; use --data DIR instead"
            )
        splits[split] = HubRows(task, source, tables[name], f"{where} {name}")
    return splits, revision


def tables_of(source: HubSource, whose: str) -> tuple[Any, str]:
    """The splits of a data set by name, as `datasets` has them, and the commit; `whose` is for messages.

    A folder on disk is one too: what `datasets.load_dataset` reads.
    """
    trouble = None if Path(source.repo).is_dir() else hub_trouble(source)
    if trouble and not _cached(source):
        raise MachineError(_advice(source, whose, trouble))
    with _offline() if trouble else contextlib.nullcontext():
        return _load(source, whose, trouble)


def neutral_row(task: Task, source: HubSource, row: dict[str, Any], where: str) -> dict[str, Any] | None:
    """The row under neutral names and with our label names; None for a row to leave out."""
    neutral: dict[str, Any] = {}
    for name in task.fields:
        neutral[name] = _value(row, _column(source, name), where)
    if "label" in neutral and source.labels:
        value = neutral["label"]
        labels: Mapping[Any, str | None] = source.labels
        if task.separator and isinstance(value, list | str):
            named = [_named(task, labels, each, where) for each in several(task.separator, value, where)]
            neutral["label"] = [label for label in named if label is not None]
        else:
            neutral["label"] = _named(task, labels, value, where)
        if neutral["label"] is None:
            return None
    if task.kind == "summarisation" and isinstance(neutral["document"], list):
        neutral["document"] = _joined(neutral["document"], where)
    may_be_empty = ("label",) if task.separator and neutral["label"] is not None else ()
    needed = [value for name, value in neutral.items() if name not in may_be_empty]
    return None if any(map(_is_empty, needed)) else neutral


def _named(task: Task, labels: Mapping[Any, str | None], value: Any, where: str) -> str | None:
    """The label that a value there stands for; None for one to leave out."""
    if not isinstance(value, Hashable) or value not in labels:
        known = ", ".join(map(str, labels))
        raise UserError(
            f"{where}: label {shortened(repr(value))} is not one of those known for task {task.name!r}: {known}"
        )
    return labels[value]


def _value(row: Any, column: str, where: str) -> Any:
    """What stands in a column, `a.b` for a nested one; None where there is nothing to look into."""
    found = row
    for part in column.split("."):
        if found is None:
            return None
        if not isinstance(found, Mapping) or part not in found:
            inside = ", ".join(map(str, found)) if isinstance(found, Mapping) else type(found).__name__
            raise UserError(
                f"{where}: no {part!r} of column {column!r}, only {shortened(inside) or 'nothing'}; mend the columns of "
                "the task, or use --data DIR with files of your own"
            )
        found = found[part]
    return found


def _joined(parts: list[Any], where: str) -> str:
    if not all(isinstance(part, str) for part in parts):
        raise UserError(
            f"{where}: 'document' is a list with other things than text; mend the columns of the task"
        )
    return " ".join(parts)


def hub_trouble(source: HubSource, patience: float = PATIENCE) -> str | None:
    """Why the hub cannot be asked about a data set now; None when it answered.

    Asked in a thread of its own, because looking up an address knows no time limit. A data set that the hub says
    does not exist is the user's mistake and raised as such.
    """
    from huggingface_hub import HfApi, constants
    from huggingface_hub.errors import HfHubHTTPError, RepositoryNotFoundError, RevisionNotFoundError

    if constants.HF_HUB_OFFLINE:
        return "offline mode is set (HF_HUB_OFFLINE)"
    outcome: list[BaseException | None] = []

    def ask() -> None:
        try:
            HfApi().dataset_info(source.repo, revision=source.revision, timeout=patience)
            outcome.append(None)
        except BaseException as error:  # carried to the caller's thread
            outcome.append(error)

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(patience)
    if not outcome:
        return f"no answer within {patience:.0f} seconds"
    error = outcome[0]
    if isinstance(error, RepositoryNotFoundError | RevisionNotFoundError):
        what = f"revision {source.revision!r} of " if isinstance(error, RevisionNotFoundError) else ""
        raise UserError(
            f"the hub has no {what}data set {source.repo!r} (or it is private or gated); use --data DIR instead"
        ) from error
    if isinstance(error, HfHubHTTPError):
        return f"it answered {getattr(error.response, 'status_code', 'with an error')}"
    return None if error is None else f"{type(error).__name__}: {_first_line(error)}"


def _load(source: HubSource, whose: str, trouble: str | None) -> tuple[Any, str]:
    """The splits by name and the commit; `trouble` says why only the cache may be used."""
    try:
        tables, revision = _load_files(source, trouble) if source.data_files else _load_config(source)
    except Exception as error:  # the library raises a dozen kinds; each means that the rows cannot be had
        if "config name is missing" in str(error).lower() or "BuilderConfig" in str(error):
            said = " ".join(str(error).split())
            raise UserError(f"data set {source.repo!r}: {shortened(said, 300)}") from None
        raise MachineError(_advice(source, whose, trouble or _first_line(error))) from error
    if source.revision and re.fullmatch("[0-9a-f]{40}", source.revision) and revision != source.revision:
        # out of reach of the hub, the library takes whatever commit its cache holds
        raise MachineError(_advice(source, whose, f"{trouble}; the cache holds another commit, {revision}"))
    return tables, revision


def _load_config(source: HubSource) -> tuple[Any, str]:
    """A configuration that the repository declares; the builder's hash is the commit."""
    import datasets

    builder = datasets.load_dataset_builder(source.repo, source.config, revision=source.revision)
    builder.download_and_prepare()
    return builder.as_dataset(), str(builder.hash or "unknown")


def _load_files(source: HubSource, trouble: str | None) -> tuple[Any, str]:
    """Named parquet files of a repository; the folder of the hub's own cache is named after the commit."""
    import datasets
    from huggingface_hub import snapshot_download

    patterns = dict(source.data_files or {})
    folder = Path(
        snapshot_download(
            source.repo,
            repo_type="dataset",
            revision=source.revision,
            allow_patterns=list(patterns.values()),
            local_files_only=trouble is not None,
        )
    )
    files = {split: str(folder / pattern) for split, pattern in patterns.items()}
    return datasets.load_dataset("parquet", data_files=files), folder.name


def _advice(source: HubSource, whose: str, trouble: str) -> str:
    return (
        f"cannot load data set {source.repo!r} {whose} from the Hugging Face hub ({trouble}): connect, or give a local "
        "folder with --data DIR (DIR/TASK/train.jsonl and validation.jsonl), or use a microworld task"
    )


def _cached(source: HubSource) -> bool:
    """Whether a cache on disk has a folder for this data set (asked without importing `datasets`)."""
    from huggingface_hub import constants

    owner, _, name = source.repo.rpartition("/")
    if source.data_files:
        return (Path(constants.HF_HUB_CACHE) / f"datasets--{owner}--{name}").is_dir()
    cache = Path(os.environ.get("HF_DATASETS_CACHE") or Path(constants.HF_HOME) / "datasets").expanduser()
    return any(found.name.lower() == f"{owner}___{name}".lower() for found in cache.glob("*___*"))


@contextlib.contextmanager
def _offline() -> Iterator[None]:
    """Keep `datasets` from asking the hub again, with its retries, when it is known to be out of reach."""
    import datasets
    from huggingface_hub import constants

    before = datasets.config.HF_HUB_OFFLINE, constants.HF_HUB_OFFLINE
    datasets.config.HF_HUB_OFFLINE = constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        datasets.config.HF_HUB_OFFLINE, constants.HF_HUB_OFFLINE = before


def _column(source: HubSource, name: str) -> str:
    return source.columns.get(name, name)


def _is_empty(value: Any) -> bool:
    return value is None or value == [] or (isinstance(value, str) and not value.strip())


def _first_line(error: BaseException) -> str:
    text = str(error).strip().splitlines()
    return (text[0] if text else type(error).__name__)[:200]
