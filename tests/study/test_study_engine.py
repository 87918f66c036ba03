"""The run of a graph: order, failures, kills, two runs at once; every way ends in the same bits."""

import errno
import os
import random
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest
from toy_kinds import NAME, cell, layers

from prompttransfer.study.cell import Graph, Unit
from prompttransfer.study.engine.engine import run_study
from prompttransfer.study.engine.leases import held, lease
from prompttransfer.study.engine.store import LocalStore, read_failures, write_failure
from prompttransfer.study.engine.work import failure
from prompttransfer.study.results.status import read_status
from tasks.errors import MachineError, UnreadableError, UserError

HERE, HOME = Path(__file__).parent, Path(__file__).parents[2]


def run(graph, folder, **options):
    said = []
    return run_study(graph, LocalStore(folder), kinds=NAME, say=said.append, **options), said


def contents(folder):
    store = LocalStore(folder)
    assert not [name for name in store.ids() if store.damage(name, digests=True)]
    return {name: store.record(name).digest for name in store.ids()}


def graph_of(*cells):
    return Graph(tuple(Unit((one,)) for one in cells))


def start(folder, widths, *, workers=0, local=None, **settings):
    """A run in a process of its own; its output is kept for the message of a failure."""
    code = f"""if __name__ == "__main__":
    import sys
    sys.path[:0] = [{str(HERE)!r}, {str(HOME)!r}]
    from pathlib import Path
    from toy_kinds import NAME, layers
    from prompttransfer.signals import Interrupted, listening
    from prompttransfer.study.engine.engine import run_study
    from prompttransfer.study.engine.store import LocalStore
    options = dict(executor="workers", options={{"workers": {workers}}}) if {workers} else {{}}
    try:
        with listening():
            found = run_study(layers({widths!r}, **{settings!r}), LocalStore(Path({str(folder)!r})), kinds=NAME,
                              local={local or {}!r}, **options)
    except Interrupted as error:
        print(error)
        raise SystemExit(error.code)
    print("made", found.made, found.complete)
"""
    return subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        env={**os.environ, "PYTHONPATH": f"{HERE}{os.pathsep}{HOME}"}, start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )  # fmt: skip


def wait_for(ready, seconds=60):
    end = time.monotonic() + seconds
    while not ready():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.005)


def test_everything_is_made_once_and_inputs_come_first(tmp_path):
    graph, log = layers([3, 4, 2]), tmp_path / "log"
    found, _ = run(graph, tmp_path / "s", local={"log": str(log)})
    assert found.complete and found.made == 9
    assert sorted(log.read_text().split(), key=lambda name: name.split("-")[0]) == log.read_text().split()
    again, _ = run(graph, tmp_path / "s", local={"log": str(log)})
    assert (again.made, again.there) == (0, 9)
    assert len(log.read_text().split()) == 9


def test_a_changed_setting_reruns_exactly_what_depends_on_it(tmp_path):
    a, b = cell("a"), cell("b")
    run(graph_of(a, b, cell("c", [a]), cell("d", [b])), tmp_path)
    changed = cell("a", rate=2)
    found, _ = run(graph_of(changed, b, cell("c", [changed]), cell("d", [b])), tmp_path)
    assert (found.made, found.there) == (2, 2)
    assert read_status(LocalStore(tmp_path)).unused == 2


def test_a_failing_cell_fails_alone(tmp_path):
    bad, good = cell("bad", fault="error"), cell("good")
    graph = graph_of(
        bad, good, cell("below", [bad]), cell("further", [cell("below", [bad]), good]), cell("fine", [good])
    )
    found, said = run(graph, tmp_path)
    assert [report.label for report in found.failed] == ["bad"]
    assert [one.label for one in found.blocked] == ["below", "further"]
    assert (found.made, found.complete) == (2, False)
    (report,) = read_failures(LocalStore(tmp_path)).values()
    assert report.cause == "error" and "ZeroDivisionError" in report.traceback
    assert any(line.startswith("failed: bad") for line in said)
    status = read_status(LocalStore(tmp_path))
    assert [status.total(name) for name in ("done", "failed", "blocked", "left")] == [2, 1, 2, 0]


