"""Stores by the place that they are in: a folder, or a URL."""

from __future__ import annotations

from pathlib import Path

from prompttransfer.study.engine.store import PLAN, LocalStore, Store
from tasks.errors import UserError


def open_store(place: str | Path, *, new: bool = False) -> Store:
    """The store at a folder or an fsspec URL (`s3://bucket/study`, `file:///mnt/study`).

    With `new` it may be empty still; else a UserError where no study was run.
    """
    if "://" in str(place):
        from prompttransfer.study.engine.remote import RemoteStore

        store: Store = RemoteStore(str(place))
    else:
        store = LocalStore(Path(place))
        if store.root.is_file():
            raise UserError(f"{place} is a file: give the folder of a study")
    if not new and store.read_text(PLAN) is None:
        raise UserError(
            f"no study was run in {place} (no {PLAN} in it): start one with `prompttransfer study run`"
        )
    return store
