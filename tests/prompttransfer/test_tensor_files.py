"""Tensors from outside: sizes are compared with the file before memory is taken, and nothing is waited for."""

import errno
import os
import struct
import tracemalloc
import zipfile

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from prompttransfer.adaptations.exchange import read_foreign
from prompttransfer.tensor_files import read_numpy, read_tensors, read_torch
from tasks.errors import MissingError, UnreadableError, UserError

ARRAY = np.arange(12, dtype="<f4").reshape(3, 4)


def npy(path, header, data=b"", length=None):
    """A .npy file of version 2 with any header."""
    text = header.encode() + b"\n"
    size = struct.pack("<I", len(text) if length is None else length)
    path.write_bytes(b"\x93NUMPY\x02\x00" + size + text + data)
    return path


def described(shape, kind="'<f4'"):
    return f"{{'descr': {kind}, 'fortran_order': False, 'shape': {shape}, }}"


@pytest.mark.parametrize("made", [ARRAY, np.asfortranarray(ARRAY), ARRAY.astype(">f8"), ARRAY[:, 0].copy()])
def test_an_array_is_read_as_numpy_wrote_it(tmp_path, made):
    np.save(tmp_path / "a.npy", made)
    found = read_numpy(tmp_path / "a.npy", "prompt")
    assert found.dtype == made.dtype and np.array_equal(found, made)


@pytest.mark.parametrize(
    ("header", "length"),
    [
        (described("(1099511627776, 1099511627776)"), None),
        (described("(100000000000,)"), None),
        (described("(-3, -4)"), None),
        (described("(3, True)"), None),
        (described("(" + "9" * 5000 + ",)"), None),
        (described("(3, 4)", "'|O'"), None),
        (described("(3, 4)", "','"), None),
        ("(" * 300, None),
        ("{'descr': '<f4'", None),
        ("__import__('os')", None),
        (described("(3, 4)"), 2**32 - 1),
    ],
)
def test_a_header_that_lies_costs_no_memory(tmp_path, header, length):
    path = npy(tmp_path / "a.npy", header, ARRAY.tobytes(), length)
    tracemalloc.start()
    with pytest.raises(UserError):
        read_numpy(path, "prompt")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 50 * 2**20


def test_an_archive_that_unfolds_is_not_read_by_torch(tmp_path):
    path = tmp_path / "a.pt"
    torch.save(torch.zeros(1000, 1000), path)
    with (
        zipfile.ZipFile(path) as plain,
        zipfile.ZipFile(tmp_path / "b.pt", "w", zipfile.ZIP_DEFLATED) as small,
    ):
        for entry in plain.infolist():
            small.writestr(entry.filename, plain.read(entry))
    assert read_torch(path, "prompt").shape == (1000, 1000)
    with pytest.raises(UserError, match="compressed"):
        read_torch(tmp_path / "b.pt", "prompt")


def test_a_tensor_of_one_number_said_many_times_is_refused(tmp_path):
    torch.save(torch.zeros(1).expand(2**20, 2**16), tmp_path / "a.pt")
    with pytest.raises(UserError, match="folded"):
        read_foreign(tmp_path / "a.pt")


def test_a_header_of_safetensors_that_lies_is_one_line(tmp_path):
    path = tmp_path / "a.safetensors"
    save_file({"a": torch.zeros(2, 2)}, path)
    whole = path.read_bytes()
    for length in (0, 2**31, 2**63, 2**64 - 1):
        path.write_bytes(struct.pack("<Q", length) + whole[8:])
        with pytest.raises(UserError, match="damaged or cut short"):
            read_tensors(path, "prompt")


@pytest.mark.parametrize(
    "read", [read_tensors, read_numpy, read_torch, lambda path, what: read_foreign(path)]
)
def test_a_pipe_a_folder_and_nothing_are_told_apart_at_once(tmp_path, read):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UserError, match="no regular file"):
        read(tmp_path / "pipe", "prompt")
    with pytest.raises(UserError):
        read(tmp_path / "none", "prompt")
    with pytest.raises(UserError):
        read(tmp_path, "prompt")


@pytest.mark.parametrize("read", [read_tensors, read_numpy, read_torch])
def test_a_file_that_cannot_be_opened_now_is_the_machines_fault(tmp_path, monkeypatch, read):
    path = tmp_path / "a"
    path.write_bytes(b"x")
    with pytest.raises(MissingError):
        read(tmp_path / "none", "prompt")

    def refuse(*_, **__):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(UnreadableError, match="cannot be read"):
        read(path, "prompt")