def test_failed_cells_are_tried_again_only_when_told(tmp_path):
    (tmp_path / "marks").mkdir()
    graph, local = layers([1, 1], fault="error", once=True), {"marks": str(tmp_path / "marks")}
    first, _ = run(graph, tmp_path / "s", local=local)
    assert (len(first.failed), first.made, len(first.blocked)) == (1, 0, 1)
    second, said = run(graph, tmp_path / "s", local=local)
    assert second.made == 0 and any("--retry-failed" in line for line in said)
    third, _ = run(graph, tmp_path / "s", local=local, retry_failed=True)
    assert (third.made, [report.label for report in third.failed]) == (1, ["1-0"])
    assert run(graph, tmp_path / "s", local=local, retry_failed=True)[0].complete
    assert read_failures(LocalStore(tmp_path / "s")) == {}


@pytest.mark.parametrize(
    ("fault", "cause", "line"),
    [
        ("user", "user", "the task has no rows: give another"),
        ("machine", "machine", "the hub is out of reach: try later"),
        ("memory", "machine", "out of memory"),
        ("download", "machine", "a file of weights is damaged or cut short"),
        ("error", "error", "ZeroDivisionError: division by zero"),
    ],
)
def test_a_failure_says_whose_fault_it_was(tmp_path, fault, cause, line):
    found, _ = run(graph_of(cell("bad", fault=fault)), tmp_path)
    assert found.failed[0].cause == cause and line in found.failed[0].line


def test_a_fault_of_the_machine_is_tried_again_by_the_next_run(tmp_path):
    (tmp_path / "marks").mkdir()
    graph, local = graph_of(cell("a", fault="machine", once=True)), {"marks": str(tmp_path / "marks")}
    assert not run(graph, tmp_path / "s", local=local)[0].complete
    assert run(graph, tmp_path / "s", local=local)[0].complete


def test_a_full_disk_stops_the_run_and_marks_nothing_failed(tmp_path):
    with pytest.raises(MachineError, match="no space left"):
        run(graph_of(cell("a"), cell("b", fault="full")), tmp_path)
    assert read_failures(LocalStore(tmp_path)) == {}
    assert len(contents(tmp_path)) == 1


@pytest.mark.parametrize("fault", ["full", "error"])
def test_what_an_attempt_has_filled_before_it_failed_is_removed(tmp_path, fault):
    with suppress(MachineError):
        run(Graph((Unit((cell("whole"), cell("b", fault=fault))),)), tmp_path)
    assert not list((tmp_path / "scratch" / "filled").iterdir())


def test_a_bank_keeps_the_cells_that_are_whole(tmp_path):
    bad, good = cell("bad", part=1), cell("good")
    graph = Graph((Unit((bad, good)), Unit((cell("below", [good]),)), Unit((cell("blocked", [bad]),))))
    found, _ = run(graph, tmp_path)
    assert (found.made, [one.label for one in found.blocked]) == (2, ["blocked"])
    assert found.failed[0].line == "ordered to fail in part"


def test_a_kind_that_writes_nothing_for_a_cell_fails(tmp_path):
    class Silent:
        version = 1

        def run(self, unit, context):
            return {}

    import toy_kinds

    toy_kinds.KINDS["silent"] = Silent()
    try:
        found, _ = run(Graph((Unit((type(cell("x"))("silent", "x", {}, {}, 1),)),)), tmp_path)
    finally:
        del toy_kinds.KINDS["silent"]
    assert "wrote no file" in found.failed[0].line


def test_a_cell_of_another_version_of_the_code_is_refused(tmp_path):
    found, _ = run(Graph((Unit((type(cell("x"))("toy", "x", {"name": "x"}, {}, 9),)),)), tmp_path)
    assert "is version 1, the plan was made with another" in found.failed[0].line


