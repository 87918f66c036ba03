"""Tensors from outside: the one place that reads safetensors, numpy and torch files, so that a bad one is one line.

Sizes are checked against the file before memory is taken, and no object is ever unpickled. JSON and YAML are read by
tasks/documents.py.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError, safe_open
from torch import Tensor

from tasks.documents import cannot_read, parse_json
from tasks.errors import UserError


@dataclass(frozen=True)
class TensorFile:
    """What a safetensors file holds."""

    tensors: Mapping[str, Tensor]
    metadata: Mapping[str, str]


def read_tensors(path: Path, what: str) -> TensorFile:
    """All tensors of a safetensors file, on the CPU; `what` names the kind of file in messages.

    Raises UserError if it is none, is cut short or damaged, UnreadableError if it cannot be read now.
    """
    path = Path(path)
    check_regular(path, what)
    try:
        with safe_open(path, framework="pt") as file:
            names = list(file.keys())
            return TensorFile({name: file.get_tensor(name) for name in names}, dict(file.metadata() or {}))
    except OSError as error:
        raise cannot_read(path, what, error) from None
    except (
        SafetensorError,
        ValueError,
        TypeError,
        KeyError,
        OverflowError,
        RuntimeError,
        AttributeError,
    ) as error:
        line = " ".join(str(error).split())[:200]
        raise UserError(f"{what} {path} is damaged or cut short, no safetensors file: {line}") from None


def check_regular(path: Path, what: str) -> None:
    """UserError unless `path` is a regular file (a pipe would be waited for), UnreadableError if it cannot be opened."""
    try:
        with open(path, "rb", opener=_without_waiting) as stream:
            os.fstat(stream.fileno())
    except IsADirectoryError:
        raise UserError(f"{what} {path} is a folder: give the file") from None
    except OSError as error:
        raise cannot_read(path, what, error) from None
    except ValueError:
        raise UserError(f"{what} {str(path)!r} cannot be a file's name") from None
    if not path.is_file():
        raise UserError(f"{what} {path} is no regular file (a pipe, socket or device): give a file")


def _without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def metadata_json(file: TensorFile, key: str, source: str) -> object:
    """The JSON value under `key` of a file's metadata; UserError if there is none."""
    if key not in file.metadata:
        raise UserError(f"{source} is damaged: its header lacks {key!r}")
    return parse_json(file.metadata[key], source)
