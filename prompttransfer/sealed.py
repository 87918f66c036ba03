"""Sealed files: tensors whose file carries a digest of itself, so that a changed bit is one line and not a number.

The digest stands in the metadata of the safetensors file, where readers that do not know it pass it by. It is over
names, types, shapes and bytes of all tensors and over the rest of the metadata. Files from before have none.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from prompttransfer.tensor_files import TensorFile, read_tensors
from tasks.errors import MissingError, UserError

SEAL = "sha256"
DIGEST = re.compile(r"[0-9a-f]{64}")
"""What `digest` returns; files of earlier versions have no such value in their metadata."""


def write_sealed(
    path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None
) -> None:
    """Write tensors and metadata to `path` with their digest; `path` is a temporary one (files.py)."""
    whole = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    save_file(whole, path, metadata={**(metadata or {}), SEAL: digest(whole, metadata or {})})


def read_sealed(path: Path, what: str, advice: str) -> TensorFile:
    """The content of a file by `write_sealed`, or by an earlier version that put no digest there.

    Raises MissingError where there is none; UserError, which ends with `advice`, if it is damaged or not what was written; UnreadableError if it cannot
    be read now.
    """
    try:
        found = read_tensors(path, what)
    except MissingError:
        raise
    except UserError as error:
        raise UserError(f"{error}; {advice}") from None
    rest = {name: value for name, value in found.metadata.items() if name != SEAL}
    if SEAL in found.metadata:
        changed = found.metadata[SEAL] != digest(found.tensors, rest)
    else:  # of an earlier version, or the digest is there and its name was damaged
        changed = any(DIGEST.fullmatch(value) for value in rest.values())
    if changed:
        raise UserError(f"{what} {path} was changed after it was written (its digest differs): {advice}")
    return TensorFile(found.tensors, rest)


def digest(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> str:
    """sha256 over all that a file says, in order of names."""
    sha = hashlib.sha256(repr(sorted(metadata.items())).encode())
    for name, tensor in sorted(tensors.items()):
        sha.update(f"{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        sha.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return sha.hexdigest()