def test_an_unknown_executor_is_said(tmp_path):
    with pytest.raises(UserError, match="did you mean 'workers'"):
        run(graph_of(cell("a")), tmp_path, executor="worker")


def test_ray_that_is_not_installed_is_said(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UserError, match=r"pip install 'prompttransfer\[ray\]'"):
        run(graph_of(cell("a")), tmp_path, executor="ray")


def test_worker_processes_make_the_same_bits(tmp_path):
    graph = layers([4, 4, 2])
    run(graph, tmp_path / "one")
    found, _ = run(graph, tmp_path / "two", executor="workers", options={"workers": 2})
    assert found.made == 10
    assert contents(tmp_path / "two") == contents(tmp_path / "one")


def test_a_killed_worker_is_said_and_its_unit_tried_again(tmp_path):
    (tmp_path / "marks").mkdir()
    local = {"marks": str(tmp_path / "marks")}
    graph = graph_of(
        cell("kills", fault="kill", once=True), cell("exits", fault="exit", once=True), cell("other")
    )
    found, said = run(graph, tmp_path / "s", local=local, executor="workers", options={"workers": 2})
    assert found.complete
    assert any("kills" in line and "signal 9" in line and "memory" in line for line in said)
    assert any("exits" in line and "exit code 7" in line for line in said)


def test_a_unit_whose_process_is_killed_again_fails_alone(tmp_path):
    graph = graph_of(cell("kills", fault="kill"), cell("other"))
    found, _ = run(graph, tmp_path, executor="workers", options={"workers": 1})
    assert found.made == 1
    assert (found.failed[0].cause, found.failed[0].label) == ("killed", "kills")
    assert "tried 2 times" in found.failed[0].line


def test_killed_ten_times_at_random_the_result_is_the_same(tmp_path):
    widths, settings = [12, 12, 6], {"sleep": 0.02}
    graph, folder = layers(widths, **settings), tmp_path / "killed"
    run(layers(widths, **settings), tmp_path / "whole")
    chance = random.Random(5)
    for _ in range(10):
        process = start(folder, widths, **settings)
        before = len(LocalStore(folder).ids())
        wait_for(lambda seen=before, p=process: len(LocalStore(folder).ids()) > seen or p.poll() is not None)
        time.sleep(chance.uniform(0, 0.06))
        with suppress(ProcessLookupError):  # on a busy machine it may have come to its end
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
    found, _ = run(graph, folder)
    assert found.complete and found.there > 0
    assert contents(folder) == contents(tmp_path / "whole")
    assert held(folder / "leases") == {}
    assert not list((folder / "scratch").glob("*/*"))


def test_workers_end_when_their_run_is_killed_and_their_units_are_free_at_once(tmp_path):
    widths, settings = [2], {"sleep": 30}
    folder = tmp_path / "s"
    process = start(folder, widths, workers=2, **settings)
    wait_for(lambda: len(held(folder / "leases")) == 2)
    assert read_status(LocalStore(folder)).total("running") == 2
    os.kill(process.pid, signal.SIGKILL)
    wait_for(lambda: not held(folder / "leases"), 20)
    process.communicate()


def test_two_runs_on_one_folder_share_the_work(tmp_path):
    widths, settings, log = [16, 8], {"sleep": 0.05}, tmp_path / "log"
    runs = [start(tmp_path / "s", widths, local={"log": str(log)}, **settings) for _ in range(2)]
    outputs = [process.communicate(timeout=120)[0] for process in runs]
    made = [int(output.split("made ")[-1].split()[0]) for output in outputs]
    assert all("made" in output and "True" in output for output in outputs), outputs
    assert sum(made) == 24 and len(log.read_text().split()) == 24
    run(layers(widths, **settings), tmp_path / "alone")
    assert contents(tmp_path / "s") == contents(tmp_path / "alone")


