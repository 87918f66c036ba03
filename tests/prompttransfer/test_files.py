"""Writing: whole or not at all, and never outside the output folder."""

import errno
import os

import pytest

from prompttransfer.files import atomic_folder, atomic_path, disk_errors, safe_name, write_json, write_text
from tasks.errors import MachineError, UserError


def test_an_exception_leaves_the_old_file_and_no_temporary_one(tmp_path):
    path = tmp_path / "a.txt"
    write_text(path, "old")
    with pytest.raises(RuntimeError), atomic_path(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_an_exception_leaves_the_old_folder_and_no_temporary_one(tmp_path):
    folder = tmp_path / "run"
    with atomic_folder(folder, marker="m.json") as temporary:
        (temporary / "m.json").write_text("old")
    with pytest.raises(RuntimeError), atomic_folder(folder, marker="m.json") as temporary:
        (temporary / "m.json").write_text("half")
        raise RuntimeError
    assert (folder / "m.json").read_text() == "old"
    assert list(tmp_path.iterdir()) == [folder]


def test_a_rename_that_fails_brings_the_old_folder_back(tmp_path, monkeypatch):
    from pathlib import Path

    folder = tmp_path / "run"
    with atomic_folder(folder, marker="m.json") as temporary:
        (temporary / "m.json").write_text("old")
    rename = Path.replace

    def fail_into_place(self, target):
        if Path(target) == folder and not str(self).endswith(".old"):
            raise OSError(errno.EIO, "input/output error")
        return rename(self, target)

    monkeypatch.setattr(Path, "replace", fail_into_place)
    with pytest.raises(MachineError), atomic_folder(folder, marker="m.json") as temporary:
        (temporary / "m.json").write_text("new")
    assert (folder / "m.json").read_text() == "old"


def test_nothing_is_seen_before_it_is_whole(tmp_path):
    folder = tmp_path / "run"
    with atomic_folder(folder, marker="m.json") as temporary:
        (temporary / "m.json").write_text("{}")
        assert not folder.exists()
    assert (folder / "m.json").exists()


def test_an_output_that_is_a_file_or_holds_something_else_is_refused(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(UserError, match="is a file"), atomic_folder(tmp_path / "file", marker="m.json"):
        pass
    with pytest.raises(UserError, match="holds something else"), atomic_folder(tmp_path, marker="m.json"):
        pass
    assert (tmp_path / "file").read_text() == "x"


@pytest.mark.parametrize(
    ("number", "message"),
    [(errno.ENOSPC, "no space left"), (errno.EACCES, "cannot write"), (errno.EROFS, "cannot write")],
)
def test_what_a_disk_says_becomes_one_line_of_the_machine(tmp_path, number, message):
    with pytest.raises(MachineError, match=message), disk_errors(tmp_path):
        raise OSError(number, os.strerror(number))


def test_a_full_disk_leaves_what_was_there(tmp_path, monkeypatch):
    path = tmp_path / "a.json"
    write_json(path, {"a": 1})
    with pytest.raises(MachineError, match="no space left"), atomic_path(path):
        raise OSError(errno.ENOSPC, "full")
    assert path.read_text() == '{\n  "a": 1\n}\n'


def test_json_refuses_nan_and_leaves_what_was_there(tmp_path):
    path = tmp_path / "a.json"
    write_json(path, {"a": 1})
    with pytest.raises(ValueError):
        write_json(path, {"a": float("nan")})
    assert "1" in path.read_text()


@pytest.mark.parametrize("name", ["sst2", "sst2-s0", "a.b", "t5+base", "A_1"])
def test_plain_names_are_file_names(name):
    assert safe_name(name) == name


@pytest.mark.parametrize(
    "name", ["", ".", "..", "../x", "a/b", "/etc", "a\\b", "a b", "a\n", "-x", ".x", "a..b"]
)
def test_names_that_could_leave_a_folder_are_refused(name):
    with pytest.raises(UserError, match="cannot be a file name"):
        safe_name(name)
