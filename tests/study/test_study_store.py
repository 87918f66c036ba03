"""The store: cells appear whole, damage is seen, a URL holds the same cells as a folder."""

import json
import shutil

import pytest
from toy_kinds import NAME, cell, layers

from prompttransfer.study.cell import Cell, Graph, Unit
from prompttransfer.study.contents import read_score
from prompttransfer.study.engine.engine import run_study
from prompttransfer.study.engine.records import RECORD
from prompttransfer.study.engine.store import LocalStore, read_graph
from prompttransfer.study.engine.stores import open_store
from prompttransfer.study.results.explain import explain_cell, find_cell
from tasks.errors import MachineError, UserError


def run(graph, store, **options):
    said = []
    return run_study(graph, store, kinds=NAME, say=said.append, **options), said


def contents(store):
    """Cell id -> digest over its files."""
    return {name: store.record(name).digest for name in store.ids()}


@pytest.fixture
def finished(tmp_path):
    graph, store = layers([2, 2]), LocalStore(tmp_path)
    assert run(graph, store)[0].complete
    return graph, store


def test_an_id_depends_on_what_goes_in_and_not_on_the_label():
    one = Cell("toy", "a label", {"b": 1, "a": [1.5, None]}, {}, 1)
    assert one.id == Cell("toy", "another", {"a": (1.5, None), "b": 1}, {}, 1).id
    assert one == Cell("toy", "another", {"a": (1.5, None), "b": 1}, {}, 1)
    others = [
        Cell("toys", "a label", {"b": 1, "a": [1.5, None]}, {}, 1),
        Cell("toy", "a label", {"b": 2, "a": [1.5, None]}, {}, 1),
        Cell("toy", "a label", {"b": 1, "a": [1.5, None]}, {"x": one.id}, 1),
        Cell("toy", "a label", {"b": 1, "a": [1.5, None]}, {}, 2),
    ]
    assert len({one.id, *(other.id for other in others)}) == 5


def test_a_cell_refuses_what_cannot_be_named():
    with pytest.raises(UserError, match="plain JSON"):
        Cell("toy", "nan", {"a": float("nan")}, {}, 1)
    with pytest.raises(UserError, match="not an id"):
        Cell("toy", "bad input", {}, {"source": "sst2"}, 1)


def test_a_graph_puts_inputs_first_and_refuses_unknown_ones():
    first = cell("first")
    second = cell("second", [first])
    assert [unit.label for unit in Graph((Unit((second,)), Unit((first,))))] == ["first", "second"]
    with pytest.raises(UserError, match="is not in the study"):
        Graph((Unit((second,)),))
    with pytest.raises(UserError, match="in two units"):
        Graph((Unit((first,)), Unit((first, cell("third")))))


def test_a_record_traces_a_number_and_names_no_machine(finished):
    graph, store = finished
    name = list(graph.cells)[-1]
    record = store.record(name)
    assert record.cell == graph.cells[name]
    assert set(record.files) == {"number.json", "more/bytes.bin"}
    assert record.cost == {"steps": 1} and "torch" in record.versions
    text = (store.path(name) / RECORD).read_text()
    assert str(store.root) not in text


def test_the_graph_is_kept_beside_its_cells(finished):
    graph, store = finished
    assert [unit.id for unit in read_graph(store)] == [unit.id for unit in graph]


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (lambda folder: (folder / "number.json").write_text("{"), "has 1 bytes"),
        (lambda folder: (folder / "number.json").unlink(), "number.json is missing"),
        (lambda folder: (folder / RECORD).write_text("{"), "is no record"),
        (lambda folder: (folder / RECORD).unlink(), "cell.json is missing"),
    ],
)
def test_a_damaged_cell_is_found_said_and_made_again(finished, harm, said):
    graph, store = finished
    before = contents(store)
    name = next(iter(graph.cells))
    harm(store.path(name))
    found, lines = run(graph, store)
    assert (found.made, found.there) == (1, 3)
    assert any("damaged" in line and said in line for line in lines)
    assert contents(store) == before


