"""A store behind an fsspec URL: an object store, or any file system that fsspec knows.

    cells/<2 hex>/<id>/cell.json            the record, uploaded last: there is no cell without it
    cells/<2 hex>/<id>/<digest>/<name>      the files that a record of that digest names

Objects cannot be renamed, so the record is what commits a cell. Its files lie under its digest: should two machines
upload the same cell at once with other bits, each record still leads to the files that it was written with.
Work happens in a local folder, which also keeps what was downloaded. Leases are local too: two runs on one machine
share the work, runs on several machines would do the same cells twice, with the same result; use one Ray cluster, or a
shared folder, to share work between machines.
"""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from prompttransfer.files import temporary_folder
from prompttransfer.study.cell import ID, short_digest
from prompttransfer.study.engine.records import RECORD, CellRecord, read_cell_record
from prompttransfer.study.engine.store import LocalStore, difference, reading
from tasks.documents import decode
from tasks.errors import MachineError, UnreadableError, UserError

BUCKETS = {"s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "adl", "oci", "oss"}
"""Schemes of fsspec behind which names are only names: there are no folders to make, and a bucket is not ours to make."""


class RemoteStore:
    """Cells behind `url`, worked on in `work` (default: a folder of the user's cache, one a URL)."""

    def __init__(self, url: str, work: Path | None = None):
        import fsspec

        try:
            self.files, self.root = fsspec.core.url_to_fs(url)
        except (ImportError, ValueError) as error:
            raise UserError(f"{url} cannot be opened: {error}") from error
        self.place = url
        self.local = LocalStore(work or cache_folder() / short_digest(url))

    @property
    def work(self) -> Path:
        """A local folder for scratch, leases and what was downloaded."""
        return self.local.root

    @property
    def _is_local(self) -> bool:
        return bool({"file", "local"} & self._schemes)

    @property
    def _schemes(self) -> set[str]:
        named = self.files.protocol
        return {named} if isinstance(named, str) else set(named)

    def check_writable(self, cells: Iterable[str]) -> None:
        """The folder for the work; whether the URL takes files is seen when the study's file is written there."""
        self.local.check_writable(cells)

    def _at(self, *parts: str) -> str:
        return "/".join([self.root.rstrip("/"), *parts])

    def _cell(self, cell: str, *parts: str) -> str:
        return self._at("cells", cell[:2], cell, *parts)

    def place_of(self, record: CellRecord, name: str) -> str:
        """Where a file of a cell is, as `files` names it."""
        return self._cell(record.id, record.digest, name)

    def ids(self) -> set[str]:
        """Cells whose record is there: it was uploaded last."""
        self.files.invalidate_cache()
        # A file system's own errors are left out by fsspec unless told otherwise: a cell would count as missing.
        told: dict[str, Any] = {"on_error": "raise"} if self._is_local else {}
        try:
            with fetching(self.place):
                paths = self.files.find(self._at("cells"), **told)
        except FileNotFoundError:
            return set()
        found = (path.rsplit("/", 2) for path in paths if path.endswith(f"/{RECORD}"))
        return {parts[1] for parts in found if ID.fullmatch(parts[1])}

    def has(self, cell: str) -> bool:
        """Whether the record of the cell is there."""
        with fetching(self.place):
            return self._there(self._cell(cell, RECORD))

    def _there(self, path: str) -> bool:
        """Whether a file or folder is there; `exists` takes every error for a no."""
        self.files.invalidate_cache()
        try:
            self.files.info(path)
        except FileNotFoundError:
            return False
        return True

    def damage(self, cell: str, *, digests: bool = False) -> str | None:
        """What is wrong with a cell; only with `digests`, for which it is downloaded.

        An object appears whole and the record last, so there are no sizes to compare on a listing.
        """
        if not digests:
            return None
        try:
            return self._download(self.record(cell))
        except FileNotFoundError as error:
            return f"{error} is missing"
        except UserError as error:
            return str(error)

    def record(self, cell: str) -> CellRecord:
        """The record of a finished cell, else a UserError."""
        path = self._cell(cell, RECORD)
        try:
            with fetching(path):
                return read_cell_record(self.files.cat_file(path), path)
        except FileNotFoundError as error:
            raise UserError(f"cell {cell} is not finished in {self.place}: run the study first") from error

    def folder(self, cell: str) -> Path:
        """A local copy of a finished cell, every bit checked."""
        record = self.record(cell)
        try:
            wrong = None if self._is_here(record) else self._download(record)
        except FileNotFoundError as error:
            wrong = f"{error} is missing"
        if wrong:
            raise UserError(f"cell {cell} in {self.place} is damaged: {wrong}; `study run` makes it again")
        return self.local.folder(cell)

    def _is_here(self, record: CellRecord) -> bool:
        if not self.local.has(record.id) or self.local.damage(record.id, digests=True):
            return False
        return self.local.record(record.id).digest == record.digest

    def _download(self, record: CellRecord) -> str | None:
        """Put a cell into the local folder; one line if what came is not what was written."""
        (self.work / "scratch").mkdir(parents=True, exist_ok=True)
        folder = temporary_folder(self.work / "scratch" / f"download-{record.id}")
        try:
            for name, file in record.files.items():
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                self._fetch(record, name, folder / name)
                if wrong := difference(str(folder), name, file.bytes, file.sha256):
                    return wrong
            if not self._is_here(record):  # another process may have been faster, and reads it already
                self.local.discard(record.id)
                self.local.commit(folder, record)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        return None

    def _fetch(self, record: CellRecord, name: str, target: Path) -> None:
        """Download one file of a cell; cells of earlier versions have theirs beside the record."""
        with fetching(self.place):
            try:
                self.files.get_file(self.place_of(record, name), str(target))
            except FileNotFoundError:
                self.files.get_file(self._cell(record.id, name), str(target))

    def commit(self, filled: Path, record: CellRecord) -> None:
        """Keep the cell here, then upload its files, its record last.

        A cell that another machine made meanwhile stays: others may have been made from it.
        """
        self.local.commit(filled, record)
        if self.has(record.id):
            return
        folder, kept = self.local.path(record.id), self.local.record(record.id)
        with sending(f"write {record.label!r}", self.place):
            for name in kept.files:
                self._make_folder(self.place_of(kept, name))
                self.files.put_file(str(folder / name), self.place_of(kept, name))
            self._replace(self._cell(record.id, RECORD), (folder / RECORD).read_bytes())

    def _make_folder(self, path: str) -> None:
        if not BUCKETS & self._schemes:
            self.files.makedirs(os.path.dirname(path), exist_ok=True)

    def _replace(self, path: str, content: bytes) -> None:
        """An object store shows an object when it is whole; elsewhere a rename does that."""
        self._make_folder(path)
        if self._is_local:
            new = f"{path}.{uuid.uuid4().hex}.new"
            self.files.pipe_file(new, content)
            os.replace(new, path)
        else:
            self.files.pipe_file(path, content)

    def discard(self, cell: str) -> None:
        """Throw a cell away, its record first, so that half of it is never taken for a cell."""
        self.local.discard(cell)
        there = self.has(cell)
        with sending(f"remove cell {cell}", self.place):
            if there:
                self.files.rm_file(self._cell(cell, RECORD))
            if self._there(self._cell(cell)):
                self.files.rm(self._cell(cell), recursive=True)

    def read_text(self, name: str) -> str | None:
        """A small file of the study, None where there is none."""
        try:
            with fetching(self._at(name)):
                found: bytes = self.files.cat_file(self._at(name))
        except FileNotFoundError:
            return None
        return decode(found, self._at(name))

    def write_text(self, name: str, text: str) -> None:
        """Write a small file of the study."""
        with sending(f"write {name}", self.place):
            self._replace(self._at(name), text.encode())

    def upload(self, file: Path, name: str) -> None:
        """Write a file of this machine as a file of the study, as a whole."""
        with sending(f"write {name}", self.place):
            self._replace(self._at(name), file.read_bytes())

    def remove_text(self, name: str) -> None:
        """Remove a small file of the study, if it is there."""
        with sending(f"remove {name}", self.place):
            if self._there(self._at(name)):
                self.files.rm_file(self._at(name))

    def names(self, folder: str) -> list[str]:
        """Names of the small files in a folder of the study."""
        self.files.invalidate_cache()
        try:
            with fetching(self.place):
                return sorted(
                    path.rsplit("/", 1)[-1] for path in self.files.ls(self._at(folder), detail=False)
                )
        except FileNotFoundError:
            return []


@contextmanager
def fetching(place: str) -> Iterator[None]:
    """As `reading`, also for what the libraries of object stores raise (no credentials, no answer), which is no OSError."""
    try:
        with reading(place):
            yield
    except (OSError, UserError, MachineError):
        raise
    except Exception as error:
        raise UnreadableError(
            f"{place} cannot be read now ({error}): it was left as it is; mend that and run again"
        ) from error


@contextmanager
def sending(what: str, place: str) -> Iterator[None]:
    """Turn what an object store or its library says into one line; what is refused half way is no cell yet."""
    try:
        yield
    except (UserError, MachineError):
        raise
    except Exception as error:
        raise MachineError(
            f"cannot {what} in {place} ({error}): nothing half written counts there; mend that and run again"
        ) from error


def cache_folder() -> Path:
    """Where the work on remote studies happens: `$XDG_CACHE_HOME` or `~/.cache`, below `prompttransfer/studies`."""
    home = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(home) / "prompttransfer" / "studies"