def test_what_another_run_is_at_is_waited_for(tmp_path):
    graph = layers([1, 1])
    first = graph.units[0]
    folder = tmp_path / "s"
    (folder / "leases").mkdir(parents=True)
    with lease(folder / "leases", first.id) as mine:
        assert mine
        process = start(folder, [1, 1])
        wait_for(lambda: (folder / "plan.json").exists())
        time.sleep(0.3)
        assert contents(folder) == {}
    output, _ = process.communicate(timeout=60)
    assert "made 2 True" in output


def test_a_lease_is_held_by_one(tmp_path):
    with lease(tmp_path, "0" * 16) as first, lease(tmp_path, "0" * 16) as second:
        assert (first, second) == (True, False)
        assert set(held(tmp_path)) == {"0" * 16}
    assert held(tmp_path) == {} and list(tmp_path.iterdir()) == []


def test_two_runs_of_two_versions_of_a_study_share_a_folder(tmp_path):
    cells = [cell(f"{index}", sleep=0.05) for index in range(4)]
    banks = [
        Graph((Unit(tuple(cells)),)),
        Graph(tuple(Unit(tuple(cells[i : i + 2])) for i in (0, 2))),
        Graph((Unit(tuple(cells[:3])), Unit(tuple(cells[3:])))),
    ]
    with ThreadPoolExecutor(3) as pool:
        found = [summary for summary, _ in pool.map(lambda graph: run(graph, tmp_path / "s"), banks)]
    assert all(summary.complete and not summary.failed for summary in found)
    run(Graph((Unit(tuple(cells)),)), tmp_path / "alone")
    assert contents(tmp_path / "s") == contents(tmp_path / "alone")
    assert not list((tmp_path / "s" / "scratch").glob("*/*"))


def test_a_machine_that_was_cut_off_and_comes_back_harms_nothing(tmp_path):
    cut = cell("cut", **{"cut off": True})
    graph, local = graph_of(cut, cell("next", [cut])), {"marks": str(tmp_path / "marks")}
    (tmp_path / "marks").mkdir()
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(run, graph, tmp_path / "s", local=local)
        wait_for(lambda: list((tmp_path / "marks").iterdir()) and not held(tmp_path / "s" / "leases"))
        second = pool.submit(run, graph, tmp_path / "s", local=local)
        found = [running.result()[0] for running in (first, second)]
    assert all(summary.complete and not summary.failed for summary in found)
    store = LocalStore(tmp_path / "s")
    assert read_failures(store) == {} and set(contents(store.root)) == set(graph.cells)
    assert sorted(path.name for path in store.path(cut.id).iterdir()) == ["cell.json", "more", "number.json"]
    assert not list((store.root / "scratch" / "filled").iterdir())


def test_a_unit_that_another_run_is_failing_cell_by_cell_is_waited_for(tmp_path):
    bank = Unit((cell("a"), cell("b")))
    graph, store = Graph((bank, Unit((cell("c", bank.cells),)))), LocalStore(tmp_path)
    (tmp_path / "leases").mkdir()
    with ThreadPoolExecutor(1) as pool:
        with lease(tmp_path / "leases", bank.id):
            running = pool.submit(run, graph, tmp_path)
            wait_for(lambda: (tmp_path / "plan.json").exists())
            write_failure(store, failure(bank.cells[0], "error", "first of two reports", "", None))
            time.sleep(0.3)
            assert not running.done()
            write_failure(store, failure(bank.cells[1], "error", "second of two reports", "", None))
            wait_for(running.done)
        found, _ = running.result()
    assert [report.line for report in found.failed] == ["first of two reports", "second of two reports"]
    assert [one.label for one in found.blocked] == ["c"]


def test_what_a_run_killed_after_its_last_commit_left_is_removed_by_the_next(tmp_path):
    graph = layers([1])
    run(graph, tmp_path)
    (unit,) = graph
    for name in (
        unit.id,
        f"filled/{unit.id}-{unit.id}-01234567",
        f"discarded-{unit.id}-x",
        "0123456789abcdef",
    ):
        (tmp_path / "scratch" / name).mkdir(parents=True)
    run(graph, tmp_path)
    assert sorted(path.name for path in (tmp_path / "scratch").glob("*")) == ["0123456789abcdef", "filled"]
    assert not list((tmp_path / "scratch" / "filled").iterdir())