def change_a_bit(store, name):
    path = store.path(name) / "more" / "bytes.bin"
    path.write_bytes(b"\x01" + path.read_bytes()[1:])


def test_a_changed_bit_is_found_when_the_cell_is_used(finished):
    graph, store = finished
    last = list(graph.cells)[-1]
    before = contents(store)
    used = next(name for name in graph.cells[last].inputs.values())
    change_a_bit(store, used)
    LocalStore(store.root).discard(last)
    found, lines = run(graph, LocalStore(store.root))
    assert found.made == 2 and found.complete
    assert any("was changed after it was written" in line for line in lines)
    assert contents(store) == before


def test_a_changed_bit_is_found_with_verify(finished):
    graph, store = finished
    change_a_bit(store, next(iter(graph.cells)))
    assert run(graph, LocalStore(store.root))[0].made == 0
    assert run(graph, LocalStore(store.root), verify=True)[0].made == 1


@pytest.mark.parametrize("scheme", ["memory", "file"])
def test_a_url_holds_the_same_cells_as_a_folder(tmp_path, monkeypatch, scheme):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    graph = layers([2, 2])
    here = LocalStore(tmp_path / "here")
    run(graph, here)
    store = open_store(f"{scheme}://{tmp_path}/there", new=True)
    assert run(graph, store)[0].made == 4
    assert contents(store) == contents(here)
    assert run(graph, store)[0].made == 0


def test_cells_of_earlier_versions_with_their_files_beside_the_record_are_read(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    graph, store = layers([1, 1]), open_store(f"memory://{tmp_path}/study", new=True)
    run(graph, store)
    before = contents(store)
    for each in graph.cells:
        record = store.record(each)
        for name in record.files:
            path = store.place_of(record, name)
            assert path.count(record.digest) == 1
            store.files.mv(path, path.replace(f"/{record.digest}/", "/"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "another machine"))
    assert run(graph, open_store(store.place), verify=True)[0].made == 0
    assert contents(open_store(store.place)) == before


def test_a_damaged_object_is_made_again(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    graph, url = layers([1, 1]), f"memory://{tmp_path}/study"
    store = open_store(url, new=True)
    run(graph, store)
    before = contents(store)
    name = next(iter(graph.cells))
    store.files.pipe_file(store.place_of(store.record(name), "number.json"), b'{"number": 1}')
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "another machine"))
    found, lines = run(graph, open_store(url), verify=True)
    assert found.made == 1 and any("damaged" in line for line in lines)
    assert contents(store) == before


class Unanswered:
    """A file system that answers to nothing but questions for a cell's record."""

    def __init__(self, files):
        self.files = files

    def __getattr__(self, name):
        return getattr(self.files, name)

    def info(self, path):
        if path.endswith("cell.json"):
            return self.files.info(path)
        raise ConnectionError("no answer")

    def exists(self, path):
        return False  # as fsspec has it for any error


@pytest.mark.parametrize("act", ["discard", "remove_text"])
def test_what_cannot_be_seen_is_not_taken_for_removed(tmp_path, monkeypatch, act):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    graph, store = layers([1]), open_store(f"memory://{tmp_path}/study", new=True)
    assert not run_study(graph, store, kinds=NAME, say=lambda line: None).failed
    (cell,) = graph.cells
    store.write_text("failures/one.json", "{}")
    remove, name = getattr(store, act), cell if act == "discard" else "failures/one.json"
    files, store.files = store.files, Unanswered(store.files)
    with pytest.raises(MachineError, match=r"cannot remove .* \(no answer\): .* mend that and run again"):
        remove(name)
    store.files = files
    remove(name)
    remove(name)  # what is not there is removed
    assert store.read_text("failures/one.json") == (None if act == "remove_text" else "{}")
    assert store.has(cell) is (act == "remove_text")


def test_a_place_without_a_study_is_said(tmp_path):
    with pytest.raises(UserError, match="no study was run in"):
        open_store(tmp_path)


