"""What a backbone is: one revision that changes with everything that decides a number.

A model of the hub is at a commit. A folder is at a digest in parts, so that two revisions say themselves what differs:

    sha256:WEIGHTS-CONFIGURATION-TOKENIZER[-GENERATION]

The last part is there for models that write; they are decoded with settings of our own, so it decides nothing where a
prompt is used, but what was finished under other settings is not taken for finished. Revisions of versions up to 0.1
hold the weights' part alone, which is the same digest as today.
"""

from __future__ import annotations

import hashlib
import json
import re
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from prompttransfer.backbones.special_tokens import read_settings, settings_files, special_tokens
from tasks.documents import cannot_read, read_json_object
from tasks.errors import UserError

PARTS = ("weights", "configuration", "tokenizer", "generation settings")
DECIDING = PARTS[:3]
"""The parts that decide what a prompt does; the project generates text with settings of its own."""

_NOTES = ("transformers_version", "_name_or_path", "architectures", "dtype", "torch_dtype")
"""Keys of a configuration that say where it came from, not what is computed."""

TOKENIZER = "tokenizer.json"
VOCABULARIES = (
    *("vocab.txt", "vocab.json", "spiece.model", "spm.model", "sentencepiece.bpe.model", "tokenizer.model"),
)
"""Files that a tokenizer can be made from where there is no tokenizer.json."""

_WRITES = ("t5", "mt5", "longt5")
"""`model_type` of models whose generation settings are part of the revision."""


def folder_revision(folder: Path) -> str:
    """The revision of a folder; UserError for one that lacks a part, or holds a damaged one."""
    config = read_json_object(folder / "config.json", "model configuration", any_number=True)
    parts = [
        _digest(weight_files(folder), 16),
        _digest_values({key: value for key, value in config.items() if key not in _NOTES}),
        _tokenizer_digest(folder, config.get("model_type")),
    ]
    generation = folder / "generation_config.json"
    if config.get("model_type") in _WRITES and generation.exists():
        settings = read_json_object(generation, "generation settings", any_number=True)
        parts.append(_digest_values({key: value for key, value in settings.items() if key not in _NOTES}))
    return f"sha256:{'-'.join(parts)}"


def differing(first: str, second: str, parts: Iterable[str] = PARTS) -> tuple[str, ...]:
    """Which of `parts` two revisions differ in; empty where they are the same as far as both tell.

    Of a commit nothing but the whole is known: `revision`.
    """
    if first == second:
        return ()
    if not (first.startswith("sha256:") and second.startswith("sha256:")):
        return ("revision",)
    pairs = zip(PARTS, first[7:].split("-"), second[7:].split("-"), strict=False)
    return tuple(name for name, one, other in pairs if one != other and name in parts)


def is_commit(revision: str) -> bool:
    """Whether a revision is one of the hub's."""
    return re.fullmatch("[0-9a-f]{40}", revision) is not None


def pinned(revision: str) -> list[str]:
    """The option that takes the same backbone again: a folder has the one revision that lies in it."""
    return ["--revision", revision] if is_commit(revision) else []


def weights_alone(revision: str) -> str:
    """The revision that versions up to 0.1 gave the same weights."""
    return revision.split("-")[0]


def weight_files(folder: Path) -> list[Path]:
    """The files that hold the weights; UserError if there are none, one is named and missing, or is a mere pointer."""
    files = sorted(folder.glob("*.safetensors")) or sorted(folder.glob("pytorch_model*.bin"))
    if not files:
        raise UserError(f"backbone folder {folder} holds no weights (*.safetensors)")
    index = folder / "model.safetensors.index.json"
    if index.exists() and not (folder / "model.safetensors").exists():
        shards = read_json_object(index, "index of weights", any_number=True).get("weight_map")
        if not isinstance(shards, dict) or not all(isinstance(name, str) for name in shards.values()):
            raise UserError(f"index of weights {index} has no weight_map of file names: save the model again")
        missing = sorted({name for name in shards.values() if not (folder / name).is_file()})
        if missing:
            raise UserError(
                f"backbone folder {folder} lacks {missing[0]}, which {index.name} names: copy all its files"
            )
    return files


def _tokenizer_digest(folder: Path, model_type: Any) -> str:
    """Of the file that gives the ids and of what decides which of its tokens are special."""
    whole = folder / TOKENIZER
    files = [whole] if whole.exists() else [folder / name for name in (*VOCABULARIES, "merges.txt")]
    tokens = special_tokens(folder, model_type)
    settings: list[Any] = [dict(tokens.named), sorted(tokens.extra)]
    if not whole.exists():
        settings += [read_settings(path) for path in settings_files(folder)]
    found = hashlib.sha256(_digest([file for file in files if file.exists()], 64).encode())
    found.update(_canonical(settings))
    return found.hexdigest()[:8]


def _digest_values(values: Any) -> str:
    return hashlib.sha256(_canonical(values)).hexdigest()[:8]


def _canonical(values: Any) -> bytes:
    return json.dumps(values, sort_keys=True).encode()


def _digest(files: Iterable[Path], digits: int) -> str:
    sha = hashlib.sha256()
    for file in files:
        try:
            if not stat.S_ISREG(file.stat().st_mode):  # a pipe would be waited for
                raise UserError(f"{file} is no regular file: copy the model's")
            with file.open("rb") as stream:
                for block in iter(lambda: stream.read(1 << 22), b""):
                    if block.startswith(b"version https://git-lfs"):
                        raise UserError(
                            f"{file} is a pointer of git-lfs, not the file itself: `git lfs pull` gets it"
                        )
                    sha.update(block)
        except OSError as error:
            raise cannot_read(file, "file", error) from None
    return sha.hexdigest()[:digits]