@pytest.mark.parametrize(
    ("workers", "number"), [(0, signal.SIGTERM), (0, signal.SIGINT), (2, signal.SIGTERM)]
)
def test_a_run_that_is_stopped_counts_nothing_as_failed_and_goes_on(tmp_path, workers, number):
    folder, log = tmp_path / "s", tmp_path / "log"
    graph = layers([2, 1], sleep=30)
    process = start(folder, [2, 1], workers=workers, local={"log": str(log)}, sleep=30)
    wait_for(lambda: log.exists() and len(log.read_text().split()) == max(1, workers))
    assert held(folder / "leases")
    process.send_signal(number)
    said = process.communicate(timeout=30)[0]
    assert process.returncode == 128 + number, said
    assert (
        f"stopped by {number.name}: 0 of 3 cells are finished in {folder}; the same command goes on" in said
    )
    store = LocalStore(folder)
    assert read_failures(store) == {} and read_status(store).total("left") == len(graph.cells)
    assert not list((folder / "leases").iterdir())  # and with the leases their holders are gone


def test_a_file_that_cannot_be_read_stops_the_run_and_stays(tmp_path, monkeypatch):
    from prompttransfer.study.engine import store as stores

    graph = layers([2, 1])
    run(graph, tmp_path)
    last = list(graph.cells)[-1]
    used = next(iter(graph.cells[last].inputs.values()))
    LocalStore(tmp_path).discard(last)
    path = LocalStore(tmp_path).path(used) / "number.json"
    whole, inode = stores.file_record, path.stat().st_ino
    for number in (errno.EACCES, errno.EIO, errno.ESTALE, errno.EMFILE):

        def refuse(file, number=number):
            if file == path:
                raise OSError(number, os.strerror(number), str(file))
            return whole(file)

        monkeypatch.setattr(stores, "file_record", refuse)
        with pytest.raises(UnreadableError, match=f"number.json cannot be read now .{os.strerror(number)}"):
            run(graph, tmp_path)
        with pytest.raises(UnreadableError):
            run(graph, tmp_path, verify=True)
    assert path.stat().st_ino == inode and read_failures(LocalStore(tmp_path)) == {}


@pytest.mark.parametrize("name", ["cell.json", "more/bytes.bin"])
@pytest.mark.parametrize("kind", ["loop", "pipe"])
def test_what_is_no_file_in_a_cell_is_damage_and_nothing_waits_for_it(tmp_path, name, kind):
    graph = layers([1])
    run(graph, tmp_path)
    (cell_id,) = graph.cells
    path = LocalStore(tmp_path).path(cell_id) / name
    path.unlink()
    os.mkfifo(path) if kind == "pipe" else path.symlink_to(path)
    found, said = run(graph, tmp_path, verify=True)
    assert found.made == 1 and any(line.startswith("damaged") for line in said)
    assert not path.is_symlink() and contents(tmp_path)


def test_a_link_in_the_place_of_a_cell_is_damage(tmp_path):
    graph = layers([1])
    run(graph, tmp_path)
    (cell_id,) = graph.cells
    path = LocalStore(tmp_path).path(cell_id)
    path.rename(tmp_path / "elsewhere")
    path.symlink_to(path)
    assert run(graph, tmp_path)[0].made == 1
    assert (tmp_path / "elsewhere" / "cell.json").exists()


def test_a_place_that_cannot_be_written_is_said_before_any_work(tmp_path, monkeypatch):
    graph, log = layers([1]), tmp_path / "log"
    (tmp_path / "s").mkdir()
    (tmp_path / "s" / "report").mkdir()
    able = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path).name != "report" and able(path, mode))
    with pytest.raises(MachineError, match=r"cannot write into .*report"):
        run(graph, tmp_path / "s", local={"log": str(log)})
    assert not log.exists()
