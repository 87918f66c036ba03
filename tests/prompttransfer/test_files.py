"""Writing: whole or not at all, and never outside the output folder."""

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from prompttransfer.files import (
    atomic_folder,
    atomic_path,
    check_free,
    disk_errors,
    safe_name,
    write_json,
    write_text,
)
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


def put(folder, text="{}"):
    with atomic_folder(folder, marker="m.json") as temporary:
        (temporary / "m.json").write_text(text)


def test_behind_a_link_its_own_folder_is_written(tmp_path):
    (tmp_path / "big").mkdir()
    (tmp_path / "out").symlink_to("big")
    for text in ("old", "new"):
        put(tmp_path / "out", text)
        assert (tmp_path / "out").is_symlink() and (tmp_path / "big" / "m.json").read_text() == text
    assert sorted(os.listdir(tmp_path)) == ["big", "out"]


def test_behind_a_link_its_own_file_is_written(tmp_path):
    (tmp_path / "big").mkdir()
    (tmp_path / "a.json").symlink_to("big/b.json")
    write_json(tmp_path / "a.json", 1)
    assert (tmp_path / "a.json").is_symlink() and (tmp_path / "big" / "b.json").read_text() == "1\n"


@pytest.mark.parametrize(
    ("target", "said"), [("gone/far", "which is not there"), ("out", "leads back to itself")]
)
def test_a_link_to_nowhere_is_refused(tmp_path, target, said):
    (tmp_path / "out").symlink_to(target)
    for write in (put, lambda path: write_json(path, 1), lambda path: check_free(path, marker="m.json")):
        with pytest.raises(UserError, match=said):
            write(tmp_path / "out")
    assert os.listdir(tmp_path) == ["out"]


def test_a_folder_below_a_link_to_nowhere_is_refused_before_work(tmp_path):
    (tmp_path / "out").symlink_to("gone")
    with pytest.raises(UserError, match="which is not there"):
        check_free(tmp_path / "out" / "sst2", marker="m.json")


def test_a_mount_point_is_refused_before_work(tmp_path, monkeypatch):
    monkeypatch.setattr(os.path, "ismount", lambda path: Path(path) == tmp_path)
    with pytest.raises(UserError, match=r"is a mount point.* give a folder in it"):
        check_free(tmp_path, marker="m.json")
    check_free(tmp_path / "run", marker="m.json")


def test_a_place_that_cannot_be_written_is_refused_before_work(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != tmp_path)
    with pytest.raises(MachineError, match="cannot write into"):
        check_free(tmp_path / "a" / "b", marker="m.json")
    (tmp_path / "file").write_text("x")
    with pytest.raises(UserError, match="is a file"):
        check_free(tmp_path / "file" / "b", marker="m.json")


@pytest.mark.parametrize(
    ("umask", "file", "folder"), [(0o022, 0o644, 0o755), (0o077, 0o600, 0o700), (0o002, 0o664, 0o775)]
)
def test_the_umask_says_who_may_read(tmp_path, umask, file, folder):
    import torch
    from safetensors.torch import save_file

    before = os.umask(umask)
    try:
        with atomic_folder(tmp_path / "p", marker="m.json") as temporary:
            save_file({"a": torch.zeros(1)}, temporary / "weights.safetensors")  # writes 0600 by itself
            write_json(temporary / "more" / "m.json", 1)
        with atomic_path(tmp_path / "w.safetensors") as temporary:
            save_file({"a": torch.zeros(1)}, temporary)
    finally:
        os.umask(before)
    modes = {
        path.relative_to(tmp_path).as_posix(): path.stat().st_mode & 0o777 for path in tmp_path.rglob("*")
    }
    assert modes == {
        "p": folder, "p/weights.safetensors": file, "p/more": folder, "p/more/m.json": file, "w.safetensors": file,
    }  # fmt: skip


def killed(code):
    """Run code that kills itself in the middle of writing."""
    head = "import os, signal, sys\nfrom pathlib import Path\nfrom prompttransfer.files import *\n"
    home = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", head + code], env={**os.environ, "PYTHONPATH": str(home)}, timeout=60
    )
    assert done.returncode == -signal.SIGKILL


def test_what_a_killed_process_left_is_cleared_by_the_next(tmp_path):
    kill = "os.kill(os.getpid(), signal.SIGKILL)"
    for write in (
        f"with atomic_path(Path({str(tmp_path / 'a.json')!r})) as path: {kill}",
        f"with atomic_folder(Path({str(tmp_path / 'p')!r}), marker='m') as path: (path / 'm').mkdir(), {kill}",
    ):
        killed(write)
        assert [name for name in os.listdir(tmp_path) if name.startswith(".")]
        write_json(tmp_path / "other.json", 1)
        assert os.listdir(tmp_path) == ["other.json"]


def test_a_folder_that_a_killed_process_had_moved_aside_comes_back(tmp_path):
    put(tmp_path / "p", "old")
    killed(f"""
move = Path.replace
def once(self, target):
    move(self, target)
    os.kill(os.getpid(), signal.SIGKILL)
Path.replace = once
with atomic_folder(Path({str(tmp_path / "p")!r}), marker="m.json") as path: (path / "m.json").write_text("new")
""")
    assert not (tmp_path / "p").exists()
    write_json(tmp_path / "other.json", 1)
    assert (tmp_path / "p" / "m.json").read_text() == "old"
    assert sorted(os.listdir(tmp_path)) == ["other.json", "p"]


def test_what_may_still_be_written_is_left_alone(tmp_path, monkeypatch):
    with atomic_path(tmp_path / "mine.json") as mine:
        here, number = mine.name.split(".~")[1].split("-")[:2]
        elsewhere = tmp_path / mine.name.replace(here, "0" * 8).replace("mine", "theirs")
        elsewhere.write_text("half")
        (tmp_path / ".config.~x").write_text("of the user")
        write_json(tmp_path / "other.json", 1)
        assert mine.exists() and elsewhere.exists() and number == str(os.getpid())
    week = elsewhere.stat().st_mtime - 8 * 24 * 3600
    os.utime(elsewhere, (week, week))
    write_json(tmp_path / "other.json", 1)
    assert sorted(os.listdir(tmp_path)) == [".config.~x", "mine.json", "other.json"]
