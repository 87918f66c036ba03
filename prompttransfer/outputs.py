"""Nothing finished is replaced unless it is asked for: what lies where a verb is about to write, and who made it how.

Three questions, all answered before work begins:

    Can it be written there?       `check_place`: the right kind of place, a name that fits, a disk that lets us
    Was it made with the same settings?   `check_same` for folders whose record says so (a prompt, a matrix);
                                   `Files` for single files, whose settings are kept beside them in `.made.json`
    Is there anything of the user's?      `keep_others`: files that are not ours go along into the new folder

The same settings are the same options and the same content of every file that they name; devices, the names of folders
and versions of libraries do not count. Finished work of other settings is replaced under --overwrite alone.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prompttransfer.files import disk_errors, write_json
from tasks.documents import read_json_object
from tasks.errors import UserError

RECORDS = ("adaptation.json", "prompt.json")
"""What the record of an adaptation is called in its folder: now, and in format 1."""
MADE = ".made.json"
SETTINGS = "settings.json"
"""The file in a folder that is made as a whole with the settings that it was made from."""
COMMANDS = "commands.json"
"""Of reports/calls.py: how things were made, which changes nothing of what they are."""
LONGEST_NAME, LONGEST_PATH = 200, 3800
"""Bytes of one name and of a whole path; temporary names and what lies inside need the rest of 255 and 4096."""
NOT_SETTINGS = {
    "output",
    "predictions",
    "overwrite",
    "as_json",
    "json_",
    "device",
    "devices",
    "nodes",
    "strategy",
    "logger",
}
"""Options that say where and how, not what."""


def check_place(path: Path, *, folder: bool, option: str = "--output") -> None:
    """Raise unless `path` can be written as a folder, or as a file; nothing is left behind.

    UserError where something of the other kind is there or the name does not fit, MachineError where the disk refuses.
    """
    absolute = Path(os.path.abspath(path))
    long = next((part for part in absolute.parts if len(os.fsencode(part)) > 255), "")
    if long or len(os.fsencode(absolute.name)) > LONGEST_NAME or len(os.fsencode(absolute)) > LONGEST_PATH:
        shown = f"{(long or absolute.name)[:40]}..."
        raise UserError(f"{option}: {shown} is too long for a name or path of a file: give a shorter one")
    with disk_errors(path):
        if folder and path.exists() and not path.is_dir():
            raise UserError(f"{option} {path} is a file: give the name of a folder")
        if not folder and path.is_dir():
            raise UserError(f"{option} {path} is a folder: give the name of a file in it")
        above = absolute if absolute.is_dir() else absolute.parent
        while not above.exists() and not above.is_symlink():
            above = above.parent
        if not above.is_dir():
            raise UserError(f"{option} {path}: {above} is no folder, so nothing can lie in it")
        with tempfile.TemporaryFile(dir=above):
            pass


def check_same(place: Path, there: Mapping[str, Any], wanted: Mapping[str, Any], *, what: str) -> None:
    """Raise a UserError that names --overwrite unless finished work was made with the settings that are wanted."""
    before, now = plain(there), plain(wanted)
    differ = [key for key in sorted({*before, *now}) if before.get(key) != now.get(key)]
    if differ:
        said = "; ".join(f"{key} {_short(before.get(key))}, now {_short(now.get(key))}" for key in differ[:3])
        raise taken(place, f"{what} of other settings ({said}{'; ...' * (len(differ) > 3)})")


def settings_in(folder: Path) -> dict[str, Any]:
    """The settings that what lies in a folder was made from; none where they were not kept."""
    path = folder / SETTINGS
    return read_json_object(path, "settings") if path.exists() else {}


def taken(place: Path, what: str) -> UserError:
    """The error for finished work that is in the way."""
    return UserError(f"{place} holds {what}: choose another --output, or replace it with --overwrite")


def keep_others(old: Path, new: Path, ours: Collection[str]) -> None:
    """Put what lies in the folder `old` and is not ours (by name) into `new`, which is about to take its place."""
    if not old.is_dir():
        return
    for path in sorted(old.iterdir()):
        place = new / path.name
        if path.name in ours or place.exists():
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.copytree(path, place, symlinks=True, copy_function=_link)
        else:
            _link(str(path), str(place))


def _link(source: str, target: str) -> None:
    """A second name for the same file where the file system has such, else a copy."""
    try:
        os.link(source, target, follow_symlinks=False)
    except OSError:
        shutil.copy2(source, target, follow_symlinks=False)


def settings_of(verb: str, given: Mapping[str, Any], *, without: Collection[Path] = ()) -> dict[str, Any]:
    """What a verb's result depends on: its options, with the content of the files and folders that they name.

    `without`: files that do not count though they lie in such a folder, as the result itself.
    """
    options = {name: _content(value, without) for name, value in given.items() if name not in NOT_SETTINGS}
    return {"verb": verb, **options}


@dataclass(frozen=True)
class Files:
    """Single files that a verb is about to write, and the settings that they come from."""

    paths: tuple[Path, ...]
    settings: Mapping[str, Any]

    def check(self, *, overwrite: bool) -> None:
        """Raise a UserError that names --overwrite if one of them is there and was not made with these settings."""
        if overwrite:
            return
        for path in self.paths:
            if not path.exists():
                continue
            before = _made(path.parent).get(path.name)
            if before is None:
                raise taken(path.parent, f"a file {path.name} already, made otherwise")
            if before != _digest(self.settings):
                raise taken(path.parent, f"a {path.name} of other settings")

    def claim(self) -> None:
        """Note down what the files come from; to be called just before they are written, so that a kill loses nothing."""
        for folder in dict.fromkeys(path.parent for path in self.paths):
            own = {path.name: _digest(self.settings) for path in self.paths if path.parent == folder}
            there = _made(folder)
            if any(there.get(name) != digest for name, digest in own.items()):
                write_json(folder / MADE, {**there, **own})


def _made(folder: Path) -> dict[str, Any]:
    path = folder / MADE
    return read_json_object(path, "list of what was made") if path.exists() else {}


def _digest(settings: Mapping[str, Any]) -> str:
    text = json.dumps(plain(settings), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def plain(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings as JSON would give them back."""
    return dict(json.loads(json.dumps(dict(settings), default=str)))


