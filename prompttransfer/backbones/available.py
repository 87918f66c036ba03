"""What can run here without a network: embedded backbones, installed packages, models in the hub's cache on disk."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from prompttransfer.backbones.locating import EMBEDDED, EMBEDDED_FOLDER
from prompttransfer.backbones.packaged import PACKAGED, is_installed
from tasks.documents import read_json_object
from tasks.errors import MachineError, UserError


@dataclass(frozen=True)
class Available:
    """A backbone as `--backbone` takes it."""

    name: str
    where: str
    """`embedded`, `package` or `hub cache`."""
    model_type: str
    """Of its configuration; nothing for one that is not unpacked yet."""
    runs: bool
    note: str = ""
    """What it lacks to run, or what it needs once."""
    revision: str = ""


def available_backbones() -> list[Available]:
    """Every one of the places, those that do not run too, with what they lack."""
    return [*_embedded(), *_packaged(), *_cached()]


def _embedded() -> Iterator[Available]:
    for name in EMBEDDED:
        yield Available(name, "embedded", _model_type(EMBEDDED_FOLDER / name), runs=True)


def _packaged() -> Iterator[Available]:
    for name, package in PACKAGED.items():
        here = is_installed(name)
        yield Available(name, "package", "", here, "" if here else f"not installed: {package.install}")


def _cached() -> Iterator[Available]:
    """Models that the hub's library has on disk, each at its newest snapshot."""
    from huggingface_hub import scan_cache_dir
    from huggingface_hub.errors import CacheNotFound

    try:
        repositories = [repo for repo in scan_cache_dir().repos if repo.repo_type == "model"]
    except (CacheNotFound, ValueError):
        return
    for repo in sorted(repositories, key=lambda repo: repo.repo_id):
        newest = max(repo.revisions, key=lambda one: one.last_modified, default=None)
        if newest is not None:
            yield _of_snapshot(repo.repo_id, newest.snapshot_path, newest.commit_hash)


def _of_snapshot(name: str, folder: Path, commit: str) -> Available:
    from prompttransfer.backbones.loading import family_class

    kind = _model_type(folder)
    lacks = (
        "no config.json"
        if not kind
        else f"no model of type {kind} runs here"
        if family_class(kind) is None
        else "no safetensors of its weights"
        if not any(folder.glob("*.safetensors"))
        else ""
    )
    return Available(name, "hub cache", kind, not lacks, lacks, commit)


def _model_type(folder: Path) -> str:
    """`model_type` of the configuration in a folder; nothing where none is to be read."""
    try:
        return str(
            read_json_object(folder / "config.json", "configuration", any_number=True).get("model_type") or ""
        )
    except (UserError, MachineError):
        return ""
