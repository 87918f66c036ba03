"""Tensors from outside: the one place that reads safetensors, numpy and torch files, so that a bad one is one line.

Sizes are checked against the file before memory is taken, and no object is ever unpickled. JSON and YAML are read by
tasks/documents.py.
"""

from __future__ import annotations

import math
import os
import pickle
import warnings
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from tasks.documents import cannot_read, shortened
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


def read_numpy(path: Path, what: str) -> np.ndarray[Any, Any]:
    """The array of a .npy file; its header is compared with the size of the file before memory is taken."""
    path = Path(path)
    check_regular(path, what)
    try:
        with path.open("rb") as stream:
            shape, fortran, dtype = _numpy_header(stream, path.stat().st_size)
            if dtype.hasobject:
                raise UserError(
                    f"{what} {path} holds Python objects, which could run code, so it is not read: save a plain float "
                    "array"
                )
            count = math.prod(shape)
            if count * dtype.itemsize > path.stat().st_size - stream.tell():
                raise ValueError(f"its header promises {list(shape)}, which is more than the file holds")
            array = np.frombuffer(stream.read(count * dtype.itemsize), dtype=dtype, count=count)
            return array.reshape(shape, order="F" if fortran else "C")
    except OSError as error:
        raise cannot_read(path, what, error) from None
    except UserError:
        raise
    except (
        Exception
    ) as error:  # its header is Python that numpy evaluates: tokens, types and sizes may be wrong
        raise _damaged(path, f"{what} as a NumPy file", error) from None


def _numpy_header(stream: BinaryIO, size: int) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Shape, order and type of a .npy file of versions 1 to 3."""
    version = np.lib.format.read_magic(stream)
    width = 2 if version == (1, 0) else 4
    length = int.from_bytes(stream.read(width), "little")
    if length > min(size, LONGEST_HEADER):
        raise ValueError(f"its header of {length} bytes is longer than any")
    stream.seek(-width, os.SEEK_CUR)
    reader = np.lib.format.read_array_header_1_0 if width == 2 else np.lib.format.read_array_header_2_0
    shape, fortran, dtype = reader(stream)
    if any(isinstance(side, bool) or side < 0 for side in shape):
        raise ValueError(f"its header has the shape {shape}")
    return shape, fortran, dtype


LONGEST_HEADER = 10_000


def read_torch(path: Path, what: str) -> Any:
    """What a torch pickle holds, read with `weights_only`; UserError for one with objects in it that could run code."""
    path = Path(path)
    check_regular(path, what)
    try:
        _check_zip(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of old pickle protocols, which are what we are here for
            return torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        if error.errno is None:
            raise _damaged(path, f"{what} as a torch pickle", error) from None
        raise cannot_read(path, what, error) from None
    except pickle.UnpicklingError as error:
        if "unsupported" in str(error).lower():
            raise UserError(
                f"{path} is a pickle with Python objects in it, which could run code, so it is not read: save the "
                f"prompt alone with safetensors, in the program that made it"
            ) from None
        raise _damaged(path, f"{what} as a torch pickle", error) from None
    except Exception as error:  # the unpickler raises whatever the bytes make it
        raise _damaged(path, f"{what} as a torch pickle", error) from None


def _check_zip(path: Path) -> None:
    """Raise ValueError for an archive that would unfold: torch stores its tensors as they are."""
    if not zipfile.is_zipfile(path):
        return
    with zipfile.ZipFile(path) as archive:
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist()):
            raise ValueError("it is compressed, which torch does not do")
        if sum(entry.file_size for entry in archive.infolist()) > path.stat().st_size:
            raise ValueError("it promises more than the file holds")


def _damaged(path: Path, what: str, error: Exception) -> UserError:
    said = shortened(str(error))
    return UserError(
        f"{path} cannot be read ({what}), it may be damaged or cut short{f': {said}' if said else ''}"
    )


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
