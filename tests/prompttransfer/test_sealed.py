"""Sealed files: whatever bit of one changes, it is not read; those of earlier versions are."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from prompttransfer.sealed import read_sealed, write_sealed
from tasks.errors import UserError

TENSORS = {"vectors": torch.arange(6.0).reshape(2, 3)}
METADATA = {"step": "3", "settings": "{}"}


def test_no_changed_bit_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    write_sealed(path, TENSORS, METADATA)
    whole = path.read_bytes()
    taken = []
    for place in range(len(whole)):
        for bit in range(8):
            path.write_bytes(whole[:place] + bytes([whole[place] ^ 1 << bit]) + whole[place + 1 :])
            try:
                read_sealed(path, "file", "write it again")
            except UserError as error:
                assert str(error).endswith("write it again")
            else:
                taken.append((place, bit, whole[place : place + 1]))
    assert taken == []


def test_files_of_earlier_versions_have_no_digest_and_are_read(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    save_file(TENSORS, path, metadata=METADATA)
    file = read_sealed(path, "file", "write it again")
    assert file.metadata == METADATA and torch.equal(file.tensors["vectors"], TENSORS["vectors"])


def test_the_digest_is_not_part_of_what_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    write_sealed(path, TENSORS, METADATA)
    assert read_sealed(path, "file", "write it again").metadata == METADATA


def test_a_missing_file_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nothing\.safetensors"):
        read_sealed(tmp_path / "nothing.safetensors", "file", "write it again")