def _short(value: Any) -> str:
    text = "none" if value is None else str(value)
    return text if len(text) <= 40 else f"{text[:37]}..."


def _content(value: Any, without: Collection[Path]) -> Any:
    """A value of an option; a path, and text that names a file, by what lies there."""
    if isinstance(value, (list, tuple)):
        return [_content(one, without) for one in value]
    if isinstance(value, Path):
        return content_of_path(value, without)
    if isinstance(value, str):
        try:
            return content_of_path(Path(value), without) if Path(value).is_file() else value
        except (OSError, ValueError):  # too long for a name, or no name at all
            return value
    return value


def content_of_path(path: Path, without: Collection[Path] = ()) -> str:
    """A digest of a file's bytes; of a folder by its prompts' records, or where it has none by its files.

    Files of a folder count by name, size and time, JSON by its bytes: data can be large.
    """
    if not path.is_file() and not path.is_dir():
        return str(path)
    sha = hashlib.sha256()
    if path.is_file():
        sha.update(path.read_bytes())
        return f"sha256:{sha.hexdigest()[:16]}"
    records = sorted(found for name in RECORDS for found in (*path.glob(name), *path.glob(f"*/{name}")))
    for file in records or _files(path):
        if file in without:
            continue
        found = file.stat()
        sha.update(str(file.relative_to(path)).encode(errors="replace"))
        sha.update(
            file.read_bytes() if file.suffix == ".json" else str((found.st_size, found.st_mtime_ns)).encode()
        )
    return f"sha256:{sha.hexdigest()[:16]}"


def _files(folder: Path) -> Iterator[Path]:
    """The files in a folder and in those below it, hidden ones and records of commands left out."""
    for path in sorted(folder.iterdir()):
        if path.name.startswith(".") or path.name == COMMANDS:
            continue
        if path.is_file():
            yield path
        elif path.is_dir() and not path.is_symlink():
            yield from _files(path)
