"""Studies behind `s3://`, on a stand-in for S3 on this machine (moto): killed in the middle, the same tables."""

import os
import subprocess
import sys
from pathlib import Path

import matplotlib
import pytest
from small_study import TEXT, write_study
from toy_kinds import NAME, layers

from prompttransfer.cli.study_run import run as run_command
from prompttransfer.study.engine.engine import run_study
from prompttransfer.study.engine.records import make_record
from prompttransfer.study.engine.stores import open_store
from tasks.errors import MachineError, UnreadableError

pytest.importorskip("s3fs", reason="s3fs is not installed")
server = pytest.importorskip("moto.server", reason="moto's server is not installed")
HOME = Path(__file__).parents[2]


class Killed(BaseException):
    """Stands for the end of the process: nothing catches it."""


@pytest.fixture(scope="module")
def s3():
    """A stand-in of its own with one bucket, and its file system; nothing of the person's own account is asked."""
    stand_in = server.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    stand_in.start()
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith(("AWS_", "FSSPEC_"))]:
            patch.delenv(name)
        patch.setenv("AWS_ENDPOINT_URL", "http://{}:{}".format(*stand_in.get_host_and_port()))
        for name, value in {
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        }.items():
            patch.setenv(name, value)
        import fsspec

        files = fsspec.filesystem("s3")
        files.mkdir("bucket")
        yield files
        files.clear_instance_cache()
    stand_in.stop()


@pytest.fixture
def url(s3, tmp_path, monkeypatch):
    """The place of a study that no other test uses, on a machine with nothing in its cache."""
    monkeypatch.setenv("MPLCONFIGDIR", matplotlib.get_cachedir())  # where its fonts are known
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return f"s3://bucket/{tmp_path.name}"


def run(graph, place):
    return run_study(graph, open_store(place, new=True), kinds=NAME, say=lambda line: None)


def contents(place):
    store = open_store(place)
    assert not [name for name in store.ids() if store.damage(name, digests=True)]
    return {name: store.record(name).digest for name in store.ids()}


def study_run(file, place):
    """`study run` in a process of its own, as a person starts it."""
    return subprocess.Popen(
        [sys.executable, "-m", "prompttransfer", "study", "run", str(file), "--output", place, "--device", "cpu"],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(HOME), os.environ.get("PYTHONPATH", "")]),
             "PYTHONUNBUFFERED": "1", "OMP_NUM_THREADS": "1"},
    )  # fmt: skip


def records(s3, url):
    s3.invalidate_cache()
    return [path for path in s3.find(url) if path.endswith("/cell.json")]


def test_a_study_behind_s3_killed_in_the_middle_has_the_tables_of_a_folder(
    s3, url, tmp_path, backbone_folder, capsys
):
    text = TEXT[: TEXT.index("transfers:")].replace("[near, far]", "[near]")
    text = text.replace("[films.yaml, songs.yaml, pairs.yaml]", "[films.yaml]")
    file = write_study(tmp_path / "study", backbone_folder, text)
    killed = study_run(file, url)
    assert any(line.startswith("[1/") for line in killed.stdout)  # a unit is made, the next one is begun
    killed.kill()
    killed.wait()
    made = len(records(s3, url))
    there = tmp_path / "there"
    for place in (url, str(there)):
        run_command(str(file), output=place, device="cpu")
    said = capsys.readouterr().out.replace("\n", "")
    assert 0 < made < len(records(s3, url)) and f"{made} were there" in said
    assert f"the page: {url}/report/report.html" in said
    for name in ("results.csv", "results.parquet", "report/summary.csv", "report/comparisons.csv"):
        assert s3.cat_file(f"{url}/{name}") == (there / name).read_bytes(), name
    assert s3.cat_file(f"{url}/report/report.html").rstrip().endswith(b"</html>")


@pytest.mark.parametrize("uploads", [0, 1, 2])
def test_what_was_half_uploaded_is_no_cell(url, tmp_path, uploads):
    graph, store, left = layers([1, 1]), open_store(url, new=True), [uploads]
    whole, whole_file = type(store.files).pipe_file, type(store.files).put_file

    def count(path):
        if "/cells/" in path and not left[0]:
            raise Killed
        left[0] -= "/cells/" in path

    class Dying:
        """The file system, until the process ends."""

        def __getattr__(self, name):
            return getattr(files, name)

        def put_file(self, here, path):
            count(path)
            whole_file(files, here, path)

        def pipe_file(self, path, content):
            count(path)
            whole(files, path, content)

    files, store.files = store.files, Dying()
    with pytest.raises(Killed):
        run_study(graph, store, kinds=NAME, say=lambda line: None)
    first = next(iter(graph.cells))
    assert not open_store(url).has(first) and open_store(url).ids() == set()
    assert run(graph, url).made == 2
    run(graph, tmp_path / "here")
    assert contents(url) == contents(tmp_path / "here")


def test_two_machines_that_make_one_cell_at_once_leave_one_that_is_whole(url, tmp_path, monkeypatch):
    graph = layers([1])
    (cell,) = graph.cells.values()

    def machine(number, sees=True):
        """A machine whose arithmetic gives this number commits the cell."""
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / f"machine {number}"))
        store, filled = open_store(url, new=True), tmp_path / f"filled {number}"
        (filled / "more").mkdir(parents=True)
        for name in ("number.json", "more/bytes.bin"):
            (filled / name).write_text(str(number))
        record = make_record(cell, filled, started="", seconds=0, unit_cells=1, cost={}, commit=None)
        if not sees:
            monkeypatch.setattr(store, "has", lambda cell: False)
        store.commit(filled, record)
        return store, record

    first, _ = machine(1)
    _, record = machine(2, sees=False)
    late, _ = machine(3)
    for store in (first, late, open_store(url, new=True)):
        assert store.record(cell.id) == record and store.damage(cell.id, digests=True) is None
        assert (store.folder(cell.id) / "number.json").read_text() == "2"


def test_a_bucket_that_is_not_there_is_one_line_and_none_is_made(s3, url):
    place = url.replace("bucket", "buckte")
    with pytest.raises(MachineError, match=r"cannot write study.yaml in s3://buckte/.*bucket does not exist"):
        open_store(place, new=True).write_text("study.yaml", "study: x")
    s3.invalidate_cache()
    assert s3.ls("") == ["bucket"]


def test_a_store_that_does_not_answer_is_one_line(url, monkeypatch):
    import socket

    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    monkeypatch.setattr("s3fs.core.S3FileSystem.retries", 1)
    import fsspec

    fsspec.filesystem("s3").clear_instance_cache()
    try:
        store = open_store(url, new=True)
        with pytest.raises(UnreadableError, match=r"s3://.* cannot be read now \(Could not connect"):
            store.ids()
        with pytest.raises(MachineError, match=r"cannot write study.yaml in s3://.*Could not connect"):
            store.write_text("study.yaml", "study: x")
    finally:
        fsspec.filesystem("s3").clear_instance_cache()