def test_explain_shows_inputs_to_the_bottom(finished):
    graph, store = finished
    name = list(graph.cells)[-1]
    found = explain_cell(store, name[:6])
    assert (found.id, found.state) == (name, "finished")
    assert [line.depth for line in found.inputs] == [1, 1]
    assert found.record.cost == {"steps": 1}
    assert json.dumps(found.as_json())


def test_explain_suggests_the_nearest_cell(finished):
    graph, store = finished
    name = next(iter(graph.cells))
    assert find_cell(store, "0-0") == name
    with pytest.raises(UserError, match=r"did you mean .* \(0-0\)"):
        find_cell(store, "0-0x")
    with pytest.raises(UserError, match="no cell"):
        find_cell(store, "zzzz")


def test_a_cell_that_another_run_committed_meanwhile_stays(finished, tmp_path):
    graph, store = finished
    name = next(iter(graph.cells))
    record, inode = store.record(name), store.path(name).stat().st_ino
    filled = tmp_path / "filled"
    shutil.copytree(store.path(name), filled)
    store.commit(filled, record)
    assert store.path(name).stat().st_ino == inode and not filled.exists()
    change_a_bit(store, name)
    shutil.copytree(store.path(name), filled)
    (filled / "more" / "bytes.bin").write_bytes(b"new")
    store.commit(filled, record)
    assert (store.path(name) / "more" / "bytes.bin").read_bytes() == b"new"
    assert list((store.root / "scratch").glob("discarded-*")) == []


def test_a_download_leaves_the_copy_that_another_process_reads(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    graph, store = layers([1]), open_store(f"memory://{tmp_path}/study", new=True)
    run(graph, store)
    name = next(iter(graph.cells))
    store.local.discard(name)
    here = store.folder(name)
    inode = here.stat().st_ino
    assert store._download(store.record(name)) is None  # as a second process does that saw no copy yet
    assert here.stat().st_ino == inode
    store.files.pipe_file(store.place_of(store.record(name), "number.json"), b"{}")
    assert "number.json has 2 bytes" in store.damage(name, digests=True)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda plan: plan["units"][0].pop("cells"), "units.0.cells: Field required"),
        (lambda plan: plan["units"][0].update(cells=[]), "units.0.cells"),
        (lambda plan: plan["units"][0]["cells"][0].update(id=["x"]), "units.0.cells.0.id"),
        (lambda plan: plan["units"][-1]["cells"][0].update(inputs={"input0": "0" * 16}), "is not in it"),
        (lambda plan: plan["units"].append(plan["units"][0]), "stands in it twice"),
        (lambda plan: plan["units"][0]["cells"][0]["settings"].update(name="other"), "other settings"),
        (lambda plan: plan.update(format=9), "of format 9"),
        (lambda plan: plan.update(units=3), "units: "),
    ],
)
def test_a_plan_that_was_changed_is_one_line(finished, change, said):
    _, store = finished
    plan = json.loads((store.root / "plan.json").read_text())
    change(plan)
    (store.root / "plan.json").write_text(json.dumps(plan))
    with pytest.raises(UserError, match=f"{said}.*`study run` writes it anew"):
        read_graph(store)


def test_a_score_of_another_version_is_one_line(tmp_path):
    score = {"task": "sst2", "metric": "accuracy", "rows": 12}
    references = {**score, "references": {"no prompt": 0.5}}
    (tmp_path / "score.json").write_text(json.dumps(references))
    assert read_score(tmp_path) == references
    for wrong, said in (
        (score, "value: Field required"),
        ({**score, "references": {"no prompt": "x"}}, "references.no prompt"),
        ({**score, "references": {"no idea": 0.5}}, "row 'no idea'"),
        ({**references, "rows": 2**63}, "rows: "),
    ):
        (tmp_path / "score.json").write_text(json.dumps(wrong))
        with pytest.raises(UserError, match=said):
            read_score(tmp_path)
